# SPDX-License-Identifier: Apache-2.0
"""The parts of the suite's command interfaces are where their classes say, which a text does not keep by itself."""

import importlib

import pytest

from embodiment_descriptions.commands import KINDS, CommandInterface
from qwen_vla_control.node_interface import type_name

PARTS = [(kind, part) for kind in KINDS for part in ("ros_side", "recorded", "simulated") if getattr(kind, part)]


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_a_part_is_where_its_kind_says(kind: type[CommandInterface], part: str) -> None:
    module, _, attribute = getattr(kind, part).partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("kind", KINDS)
def test_message_types_have_the_names_that_the_graph_uses(kind: type[CommandInterface]) -> None:
    """Those of packages that are not installed everywhere are left out."""
    for name in kind.message_types:
        package, group, message = name.split("/")
        if package in ("trajectory_msgs", "std_msgs", "geometry_msgs"):
            assert type_name(getattr(importlib.import_module(f"{package}.{group}"), message)) == name
