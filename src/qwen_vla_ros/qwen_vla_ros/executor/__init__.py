"""executor_node: checks chunks and commands the robot. Never imports torch."""
