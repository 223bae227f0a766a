"""Policies: an observation in, a chunk of actions in physical units out."""
