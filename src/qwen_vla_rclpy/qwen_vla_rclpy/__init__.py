# SPDX-License-Identifier: Apache-2.0
"""rclpy as every node of the suite uses it: the node survives any input and reports what was wrong with it."""
