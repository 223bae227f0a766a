# SPDX-License-Identifier: Apache-2.0
"""The ROS side of every simulated robot. Beside the node modules of the robots, only modules in here import ROS."""
