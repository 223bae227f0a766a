"""The tasks on the WidowX's table, one module each."""
