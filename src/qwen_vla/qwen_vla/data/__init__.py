# SPDX-License-Identifier: Apache-2.0
"""Datasets: reading and writing LeRobotDataset v3.0, action chunks from episodes, vision-language samples."""
