"""The checks, one module per subject: the fact, the fault, and the remedy."""
