"""ALOHA's tasks, one module each."""
