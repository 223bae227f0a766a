"""Controllers between commands and servos, and the robot that they drive. Free of ROS."""
