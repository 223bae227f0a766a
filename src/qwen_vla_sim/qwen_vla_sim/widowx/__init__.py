# SPDX-License-Identifier: Apache-2.0
"""The WidowX 250s at a table: its world, scenes, scripted expert, task suites and ROS node."""
