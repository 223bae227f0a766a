"""What the robot senses: streams, their ages and alignment, images, joint states and odometry."""
