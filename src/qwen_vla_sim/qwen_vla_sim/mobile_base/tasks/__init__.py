"""The tasks of the mobile base, one module each."""
