# SPDX-License-Identifier: Apache-2.0
"""What config/sros2/policy.xml allows, as interpreted by the middleware: `*` matches any text, including slashes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

from rclpy.node import Node

POLICY = Path(__file__).resolve().parents[3] / "config" / "sros2" / "policy.xml"


def rules(enclave: str, kind: str, verb: str) -> set[str]:
    """Expressions allowed for a whole enclave: kind topic, service or action."""
    root = ElementTree.parse(POLICY).getroot()
    (found,) = [e for e in root.iter("enclave") if e.get("path") == f"/qwen_vla/{enclave}"]
    lists = [group for group in found.iter(f"{kind}s") if group.get(verb) == "ALLOW"]
    return {expression.text for group in lists for expression in group}


def refused(enclave: str, kind: str, verb: str, names: set[str]) -> set[str]:
    """Those of the names that an enclave may not use in that way."""
    allowed = rules(enclave, kind, verb)
    return {name for name in names if not any(fnmatchcase(name.lstrip("/"), rule) for rule in allowed)}


def endpoints(watcher: Node, name: str, namespace: str) -> dict[tuple[str, str], set[str]]:
    """What a node offers and uses, in the policy file's terms: (kind, verb) -> names."""
    found = {
        ("topic", "publish"): watcher.get_publisher_names_and_types_by_node(name, namespace),
        ("topic", "subscribe"): watcher.get_subscriber_names_and_types_by_node(name, namespace),
        ("service", "reply"): watcher.get_service_names_and_types_by_node(name, namespace),
        ("service", "request"): watcher.get_client_names_and_types_by_node(name, namespace),
    }
    used = {key: {topic for topic, _ in pairs if "/_action/" not in topic} for key, pairs in found.items()}
    for key, verb in ((("service", "reply"), "execute"), (("service", "request"), "call")):
        used["action", verb] = {topic.split("/_action/")[0] for topic, _ in found[key] if "/_action/" in topic}
    return used
