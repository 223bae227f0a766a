"""How far a run is: its log, and the loss curve made of it."""
