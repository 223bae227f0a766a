"""The SROS2 policy lets the running nodes do all that they do: no topic, service or action of theirs is left out."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rclpy.node import NodeNameNonExistentError

POLICY = Path(__file__).resolve().parents[4] / "config" / "sros2" / "policy.xml"
ENCLAVES = {
    "executor_node": "robot", "trajectory_visualizer": "robot", "episode_recorder": "robot", "policy_node": "policy",
}  # fmt: skip
VERBS = {
    "publisher": ("topics", "publish"), "subscriber": ("topics", "subscribe"),
    "service": ("services", "reply"), "client": ("services", "request"),
}  # fmt: skip
# Topics and services of an action have it in their names.
ACTION_PARTS = {"service": "execute", "publisher": "execute", "client": "call", "subscriber": "call"}


def allowed(node: str, group: str, verb: str) -> set[str]:
    """Expressions of a node's profile."""
    enclaves = {e.get("path"): e for e in ElementTree.parse(POLICY).getroot().iter("enclave")}
    (profile,) = [p for p in enclaves[f"/qwen_vla/{ENCLAVES[node]}"].iter("profile") if p.get("node") == node]
    return {e.text for found in profile.iter(group) if found.get(verb) == "ALLOW" for e in found}


def missing(node: str, direction: str, names: list[str]) -> list[str]:
    """Names that the node uses and its profile does not allow."""
    group, verb = VERBS[direction]
    rules = allowed(node, group, verb)
    actions = allowed(node, "actions", ACTION_PARTS[direction])
    left_out = []
    for name in (full.lstrip("/") for full in names):
        action, part, _ = name.partition("/_action/")
        if not (action in actions if part else any(fnmatch(name, rule) for rule in rules)):
            left_out.append(name)
    return left_out


@pytest.mark.parametrize("node", ENCLAVES)
def test_a_running_node_is_allowed_all_that_it_does(node: str, peer, processes) -> None:
    processes.start(node)
    if node != "trajectory_visualizer":
        peer.wait_until_active(node)
    peer.wait(lambda: "/rosout" in names_of(peer, "publisher", node), f"publishers of {node}")
    peer.wait(lambda: f"/{node}/get_parameters" in names_of(peer, "service", node), f"services of {node}")
    for direction in VERBS:
        left_out = missing(node, direction, names_of(peer, direction, node))
        assert not left_out, f"config/sros2/policy.xml lacks for {node}, {direction}: {left_out}"


def names_of(peer, direction: str, node: str) -> list[str]:
    """Full names of what a node publishes, listens to, offers or calls; none while it is not in the graph."""
    try:
        return [name for name, _ in getattr(peer.node, f"get_{direction}_names_and_types_by_node")(node, "/")]
    except NodeNameNonExistentError:
        return []
