"""Synthetic motions with the instructions that describe them."""
