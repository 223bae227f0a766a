"""ALOHA: two arms at a table, its bimanual tasks and their expert."""
