# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics: exact, within the limits, on one branch, and explicit about what it cannot reach."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import Embodiment, Kinematics, KinematicsError, load_robot, pose_from_delta

WIDOWX = load_robot("widowx")
KINEMATICS = Kinematics(WIDOWX)
DOWN = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0.0]])  # the tip's x points to the table, the fingers open along y


def pose(x: float, y: float, z: float, rotation: np.ndarray = DOWN) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, (x, y, z)
    return matrix


def misfit(q: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Return position error [m] and rotation error [rad], computed apart from the solver."""
    actual = KINEMATICS.forward(q)
    cosine = (np.trace(actual[:3, :3].T @ target[:3, :3]) - 1) / 2
    return float(np.linalg.norm(actual[:3, 3] - target[:3, 3])), float(np.arccos(np.clip(cosine, -1, 1)))


def within_limits(path: np.ndarray) -> bool:
    return bool(((path >= KINEMATICS.lower) & (path <= KINEMATICS.upper)).all())


def test_home_points_down_above_the_table(kinematics: Kinematics) -> None:
    np.testing.assert_allclose(kinematics.forward(kinematics.home), pose(0.30, 0.0, 0.20), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_inverse_of_forward(seed: int) -> None:
    """Started up to 0.4 rad per joint away, the inverse finds the pose again."""
    random = np.random.default_rng(seed)
    q = random.uniform(KINEMATICS.lower, KINEMATICS.upper)
    target = KINEMATICS.forward(q)
    start = np.clip(q + random.uniform(-0.4, 0.4, 6), KINEMATICS.lower, KINEMATICS.upper)
    found = KINEMATICS.inverse(target, start)
    position, rotation = misfit(found, target)
    assert position < 1e-4 and rotation < 1e-3
    assert within_limits(found)


@pytest.mark.parametrize("x", [0.16, 0.25, 0.38])
@pytest.mark.parametrize("y", [-0.18, 0.0, 0.18])
@pytest.mark.parametrize("yaw", [-1.3, 0.0, 1.3])
def test_table_is_reached_from_home(x: float, y: float, yaw: float, kinematics: Kinematics) -> None:
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    for z in (0.02, 0.20):
        target = pose(x, y, z, about_z @ DOWN)
        position, rotation = misfit(kinematics.inverse(target, kinematics.home), target)
        assert position < 1e-4 and rotation < 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_path_is_exact_continuous_and_within_limits(seed: int) -> None:
    """A random-walk chunk of 16 steps from above the table: below 1 mm at every step and no jump between steps."""
    random = np.random.default_rng(seed)
    turn = random.uniform(-0.8, 0.8)
    start = np.array([random.uniform(-0.5, 0.5), 0.0, 0.0, 0.0, KINEMATICS.home[4] - 0.3, turn])
    speed = np.array([0.01, 0.01, 0.01, 0.04, 0.04, 0.04])
    deltas = np.cumsum(random.uniform(-speed, speed, (16, 6)), axis=0)
    targets = pose_from_delta(KINEMATICS.forward(start), deltas)
    path = KINEMATICS.follow(targets, start)
    assert path.shape == (16, 6)
    assert within_limits(path)
    assert max(misfit(q, target)[0] for q, target in zip(path, targets, strict=True)) < 1e-3
    assert np.abs(np.diff(np.vstack([start, path]), axis=0)).max() < 0.5
    assert KINEMATICS.speed_fractions(path, start, WIDOWX.period).max() < 1.0


def test_path_returns_to_where_it_came_from(kinematics: Kinematics) -> None:
    """Around a square and back home, the joints end where they began: the branch was kept."""
    corners = [(0.30, 0.10), (0.22, 0.10), (0.22, -0.10), (0.30, -0.10), (0.30, 0.0)]
    here, targets = (0.30, 0.0), []
    for corner in corners:
        for share in np.linspace(0, 1, 9)[1:]:
            targets.append(pose(*(np.array(here) + share * (np.array(corner) - here)), 0.15))
        here = corner
    start = kinematics.inverse(pose(0.30, 0.0, 0.15), kinematics.home)
    path = kinematics.follow(targets, start)
    np.testing.assert_allclose(path[-1], start, atol=1e-3)


def test_following_the_current_pose_moves_nothing(kinematics: Kinematics) -> None:
    here = kinematics.forward(kinematics.home)
    np.testing.assert_array_equal(kinematics.follow([here] * 3, kinematics.home), [kinematics.home] * 3)


def test_out_of_reach_names_step_and_error(kinematics: Kinematics) -> None:
    targets = [pose(0.30 + 0.04 * i, 0.0, 0.20) for i in range(8)]
    with pytest.raises(
        KinematicsError, match="cannot reach .* within the joint limits, errors of .* mm and .* remain"
    ) as raised:
        kinematics.follow(targets, kinematics.home)
    reach = 0.2549 + 0.25  # shoulder to elbow and elbow to wrist_angle [m]
    expected = next(i for i, t in enumerate(targets) if np.hypot(t[0, 3], 0.20 + 0.158575 - 0.11065) > reach)
    assert raised.value.step == expected
    assert 0.0 < raised.value.error < 0.04
    copy = pickle.loads(pickle.dumps(raised.value))  # it comes out of worker processes
    assert (str(copy), copy.step, copy.error) == (str(raised.value), raised.value.step, raised.value.error)
    with pytest.raises(KinematicsError, match="step 0"):
        kinematics.inverse(pose(1.0, 0.0, 0.2))


def test_below_a_joint_limit_is_out_of_reach(kinematics: Kinematics) -> None:
    """The tip turned to point up under the base needs joints beyond their limits."""
    up = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0.0]])
    with pytest.raises(KinematicsError) as raised:
        kinematics.inverse(pose(0.12, 0.0, -0.30, up))
    assert raised.value.error > 1e-3 or raised.value.rotation_error > 1e-3


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_a_joint_beyond_a_limit_may_stay_there_or_come_back_and_never_goes_farther(
    joint: int, side: str, kinematics: Kinematics
) -> None:
    start, outward = kinematics.home.copy(), {"lower": -1.0, "upper": 1.0}[side]
    start[joint] = getattr(kinematics, side)[joint] + 0.02 * outward
    still = kinematics.follow([kinematics.forward(start)] * 3, start)
    np.testing.assert_allclose(still, [start] * 3, atol=1e-4)
    ahead = start - 0.01 * outward * np.arange(1, 6)[:, None] * np.eye(6)[joint]
    back = kinematics.follow([kinematics.forward(q) for q in ahead], start)
    np.testing.assert_allclose(back, ahead, atol=1e-3)
    farther = kinematics.forward(start + 0.05 * outward * np.eye(6)[joint])
    try:
        found = kinematics.follow([farther], start)
    except KinematicsError:
        return
    assert (found[0, joint] - start[joint]) * outward <= 1e-9


def test_a_jump_to_another_pose_is_not_a_path(kinematics: Kinematics) -> None:
    with pytest.raises(KinematicsError, match="leaves its IK branch there, plan smaller steps"):
        kinematics.follow([kinematics.forward([1.5, *kinematics.home[1:]])], kinematics.home)


def test_too_fast_is_reported(kinematics: Kinematics) -> None:
    turned = kinematics.home + [0.7, 0, 0, 0, 0, 0]
    path = kinematics.follow([kinematics.forward(turned)], kinematics.home)
    fractions = kinematics.speed_fractions(path, kinematics.home, 0.2)
    assert fractions.shape == (1, 6)
    assert fractions[0, 0] == pytest.approx(0.7 / (0.2 * np.pi), rel=1e-3) and fractions[0, 0] > 1


def test_wrong_input_is_refused(kinematics: Kinematics, widowx: Embodiment) -> None:
    with pytest.raises(ValueError, match="6 finite positions for waist"):
        kinematics.forward([0.0] * 7)
    with pytest.raises(ValueError, match="finite positions"):
        kinematics.forward([np.nan] * 6)
    with pytest.raises(ValueError, match="finite 4x4 pose"):
        kinematics.follow([np.full((4, 4), np.nan)], kinematics.home)
    with pytest.raises(ValueError, match="rotation matrix"):
        kinematics.inverse(2 * np.eye(4))
    with pytest.raises(ValueError, match="there is no arm 1"):
        Kinematics(widowx, arm=1)


def test_second_arm_is_relative_to_its_own_base(twin) -> None:
    e = Embodiment.from_urdf(*twin(waist=True))
    left, right = Kinematics(e, 0), Kinematics(e, 1)
    assert right.joint_names == ("right_j1", "right_j2", "right_j3")
    q = [0.3, -0.4, 0.5]
    np.testing.assert_allclose(left.forward(q), right.forward(q), atol=1e-12)
    np.testing.assert_allclose(left.forward([0, 0, 0])[:3, 3], [0, 0, 0.4], atol=1e-12)


def test_continuous_joints_have_one_position_each(small: tuple[str, dict]) -> None:
    urdf, config = small
    for name in ("j1", "j3"):
        urdf = urdf.replace(f'name="{name}" type="revolute"', f'name="{name}" type="continuous"')
    kin = Kinematics(Embodiment.from_urdf(urdf, config))
    q = np.array([4.0, 0.5, -0.7])
    np.testing.assert_allclose(kin.forward(q), kin.forward(q - [2 * np.pi, 0, 0]), atol=1e-9)
    np.testing.assert_allclose(kin.follow([kin.forward(q + 0.05)], q)[0], q + 0.05, atol=1e-3)
