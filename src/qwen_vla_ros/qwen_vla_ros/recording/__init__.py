# SPDX-License-Identifier: Apache-2.0
"""episode_recorder: observations, commands and instructions of a robot, one folder per episode."""
