# SPDX-License-Identifier: Apache-2.0
"""The robot-side core: what was observed, what may move, and how it moves. Free of ROS, torch and MuJoCo."""
