"""Tip poses belong to the time of the observation, or there are none."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState

from embodiment_descriptions import Kinematics
from qwen_vla_control.observation.tip_poses import TipPoses


def states(joints: dict[str, float], seconds: float) -> JointState:
    message = JointState(name=list(joints), position=list(joints.values()))
    message.header.stamp = Time(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))
    return message


def test_they_are_those_of_the_nearest_joint_states(widowx):
    tips, kinematics = TipPoses(widowx), Kinematics(widowx)
    assert tips.topics == ("joint_states",)
    for tenth in range(10):
        moved = {**widowx.home, "waist": 0.1 * tenth, "right_finger": -0.02}
        tips.push(0, states(dict(reversed(moved.items())), 100 + 0.1 * tenth), tenth)
    poses = tips.at(round(100.43 * 1e9))
    joints = np.array([{**widowx.home, "waist": 0.4}[name] for name in widowx.arms[0].joints])
    assert set(poses) == {""} and np.allclose(poses[""], kinematics.forward(joints))


def test_without_joint_states_near_the_observation_there_are_none(widowx):
    tips = TipPoses(widowx)
    with pytest.raises(ValueError, match="joint_states.*none has come"):
        tips.at(10**9)
    tips.push(0, states(dict(widowx.home), 100.0), 0)
    with pytest.raises(ValueError, match=r"0\.50 s away \(limit 0\.1 s\)"):
        tips.at(round(100.5 * 1e9))


def test_a_joint_that_is_missing_is_named(widowx):
    tips = TipPoses(widowx)
    tips.push(0, states({"waist": 0.0, "shoulder": 0.0}, 100.0), 0)
    with pytest.raises(ValueError, match="lack elbow"):
        tips.at(100 * 10**9)
