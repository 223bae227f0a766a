"""Recordings of robots and human hands as training samples."""
