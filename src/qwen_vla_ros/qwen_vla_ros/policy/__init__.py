"""policy_node: observes, asks the policy for chunks, and hands them to the executor."""
