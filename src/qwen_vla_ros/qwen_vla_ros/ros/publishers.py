# SPDX-License-Identifier: Apache-2.0
"""Identity (GID) of publishers, as in message info and in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.node import Node

from qwen_vla_control.observation.plausibility import UNKNOWN


def publisher_of(info: Mapping[str, Any]) -> bytes:
    """The publisher of a message, from its message info; UNKNOWN before Kilted (Distribution.tells_publishers)."""
    return bytes((info.get("publisher_gid") or {}).get("data", UNKNOWN))


def publishers_on(node: Node, topic: str) -> dict[bytes, str]:
    """The names of the nodes that currently publish a topic, by publisher."""
    found = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    return {bytes(info.endpoint_gid): f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found}


def count_on(node: Node, topic: str) -> int:
    """How many publishers a topic has; several may be in one node."""
    return node.count_publishers(node.resolve_topic_name(topic))


def publisher_name(node: Node, topic: str, publisher: bytes) -> str:
    """The node of a publisher; where that cannot be told, of all that publish the topic."""
    found = publishers_on(node, topic)
    if publisher in found:
        return found[publisher]
    return "one of " + ", ".join(sorted(set(found.values()))) if found else "a node that is gone"
