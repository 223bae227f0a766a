"""executor_node: decides about chunks and commands the robot. Never imports torch."""
