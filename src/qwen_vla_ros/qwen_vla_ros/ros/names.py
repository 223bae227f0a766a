# SPDX-License-Identifier: Apache-2.0
"""Names in the ROS graph. Free of ROS."""

from __future__ import annotations


def resolve(namespace: str, name: str) -> str:
    """Return the full name of a topic, an action or a node: relative names are in the robot's namespace."""
    if name.startswith("/"):
        return name
    return "/" + "/".join(part for part in (namespace.strip("/"), name) if part)
