"""What the robot senses: streams, their age and alignment, images, joint states and odometry."""
