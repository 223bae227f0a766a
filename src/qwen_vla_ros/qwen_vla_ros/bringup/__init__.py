"""What the launch files are made of. Needs `launch` and `launch_ros`, which come with a ROS installation."""
