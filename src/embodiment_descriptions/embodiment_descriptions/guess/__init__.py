# SPDX-License-Identifier: Apache-2.0
"""What can be guessed of a robot from its URDF alone: its arm or its base, and how its gripper opens."""
