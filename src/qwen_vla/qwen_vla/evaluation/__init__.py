# SPDX-License-Identifier: Apache-2.0
"""Evaluation: closed-loop success rate of a policy on a task suite, in process or over ROS."""
