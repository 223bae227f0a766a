# SPDX-License-Identifier: Apache-2.0
"""A URDF is read in time proportional to its size, whatever its shape."""

import time
from collections.abc import Callable

import pytest

from embodiment_descriptions import EmbodimentError
from embodiment_descriptions.urdf import parse_urdf

LINKS = 2000
SHAPES: dict[str, Callable[[int], int]] = {
    "chain": lambda i: i - 1,
    "star": lambda i: 0,
    "comb": lambda i: i - 1 if i % 2 else max(i - 2, 0),
}


def large(robot, joint, parent_of: Callable[[int], int]) -> str:
    joints = [joint(f"j{i}", f"l{parent_of(i)}", f"l{i}") for i in range(1, LINKS)]
    return robot("large", [f"l{i}" for i in range(LINKS)], joints)


@pytest.mark.parametrize("shape", SHAPES)
def test_two_thousand_links_take_less_than_half_a_second(robot, joint, shape: str) -> None:
    urdf = large(robot, joint, SHAPES[shape])
    began = time.process_time()
    tree = parse_urdf(urdf)
    found = [tree.below(link) for link in tree.links]
    assert time.process_time() - began < 0.5
    assert tree.root == "l0" and sum(map(len, found)) == len(tree.joints) == LINKS - 1
    assert all(joint.parent == link for link, below in zip(tree.links, found, strict=True) for joint in below)


def test_a_loop_behind_a_long_chain_is_found_and_named(robot, joint) -> None:
    urdf = large(robot, joint, lambda i: i - 1 if i != LINKS - 3 else LINKS - 1)
    loop = " <- ".join(f"l{LINKS - back}" for back in (3, 1, 2, 3))
    with pytest.raises(EmbodimentError, match=f"a loop: {loop};"):
        parse_urdf(urdf)


def test_a_xacro_with_the_name_of_a_urdf_is_told_from_a_urdf_without_links() -> None:
    xacro = '<robot name="r" xmlns:xacro="http://ros.org/wiki/xacro"><xacro:include filename="arm.xacro"/></robot>'
    with pytest.raises(EmbodimentError, match=r"this is a xacro, not yet expanded; name it NAME\.urdf\.xacro"):
        parse_urdf(xacro)
