# SPDX-License-Identifier: Apache-2.0
"""Controllers between commands and servos, and the robot that they drive. Free of ROS."""
