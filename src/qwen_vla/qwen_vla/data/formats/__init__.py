# SPDX-License-Identifier: Apache-2.0
"""Recordings on disk: LeRobotDataset, rosbag2, and what all formats share."""
