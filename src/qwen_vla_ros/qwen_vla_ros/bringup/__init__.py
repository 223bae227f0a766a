# SPDX-License-Identifier: Apache-2.0
"""The building blocks of the launch files. Requires `launch` and `launch_ros`, which are part of a ROS installation."""
