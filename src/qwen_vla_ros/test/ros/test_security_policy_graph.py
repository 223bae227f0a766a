# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policy allows everything that policy_node does: none of its topics, services or actions is missing.

The robot's enclave allows everything, and a launch has what ros2 launch itself needs (test_launch_files.py).
"""

from __future__ import annotations

from rclpy.node import NodeNameNonExistentError
from sros2_policy import endpoints, refused


def test_the_running_policy_node_is_allowed_everything_it_does(peer, processes) -> None:
    processes.start("policy_node")
    peer.wait_until_active("policy_node")
    peer.wait(lambda: "/rosout" in used_by_the_policy(peer)["topic", "publish"], "publishers of policy_node")
    wanted = "/policy_node/get_parameters"
    peer.wait(lambda: wanted in used_by_the_policy(peer)["service", "reply"], "services of policy_node")
    used = used_by_the_policy(peer)
    assert used["action", "execute"] == {"/policy_node/execute_instruction"}
    for (kind, verb), names in used.items():
        left_out = refused("policy", kind, verb, names)
        assert not left_out, f"config/sros2/policy.xml lacks for policy_node, {verb} of {kind}s: {left_out}"


def used_by_the_policy(peer) -> dict[tuple[str, str], set[str]]:
    """What policy_node offers and uses; empty while it is not in the graph."""
    try:
        return endpoints(peer.node, "policy_node", "/")
    except NodeNameNonExistentError:
        return {("topic", "publish"): set(), ("service", "reply"): set()}
