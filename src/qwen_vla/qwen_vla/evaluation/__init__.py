"""Evaluation: closed-loop success of a checkpoint on a task suite, in process or over ROS."""
