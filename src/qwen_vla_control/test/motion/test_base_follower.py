# SPDX-License-Identifier: Apache-2.0
"""A base follows its path: within its limits, to its end, corrected by where it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions.config import BaseLimits
from qwen_vla_control.motion.base_follower import FORWARD_GAIN, HEADING_GAIN, SIDEWAYS_GAIN, BaseFollower
from qwen_vla_control.motion.base_path import BasePath, integrated, moved, seen_from

LIMITS = BaseLimits(max_linear=0.5, max_angular=1.5, max_linear_acceleration=0.6, max_angular_acceleration=2.0)
WIDE = BaseLimits(max_linear=99, max_angular=99, max_linear_acceleration=9e9, max_angular_acceleration=9e9)
TICK = 20_000_000  # [ns]


def drive(path: BasePath, start: np.ndarray, seconds: float, omnidirectional: bool = False):
    """Let an ideal base follow a path; returns its poses and the commands, one row per tick."""
    follower = BaseFollower(LIMITS, omnidirectional)
    pose, poses, commands = start.copy(), [], []
    for tick in range(int(seconds / 0.02)):
        command = follower.velocity(path, 0, tick * TICK, pose)
        (pose,) = integrated(pose, command[None], 0.02)
        poses.append(pose)
        commands.append(command)
    return np.array(poses), np.array(commands)


def arc(speed: float, turn: float, rows: int = 8) -> np.ndarray:
    velocities = np.tile([speed, 0.0, turn], (rows, 1))
    return np.vstack([np.zeros(3), integrated(np.zeros(3), velocities, 0.5)])


@given(st.floats(-1.0, 1.0), st.floats(-0.4, 0.4), st.floats(-0.2, 0.2), st.floats(-0.4, 0.4), st.booleans())
@settings(max_examples=40)
def test_no_limit_is_ever_exceeded_wherever_the_base_is(turn, speed, aside, skew, omnidirectional):
    path = BasePath.through("odom", arc(speed, turn), 0.5)
    _, commands = drive(path, np.array([0.0, aside, skew]), 5.0, omnidirectional)
    assert (np.hypot(commands[:, 0], commands[:, 1]) <= LIMITS.max_linear + 1e-9).all()
    assert (np.abs(commands[:, 2]) <= LIMITS.max_angular + 1e-9).all()
    changes = np.diff(np.vstack([np.zeros(3), commands]), axis=0)
    steps = np.array([0.1, *np.full(len(changes) - 1, 0.02)])  # the first may take the longest step
    assert (np.hypot(changes[:, 0], changes[:, 1]) <= LIMITS.max_linear_acceleration * steps + 1e-9).all()
    assert (np.abs(changes[:, 2]) <= LIMITS.max_angular_acceleration * steps + 1e-9).all()


@pytest.mark.parametrize(("speed", "turn"), [(0.3, 0.0), (0.3, 0.4), (-0.2, 0.2), (0.0, 0.8)])
def test_it_arrives_where_the_path_ends(speed, turn):
    path = BasePath.through("odom", arc(speed, turn), 0.5)
    poses, commands = drive(path, np.array([0.0, 0.03, -0.05]), 7.0)
    off = seen_from(path.positions[-1], poses[-1])
    assert np.hypot(*off[:2]) < 0.06 and abs(off[2]) < 0.1
    assert np.abs(commands[-1]).max() < 0.02


def test_a_base_with_wheels_is_never_told_to_move_sideways():
    path = BasePath.through("odom", np.array([[0, 0, 0], [0.1, 0.2, 0], [0.2, 0.4, 0]], float), 0.5)
    assert not drive(path, np.zeros(3), 2.0)[1][:, 1].any()
    poses, _ = drive(path, np.zeros(3), 4.0, omnidirectional=True)
    assert np.allclose(poses[-1], [0.2, 0.4, 0.0], atol=0.02)


# The law --------------------------------------------------------------------------------------------------------------


def curve(heading: float = 0.0) -> BasePath:
    """Ahead at 0.4 m/s and turning at 0.5 rad/s, begun at some heading."""
    velocities = np.tile([0.4, 0.0, 0.5], (8, 1))
    start = np.array([1.0, 2.0, heading])
    return BasePath.through("odom", np.vstack([start, integrated(start, velocities, 0.5)]), 0.5)


@pytest.mark.parametrize("heading", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("beside", [(0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.3), (-0.2, -0.1, -2.0)])
@pytest.mark.parametrize("omnidirectional", [True, False])
def test_the_velocity_of_the_path_is_corrected_by_where_it_lies_as_seen_from_the_base(heading, beside, omnidirectional):
    path, start_ns, now_ns = curve(heading), 10**18, 10**18 + 12 * 10**8
    target, speed = path.at(1.2)
    pose = target - [0, 0, beside[2]]
    pose = moved(pose, np.array([-beside[0], -beside[1], 0.0]))
    command = BaseFollower(WIDE, omnidirectional).velocity(path, start_ns, now_ns, pose)
    turned = np.hypot(*speed[:2]) * np.exp(1j * (np.arctan2(speed[1], speed[0]) - pose[2]))  # as the base sees it
    x, y, angle = beside
    if omnidirectional:
        wanted = [turned.real + FORWARD_GAIN * x, turned.imag + FORWARD_GAIN * y, speed[2] + HEADING_GAIN * angle]
    else:
        correction = SIDEWAYS_GAIN * turned.real * y + HEADING_GAIN * np.sin(angle)
        wanted = [turned.real + FORWARD_GAIN * x, 0.0, speed[2] + correction]
    np.testing.assert_allclose(command, wanted, atol=1e-9)


def far(ahead: float = 0.0, turn: float = 0.0) -> BasePath:
    """A path whose end is far away: the base is told to go there as fast as it may."""
    return BasePath.through("odom", np.array([[ahead, 0.0, turn], [ahead, 0.0, turn]]), 0.5)


@pytest.mark.parametrize("way", [{"ahead": 9.0}, {"ahead": -9.0}, {"turn": 3.0}, {"turn": -3.0}])
def test_it_gains_speed_as_fast_as_it_may_for_as_long_as_it_was_since_the_last_command(way):
    follower, column = BaseFollower(LIMITS, True), 2 if "turn" in way else 0
    acceleration, most = (2.0, 1.5) if column else (0.6, 0.5)
    sign, told, now = np.sign(next(iter(way.values()))), 0.0, 10**9
    for milliseconds, counts in (
        (0, 0.1),
        (20, 0.02),
        (50, 0.05),
        (500, 0.1),
        (0, 0.0),
        (-300, 0.0),
        (20, 0.02),
        *[(500, 0.1)] * 9,
    ):
        now += milliseconds * 10**6
        command = follower.velocity(far(**way), 0, now, np.zeros(3))
        told = min(told + acceleration * counts, most)
        assert command[column] == pytest.approx(sign * told) and np.delete(command, column).tolist() == [0.0, 0.0]


def test_after_a_stop_it_begins_at_rest_as_if_it_had_never_moved():
    fresh, follower = (BaseFollower(LIMITS, False) for _ in range(2))
    for tick in range(20):
        follower.velocity(far(ahead=9.0), 0, tick * TICK, np.zeros(3))
    follower.rest()
    now = 20 * TICK + 1
    expected = fresh.velocity(far(ahead=-9.0), 0, now, np.zeros(3))
    np.testing.assert_array_equal(follower.velocity(far(ahead=-9.0), 0, now, np.zeros(3)), expected)
    assert expected[0] == pytest.approx(-0.06)


def test_too_fast_a_curve_stays_the_same_curve():
    pose, path = np.zeros(3), BasePath.through("odom", np.array([[9.0, 3.0, 2.0], [9.0, 3.0, 2.0]]), 0.5)
    quick = LIMITS.model_copy(update={"max_linear_acceleration": 9e9, "max_angular_acceleration": 9e9})
    wide, slow = (BaseFollower(limits, True).velocity(path, 0, 10**9, pose) for limits in (WIDE, quick))
    np.testing.assert_allclose(slow / np.hypot(*slow[:2]), wide / np.hypot(*wide[:2]))
    assert np.hypot(*slow[:2]) == pytest.approx(0.5)


def test_all_parts_of_a_change_take_as_long_as_the_slowest():
    path = BasePath.through("odom", np.array([[9.0, 3.0, 1.0], [9.0, 3.0, 1.0]]), 0.5)
    first = BaseFollower(LIMITS, True).velocity(path, 0, 10**9, np.zeros(3))
    wide = BaseFollower(WIDE, True).velocity(path, 0, 10**9, np.zeros(3))
    np.testing.assert_allclose(first / np.hypot(*first[:2]), wide / np.hypot(*wide[:2]))
    assert np.hypot(*first[:2]) == pytest.approx(0.06) and first[2] <= 0.2
