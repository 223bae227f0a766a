"""Progress of a run: its log, and its loss curve."""
