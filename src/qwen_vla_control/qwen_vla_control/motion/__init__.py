# SPDX-License-Identifier: Apache-2.0
"""Motion in time: splines, joint and base paths, blending, and path following."""
