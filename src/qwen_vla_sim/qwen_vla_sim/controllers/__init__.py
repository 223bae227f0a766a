"""What stands between commands and servos, without ROS: controllers, and the robot that they drive."""
