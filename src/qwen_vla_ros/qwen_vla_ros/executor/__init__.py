# SPDX-License-Identifier: Apache-2.0
"""executor_node: checks chunks and commands the robot. Never imports torch."""
