# SPDX-License-Identifier: Apache-2.0
"""Tip poses belong to the time of the observation, or there are none."""

from __future__ import annotations

import numpy as np
import pytest

from embodiment_descriptions import Kinematics, load_robot
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.streams import NotObserved
from qwen_vla_control.observation.tip_poses import tip_poses

S = 10**9


def tell(reader: JointReader, seconds: float, joints: dict[str, float]) -> None:
    reader.push(0, round(seconds * S), list(joints), list(joints.values()), [], round(seconds * S))


def test_they_are_those_of_the_nearest_joint_states(widowx):
    reader, kinematics = JointReader(widowx), Kinematics(widowx)
    for tenth in range(10):
        moved = {**widowx.home, "waist": 0.1 * tenth, "right_finger": -0.02}
        tell(reader, 100 + 0.1 * tenth, dict(reversed(moved.items())))
    poses = tip_poses(reader, [kinematics], round(100.43 * S))
    joints = np.array([{**widowx.home, "waist": 0.4}[name] for name in widowx.arms[0].joints])
    assert set(poses) == {""} and np.allclose(poses[""], kinematics.forward(joints))


def test_every_arm_has_one_in_its_own_base_link():
    aloha = load_robot("aloha")
    reader = JointReader(aloha)
    tell(reader, 1.0, {**aloha.home, "follower_right/waist": 0.3})
    poses = tip_poses(reader, [Kinematics(aloha, arm=index) for index in (0, 1)], S)
    turned = np.linalg.norm(poses["right"][:2, 3] - poses["left"][:2, 3])
    reach = np.linalg.norm(poses["left"][:2, 3])
    assert turned == pytest.approx(2 * reach * np.sin(0.15), rel=1e-6)


def test_without_joint_states_near_the_observation_there_are_none(widowx):
    reader, kinematics = JointReader(widowx), [Kinematics(widowx)]
    with pytest.raises(NotObserved, match="joint states: no position of waist yet on joint_states"):
        tip_poses(reader, kinematics, S)
    tell(reader, 100.0, dict(widowx.home))
    with pytest.raises(NotObserved, match=r"0\.50 s away from it \(limit 0\.10 s\)"):
        tip_poses(reader, kinematics, round(100.5 * S))


def test_a_joint_that_is_missing_is_named(widowx):
    reader = JointReader(widowx)
    tell(reader, 100.0, {"waist": 0.0, "shoulder": 0.0})
    with pytest.raises(NotObserved, match="no position of elbow yet"):
        tip_poses(reader, [Kinematics(widowx)], 100 * S)
