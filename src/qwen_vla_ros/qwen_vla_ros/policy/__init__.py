"""policy_node: observes, has the policy predict chunks, and sends them to the executor."""
