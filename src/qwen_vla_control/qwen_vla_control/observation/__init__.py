# SPDX-License-Identifier: Apache-2.0
"""What the robot senses: streams, their age and alignment, images, joint states and odometry."""
