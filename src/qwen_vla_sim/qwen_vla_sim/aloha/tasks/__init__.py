"""ALOHA's tasks, a module each."""
