"""ALOHA: two arms at their table, its bimanual tasks and their expert."""
