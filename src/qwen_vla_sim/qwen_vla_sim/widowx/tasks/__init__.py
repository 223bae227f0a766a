"""The tasks on the WidowX's table, a module each."""
