"""The checks themselves, a module per subject: what is looked at, what is wrong, and what to do."""
