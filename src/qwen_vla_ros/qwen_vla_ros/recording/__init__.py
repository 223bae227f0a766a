"""episode_recorder: observations, commands and instructions of a robot, one folder per episode."""
