"""Motion in time: splines, joint and base paths, blending, and path following."""
