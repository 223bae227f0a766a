"""Navigation and trajectory data as training samples."""
