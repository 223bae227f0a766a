"""The tasks of the mobile base, a module each."""
