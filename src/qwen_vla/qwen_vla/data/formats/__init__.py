"""Recordings as they lie on the disk: LeRobotDataset, rosbag2, and what all formats share."""
