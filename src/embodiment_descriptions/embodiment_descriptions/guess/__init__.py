"""What can be guessed of a robot from its URDF alone: its arm or its base, and how its gripper opens."""
