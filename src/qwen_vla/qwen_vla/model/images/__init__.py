# SPDX-License-Identifier: Apache-2.0
"""Resampling of images to the size of the model, on the CPU and on a GPU."""
