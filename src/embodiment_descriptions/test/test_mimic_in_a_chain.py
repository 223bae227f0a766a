# SPDX-License-Identifier: Apache-2.0
"""Joints inside an arm's chain that mimic others of it: parallel linkages, telescopes."""

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, EmbodimentError, Kinematics, KinematicsError

FACTOR, OFFSET = -0.5, 0.2
WIDE = {"lower": -2, "upper": 2, "velocity": 1, "effort": 9}
YAML = """
name: linkage
robot_tag: Linkage
control_mode: eef_delta
rate_hz: 5
chunk_size: 16
arms: [{name: arm, joints: [j1, j2, j3], base_link: base, tip_link: d}]
cameras: [{tag: ego, topic: image, info_topic: info}]
commands: [{backend: joint_trajectory, topic: arm_controller/joint_trajectory, joints: [j1, j2, j3]}]
"""


def linkage(robot, joint, limit: dict = WIDE, followed: str = "j2") -> str:
    """A chain of j1, j2, the linkage that follows j2, and j3; links of 10 cm."""
    names = (("j1", "base", "a"), ("j2", "a", "b"), ("linkage", "b", "c"), ("j3", "c", "d"))
    joints = [joint(name, parent, child, "revolute", WIDE) for name, parent, child in names if name != "linkage"]
    mimic = joint("linkage", "b", "c", "revolute", limit, mimic=followed)
    joints.insert(2, mimic.replace("<mimic ", f'<mimic multiplier="{FACTOR}" offset="{OFFSET}" '))
    return robot("linkage", ["base", "a", "b", "c", "d"], joints)


@pytest.fixture
def arm(robot, joint) -> Embodiment:
    return Embodiment.from_urdf(linkage(robot, joint), YAML)


def test_the_tip_is_where_the_linkage_brings_it(arm, robot, joint) -> None:
    """As in the same robot whose linkage is commanded, at the position that it follows."""
    free = linkage(robot, joint).split("<mimic")[0] + linkage(robot, joint).split("<mimic")[1].split("/>", 1)[1]
    whole = Embodiment.from_urdf(free, YAML.replace("j2, j3", "j2, linkage, j3"))
    q = np.array([0.3, -0.7, 0.4])
    expected = Kinematics(whole).forward([q[0], q[1], FACTOR * q[1] + OFFSET, q[2]])
    np.testing.assert_allclose(Kinematics(arm).forward(q), expected, atol=1e-12)


def test_the_inverse_finds_positions_of_the_commanded_joints(arm) -> None:
    kinematics = Kinematics(arm)
    for seed in range(20):
        q = np.random.default_rng(seed).uniform(kinematics.lower, kinematics.upper) * 0.9
        target = kinematics.forward(q)
        found = kinematics.inverse(target, q + 0.1)
        assert found.shape == (3,)
        np.testing.assert_allclose(kinematics.forward(found), target, atol=2e-4)


def test_its_limits_are_those_of_the_joint_that_it_follows(robot, joint) -> None:
    """It may stand at −0.3 … 0.5 rad and turn at 0.2 rad/s: −0.6 … 1 rad and 0.4 rad/s of j2."""
    narrow = {"lower": -0.3, "upper": 0.5, "velocity": 0.2, "effort": 9}
    limit = Embodiment.from_urdf(linkage(robot, joint, narrow), YAML).limits["j2"]
    assert (limit.lower, limit.upper, limit.velocity) == pytest.approx((-0.6, 1.0, 0.4))
    never = {"lower": 5, "upper": 6, "velocity": 1, "effort": 9}
    with pytest.raises(EmbodimentError, match="'linkage' mimics 'j2', but their limits exclude each other"):
        Embodiment.from_urdf(linkage(robot, joint, never), YAML)


def test_limits_that_the_urdf_lacks_come_from_the_yaml(robot, joint) -> None:
    """As in the URDFs of ABB's IRB 2400 and 5400: no speeds, no efforts."""
    bare = linkage(robot, joint).replace('velocity="1"', 'velocity="0"').replace('effort="9"', 'effort="0"')
    with pytest.raises(EmbodimentError, match="'j1' has no usable velocity limit"):
        Embodiment.from_urdf(bare, YAML)
    stated = "joint_limits: {j1: {velocity: 2.6}, j2: {velocity: 2.6}, j3: {velocity: 2.6}}\n"
    assert Embodiment.from_urdf(bare, YAML + stated).limits["j2"].velocity == 2.6


def test_a_joint_that_follows_one_outside_the_chain_is_refused(robot, joint) -> None:
    urdf = linkage(robot, joint, followed="side")
    side = joint("side", "a", "e", "revolute", WIDE)
    urdf = urdf.replace("</robot>", f'<link name="e"/>{side}</robot>')
    with pytest.raises(EmbodimentError, match="'linkage' cannot be commanded: it mimics 'side'"):
        Embodiment.from_urdf(urdf, YAML)


def test_the_guess_goes_on_behind_it(robot, joint) -> None:
    assert Embodiment.from_urdf(linkage(robot, joint)).arms[0].joints == ("j1", "j2", "j3")


def test_what_is_out_of_reach_is_said_as_ever(arm) -> None:
    far = np.eye(4)
    far[0, 3] = 9.0
    with pytest.raises(KinematicsError, match="cannot reach"):
        Kinematics(arm).inverse(far)
