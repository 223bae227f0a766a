# SPDX-License-Identifier: Apache-2.0
"""The diff-drive behavior: limits, timeout, odometry from the wheels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import load_robot, resource_path
from qwen_vla_sim.controllers.diff_drive import DiffDrive, DiffDriveParameters, SpeedLimits, VelocityRejected

S = 1_000_000_000
DT = 0.01
PARAMETERS = DiffDriveParameters.from_controllers_file(resource_path("config/controllers/mobile_base.yaml"))


@pytest.fixture
def drive():
    return DiffDrive(PARAMETERS)


def run(drive, seconds, start_ns=0):
    """Speeds at every cycle; the wheels rotate as commanded."""
    speeds = []
    for i in range(round(seconds / DT)):
        speeds.append(drive.update(start_ns + round(i * DT * S), DT))
        drive.measure(*(np.array(drive.wheel_speeds()) * DT), DT)
    return np.array(speeds)


def test_the_parameters_are_those_of_the_robot():
    embodiment = load_robot("mobile_base")
    assert PARAMETERS.base_frame_id == embodiment.base.link
    assert embodiment.safety.base.max_linear <= PARAMETERS.linear.highest
    assert embodiment.safety.base.max_angular <= PARAMETERS.angular.highest
    assert PARAMETERS.linear.deceleration > 0 and PARAMETERS.wheel_separation > 0


def test_a_file_without_such_a_controller_is_refused():
    with pytest.raises(ValueError, match=r"widowx.yaml configures 0 controllers"):
        DiffDriveParameters.from_controllers_file(resource_path("config/controllers/widowx.yaml"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-9, 9)), min_size=1, max_size=20))
def test_no_command_makes_it_exceed_speed_or_acceleration(commands):
    drive, before = DiffDrive(PARAMETERS), (0.0, 0.0)
    for i, (linear, angular) in enumerate(commands):
        now = round(i * DT * S)
        drive.command(linear, angular, 0, now)
        after = drive.update(now, DT)
        for limits, old, new in zip((PARAMETERS.linear, PARAMETERS.angular), before, after, strict=True):
            assert limits.lowest - 1e-9 <= new <= limits.highest + 1e-9
            assert abs(new - old) <= max(limits.acceleration, limits.deceleration) * DT + 1e-9
        before = after


def test_a_command_is_valid_until_the_timeout_and_then_the_base_is_brought_to_rest(drive):
    drive.command(0.2, 0.0, 0, 0)
    speeds = run(drive, 1.5)[:, 0]
    times = np.arange(len(speeds)) * DT
    np.testing.assert_allclose(speeds[(times > 0.25) & (times <= 0.5)], 0.2)
    ramp = speeds[(times > 0.5) & (times < 0.7)]
    assert (np.diff(ramp) < 0).all()  # it decelerates instead of stopping at once
    assert speeds[-1] == 0.0


def test_a_late_command_is_ignored_and_a_zero_stamp_means_now(drive):
    drive.command(0.1, 0.0, 9 * S, 9 * S + S // 4)
    with pytest.raises(VelocityRejected, match=r"0.600 s old \(limit 0.5 s\)"):
        drive.command(0.2, 0.0, 9 * S, 9 * S + 6 * S // 10)
    with pytest.raises(VelocityRejected, match="nan"):
        drive.command(math.nan, 0.0, 0, 9 * S)
    drive.update(9 * S, 10.0)
    assert drive.linear == 0.1
    drive.command(0.2, 0.0, 0, 100 * S)
    drive.update(100 * S, 10.0)
    assert drive.linear == 0.2


def test_the_odometry_follows_a_circle(drive):
    drive.linear, drive.angular = 0.2, 0.4  # a circle of 0.5 m radius
    left, right = drive.wheel_speeds()
    for _ in range(round(math.pi / 0.4 / DT)):
        drive.measure(left * DT, right * DT, DT)
    np.testing.assert_allclose(drive.pose, [0.0, 1.0, math.pi], atol=0.005)
    np.testing.assert_allclose(drive.twist, [0.2, 0.4])


def test_a_reset_forgets_command_and_odometry(drive):
    drive.command(0.2, 0.5, 0, 0)
    run(drive, 0.3)
    assert drive.pose[0] > 0
    drive.reset()
    assert drive.update(0, DT) == (0.0, 0.0)
    np.testing.assert_array_equal(drive.pose, 0.0)


def test_missing_limits_do_not_limit():
    limits = SpeedLimits.from_parameters({"max_velocity": math.nan})
    assert limits.limited(123.0, 0.0, DT) == 123.0
