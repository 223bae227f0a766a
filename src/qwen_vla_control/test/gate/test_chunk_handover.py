# SPDX-License-Identifier: Apache-2.0
"""A chunk that takes over is put on the time axis, blended, and passes the gate whole or leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qwen_vla_control.gate.chunk_handover import ChunkHandover
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.blending import Blender, Blending
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_control.stamps import NANOSECONDS

START = 10**18
PERIOD = 0.2
OVERLAPPING = [mode for mode in Blending if mode is not Blending.SYNCHRONOUS]


class Arm:
    """An arm that follows its commands exactly; deciding takes no time, or `thinking_ns`."""

    def __init__(self, gate, home, mode):
        is_gripper = np.array([name == "left_finger" for name in gate.joints])
        self.hand_over = ChunkHandover(gate, Blender(mode, ~is_gripper), lambda: self.now_ns + self.thinking_ns)
        self.now_ns, self.home, self.motion, self.thinking_ns = START, home, None, 0

    def at(self, seconds: float) -> int:
        self.now_ns = START + round(seconds * NANOSECONDS)
        return self.now_ns

    def where(self, now_ns: int) -> np.ndarray:
        return self.home if self.motion is None else self.motion.commanded(now_ns)[0]

    def state(self, chunk, measured=None):
        here = self.where(self.now_ns) if measured is None else measured
        return RobotState(self.now_ns, self.where(chunk.stamp_ns), here, self.motion)

    def decide(self, chunk):
        return self.hand_over.decide(chunk, self.state(chunk)).path

    def rest(self, seconds: float):
        """The arm comes to rest where it is commanded to be."""
        self.hand_over.rests(self.at(seconds))
        self.home, self.motion = self.where(self.now_ns), None

    def execute(self, chunk):
        path = self.decide(chunk)
        self.hand_over.began(path, self.now_ns)
        self.motion = Motion(path, self.now_ns, chunk)
        return path


@pytest.fixture(params=OVERLAPPING)
def arm(request, gate, home):
    return Arm(gate, home, request.param)


def onward(chunk, number: int, stamp_ns: int, first: float = 0.0):
    """5 mm per step along the tool axis from where the arm was seen, the first row `first` [m] farther."""
    rows = np.array(chunk.rows)
    rows[:, 0] = first + 0.005 * np.arange(1, 17)
    return replace(chunk, chunk_id=number, stamp_ns=stamp_ns, data=rows.reshape(-1))


def test_the_first_chunk_is_executed_from_its_first_row_however_late_it_comes(arm, good_chunk, gate):
    chunk = replace(good_chunk, stamp_ns=arm.at(0.0))
    arm.at(0.9)  # a cold model
    path = arm.execute(chunk)
    assert path.steps == 16 and np.allclose(path.positions[0], arm.home)
    tips = gate.poses(path.positions)[0, :, :3, 3]
    assert np.allclose(np.linalg.norm(np.diff(tips, axis=0), axis=1), 0.005, atol=1e-4)


def test_it_goes_on_at_full_speed_from_where_it_is(arm, good_chunk, gate):
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    second = onward(good_chunk, 2, arm.at(1.5))
    arm.at(1.73)
    path = arm.execute(second)
    assert path.duration == pytest.approx(16 * PERIOD - 0.23, abs=PERIOD)
    tips = gate.poses(path.positions)[0, :, :3, 3]
    steps = np.linalg.norm(np.diff(tips, axis=0), axis=1)
    assert np.allclose(steps[:6], 0.005, atol=3e-4), "neither a pause nor a jump"


def test_the_measured_lag_of_the_arm_does_not_pull_it_back(arm, good_chunk, gate):
    """Every chunk is relative to the measured pose, which lies behind the commanded one."""
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    second = onward(good_chunk, 2, arm.at(1.5), first=-0.004)
    arm.at(1.6)
    tips = gate.poses(arm.execute(second).positions)[0, :, :3, 3]
    assert (np.diff(tips[:12, 2]) < 0.0).all()  # the tool axis points down


@pytest.mark.parametrize(("row", "reason"), [(15, Reason.OUT_OF_WORKSPACE), (5, Reason.STEP_JUMP)])
def test_what_the_gate_refuses_leaves_the_running_motion_and_no_trace(arm, good_chunk, row, reason):
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    good = onward(good_chunk, 3, arm.at(1.5))
    bad = onward(good_chunk, 2, arm.at(1.5))
    rows = np.array(bad.rows)
    rows[row:, 0 if reason is Reason.STEP_JUMP else 2] += 0.25
    arm.at(1.6)
    expected = arm.decide(good)
    with pytest.raises(Refused) as refused:
        arm.decide(replace(bad, data=rows.reshape(-1)))
    assert reason in refused.value.reasons or Reason.UNREACHABLE in refused.value.reasons
    assert np.allclose(arm.decide(good).positions, expected.positions, atol=1e-9)


def test_a_robot_that_is_far_from_its_commands_is_refused(arm, good_chunk):
    """Somebody holds the arm."""
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    chunk = onward(good_chunk, 2, arm.at(1.5))
    arm.at(1.6)
    measured = arm.where(arm.now_ns) - 0.5
    with pytest.raises(Refused) as refused:
        arm.hand_over.decide(chunk, RobotState(arm.now_ns, arm.where(chunk.stamp_ns), measured, arm.motion))
    assert refused.value.reasons == (Reason.START_JUMP,)


def test_a_chunk_whose_rows_are_all_past_is_refused(arm, good_chunk):
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    arm.execute(onward(good_chunk, 2, arm.at(1.5)))
    late = onward(good_chunk, 3, arm.at(1.5))
    arm.execute(onward(good_chunk, 4, arm.at(3.0)))
    arm.at(4.8)
    with pytest.raises(Refused) as refused:
        arm.decide(late)
    assert refused.value.reasons == (Reason.STALE,)


def test_after_a_stop_nothing_of_a_chunk_is_skipped(arm, good_chunk):
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    arm.hand_over.rests(arm.at(0.5))
    arm.home, arm.motion = arm.where(arm.now_ns), None
    chunk = onward(good_chunk, 2, arm.at(0.6))
    arm.at(1.1)
    assert arm.execute(chunk).steps == 16


# When it starts, and how much of it is executed -----------------------------------------------------------------------


def test_a_path_starts_when_it_was_decided_about_which_took_its_time(arm, good_chunk):
    first = replace(good_chunk, stamp_ns=arm.at(0.0))
    arm.thinking_ns = 30_000_000
    timed = arm.hand_over.decide(first, arm.state(first))
    assert (timed.start_ns, timed.execution_horizon, timed.path.steps) == (START + 30_000_000, 8, 16)
    arm.execute(first)
    second = onward(good_chunk, 2, arm.at(1.5))
    arm.at(1.6)
    timed = arm.hand_over.decide(second, arm.state(second))
    assert (timed.start_ns, timed.execution_horizon) == (arm.now_ns + 30_000_000, 8)
    where, speed = arm.motion.commanded(timed.start_ns)
    np.testing.assert_allclose(timed.path.positions[0], where)
    np.testing.assert_allclose(timed.path.velocities[0], speed)


@pytest.mark.parametrize(("late", "behind"), [(0.099, 0), (0.101, 1)])
def test_of_what_the_robot_has_moved_since_the_observation_less_than_half_a_step_counts_for_nothing(
    arm, good_chunk, gate, late, behind
):
    """It has come to rest meanwhile, and is not where it was observed: the path begins where it is."""
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    chunk = onward(good_chunk, 2, arm.at(1.0))
    measured = arm.where(arm.at(1.0 + late))
    arm.hand_over.rests(arm.now_ns)
    state = RobotState(arm.now_ns, arm.where(chunk.stamp_ns), measured)
    arm.at(3.0)
    path = arm.hand_over.decide(chunk, replace(state, now_ns=arm.now_ns)).path
    np.testing.assert_array_equal(path.positions[0], measured)
    assert not path.velocities[0].any() and path.steps == 16
    assert (np.linalg.norm(path.positions[1] - gate.rows_of(chunk, state.observed)[0]) < 1e-9) == (not behind)


def test_at_rest_what_the_robot_has_done_of_a_late_chunk_is_left_out(arm, good_chunk, gate):
    arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0)))
    chunk = onward(good_chunk, 2, arm.at(1.0))
    observed = arm.where(arm.now_ns)
    arm.rest(2.1)
    arm.at(3.0)
    path = arm.hand_over.decide(chunk, RobotState(arm.now_ns, observed, arm.home)).path
    assert path.steps == 11, "1.1 s of 3.2 s are behind it, with steps of 0.2 s"
    np.testing.assert_array_equal(path.positions[0], arm.home)
    np.testing.assert_allclose(path.positions[-1], gate.rows_of(chunk, observed)[-1])


def test_the_chunk_that_was_sent_last_is_in_the_mean_until_the_robot_rests(gate, home, good_chunk):
    aside = np.array(good_chunk.rows)
    aside[:, 1] = 0.002 * np.arange(1, 17)

    def tip(stop: bool) -> float:
        """How far aside the last but one row of a chunk leads that comes after one which goes aside."""
        arm = Arm(gate, home, Blending.TEMPORAL_ENSEMBLING)
        arm.execute(replace(good_chunk, stamp_ns=arm.at(0.0), data=aside.reshape(-1)))
        if stop:
            arm.rest(0.05)
        chunk = onward(good_chunk, 2, arm.at(0.06))
        before = gate.poses(arm.where(arm.now_ns))[0, 0]
        arm.at(0.07)
        path = arm.decide(chunk)
        if stop:
            arm.hand_over.began(path, arm.now_ns)
            arm.motion = Motion(path, arm.now_ns, chunk)
            chunk = onward(good_chunk, 3, arm.at(0.1))
            before = gate.poses(arm.where(arm.now_ns))[0, 0]
            arm.at(0.11)
            path = arm.decide(chunk)
        return float(np.linalg.inv(before)[1, :3] @ (gate.poses(path.positions[8])[0, 0, :3, 3] - before[:3, 3]))

    assert abs(tip(stop=False)) > 0.004 and abs(tip(stop=True)) < 5e-4
