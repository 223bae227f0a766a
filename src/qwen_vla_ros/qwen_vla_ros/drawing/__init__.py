"""Visualization: predicted, accepted and refused motion in RViz, in rerun, or as an image."""
