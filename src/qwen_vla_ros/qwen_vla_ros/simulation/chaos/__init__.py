# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla evaluate --over-ros --chaos`: fault injection, and an assessment of the commands sent to the robot.

`relay` (a process of its own) drops and delays messages between the nodes, `monkey` kills, freezes and restarts nodes,
`saboteur` makes the simulated robot misbehave as hardware does, `trial` runs the episodes and summarizes the findings.
"""
