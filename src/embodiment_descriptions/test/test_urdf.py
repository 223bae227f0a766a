# SPDX-License-Identifier: Apache-2.0
"""A URDF is read in time proportional to its size, whatever its shape."""

import time
from collections.abc import Callable

import pytest

from embodiment_descriptions import EmbodimentError
from embodiment_descriptions.guess.finger_joints import finger_joints
from embodiment_descriptions.urdf import Mimic, parse_urdf

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


@pytest.mark.parametrize("order", [1, -1])
def test_two_thousand_joints_that_mimic_one_another_take_less_than_half_a_second(robot, joint, order: int) -> None:
    joints = [joint("j1", "l0", "l1")]
    joints += [joint(f"j{i}", f"l{i - 1}", f"l{i}", mimic=f"j{i - 1}") for i in range(2, LINKS)]
    urdf = robot("large", [f"l{i}" for i in range(LINKS)], joints[::order])
    began = time.process_time()
    tree = parse_urdf(urdf)
    followed = {tree.followed(name) for name in tree.joints}
    fingers = finger_joints(tree)
    assert time.process_time() - began < 0.5
    assert followed == {Mimic("j1", 1.0, 0.0)} and not fingers


def test_a_link_is_carried_by_the_joints_above_it_and_no_others(robot, joint) -> None:
    tree = parse_urdf(large(robot, joint, SHAPES["comb"]))
    for link in tree.links[:: LINKS // 20]:
        above = {joint.name for joint in tree.chain(tree.root, link)}
        assert {name for name in tree.joints if tree.carries(name, link)} == above


def test_a_loop_behind_a_long_chain_is_found_and_named(robot, joint) -> None:
    urdf = large(robot, joint, lambda i: i - 1 if i != LINKS - 3 else LINKS - 1)
    loop = " <- ".join(f"l{LINKS - back}" for back in (3, 1, 2, 3))
    with pytest.raises(EmbodimentError, match=f"a loop: {loop};"):
        parse_urdf(urdf)


def test_a_xacro_with_the_name_of_a_urdf_is_told_from_a_urdf_without_links() -> None:
    xacro = '<robot name="r" xmlns:xacro="http://ros.org/wiki/xacro"><xacro:include filename="arm.xacro"/></robot>'
    with pytest.raises(EmbodimentError, match=r"this is a xacro, not yet expanded; name it NAME\.urdf\.xacro"):
        parse_urdf(xacro)
