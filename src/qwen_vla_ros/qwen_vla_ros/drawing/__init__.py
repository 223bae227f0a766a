"""What people look at: predicted, accepted and refused motion in RViz, in rerun, or as a picture."""
