# SPDX-License-Identifier: Apache-2.0
"""Where all links are: mimic joints follow what they follow in the end, whatever a URDF leaves behind."""

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, Kinematics
from embodiment_descriptions.link_poses import LinkPoses


def slide(name: str, mimic: str = "", kind: str = "prismatic") -> str:
    """A joint from the base along x, and its link."""
    return (
        f'<link name="{name}_link"/><joint name="{name}" type="{kind}"><parent link="base"/><child link="{name}_link"/>'
        f'<axis xyz="1 0 0"/><limit lower="-1" upper="1" velocity="1" effort="1"/>{mimic}</joint>'
    )


def positions(*joints: str, **at: float) -> dict[str, float]:
    """x of the links [m]."""
    poses = LinkPoses(f'<robot name="r"><link name="base"/>{"".join(joints)}</robot>').at(at)
    return {link.removesuffix("_link"): float(pose[0, 3]) for link, pose in poses.items() if link != "base"}


def test_a_mimic_joint_follows_with_factor_and_offset_whatever_is_said_of_it() -> None:
    follower = slide("b", '<mimic joint="a" multiplier="-2" offset="0.5"/>')
    assert positions(follower, slide("a"), a=0.1, b=9.0) == pytest.approx({"b": 0.3, "a": 0.1})


def test_a_mimic_of_a_mimic_follows_the_joint_that_moves() -> None:
    first, second = (
        slide("b", '<mimic joint="a" multiplier="2" offset="1"/>'),
        slide("c", '<mimic joint="b" offset="3"/>'),
    )
    assert positions(second, first, slide("a"), a=0.1) == pytest.approx({"a": 0.1, "b": 1.2, "c": 4.2})


def test_leftovers_of_mimic_move_nothing() -> None:
    """A joint was frozen by making it fixed; its own mimic element stayed, or that of one that followed it."""
    frozen, follower = slide("b", '<mimic joint="a"/>', kind="fixed"), slide("c", '<mimic joint="b" offset="0.2"/>')
    assert positions(slide("a"), frozen, follower, a=0.1) == pytest.approx({"a": 0.1, "b": 0.0, "c": 0.2})


def test_the_tip_is_where_the_arms_kinematics_have_it(widowx: Embodiment) -> None:
    arm, joints = widowx.arms[0], {name: position + 0.05 for name, position in widowx.home.items()}
    poses = LinkPoses(widowx.urdf).at(joints)
    tip = Kinematics(widowx).forward([joints[name] for name in arm.joints])
    np.testing.assert_allclose(poses[arm.base_link] @ tip, poses[arm.tip_link], atol=1e-9)
