"""`qwen-vla evaluate --over-ros --chaos`: faults on purpose, and a judgement of what the robot was commanded meanwhile.

`relay` (a process of its own) loses and delays messages between the nodes, `monkey` kills, freezes and restarts nodes,
`saboteur` has the simulated robot misbehave as hardware does, `trial` runs the episodes and draws the conclusions.
"""
