"""Motion in time: splines, joint and base paths, blending, and following a path."""
