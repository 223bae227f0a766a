# SPDX-License-Identifier: Apache-2.0
"""policy_node: observes, has the policy predict chunks, and sends them to the executor."""
