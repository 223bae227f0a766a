# SPDX-License-Identifier: Apache-2.0
"""Optional message packages: imported where they are used, named when they are missing."""

from __future__ import annotations

import importlib
import os
from typing import Any

DISTRIBUTION = "jazzy"  # without a ROS environment


class MissingInterface(ValueError):
    """The robot's YAML needs a message package that is not installed; the text states what to install."""


def interface(name: str) -> Any:
    """Import a message, service or action type.

    Args:
        name: in ROS notation, for example "nav2_msgs/action/FollowPath".

    Raises:
        MissingInterface: the package is not installed, or too old to have the type.
    """
    package, kind, typename = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), typename)
    except (ImportError, AttributeError) as error:
        apt = f"ros-{os.environ.get('ROS_DISTRO', DISTRIBUTION)}-{package.replace('_', '-')}"
        raise MissingInterface(f"{name} is not installed; install it with: apt install {apt}") from error
