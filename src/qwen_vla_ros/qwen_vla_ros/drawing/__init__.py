# SPDX-License-Identifier: Apache-2.0
"""Visualization: predicted, accepted and refused motion in RViz, in rerun, or as an image."""
