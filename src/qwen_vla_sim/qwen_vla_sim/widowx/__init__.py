"""The WidowX 250s on a table: its world, scenes, scripted expert, task suites and ROS node."""
