"""Recordings on disk: LeRobotDataset, rosbag2, and what all formats share."""
