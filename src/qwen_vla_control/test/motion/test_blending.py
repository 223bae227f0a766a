# SPDX-License-Identifier: Apache-2.0
"""A new chunk takes over at the right place, without a jump, a pause or a jerk."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.blending import (
    LEAVING,
    Blender,
    Blending,
    CrossFade,
    MotionInterval,
    ensemble,
    fade,
    same_turn,
)
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.motion.timed_path import TimedPath
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_control.stamps import NANOSECONDS

JOINTS = ("a", "b", "c")
PERIOD = 0.2
HORIZON, EXECUTED = 16, 8
OVERLAPPING = [mode for mode in Blending if mode is not Blending.SYNCHRONOUS]
CHUNK = arrays(float, (HORIZON + 1, 3), elements=st.floats(-1.0, 1.0))
SECONDS = st.floats(0.0, 20.0).map(lambda seconds: round(seconds * NANOSECONDS))


def plan(rows, start: float = 0.0, speed=None) -> TimedPath:
    return TimedPath(JointPath.through(JOINTS, rows, PERIOD, speed), round(start * NANOSECONDS), EXECUTED)


def blender(mode=Blending.ASYNCHRONOUS, cross_fade=CrossFade.LINEAR) -> Blender:
    return Blender(mode, [True, True, False], cross_fade)


# What is behind the robot ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(SECONDS, SECONDS, st.booleans())), SECONDS, SECONDS)
def test_never_more_is_skipped_than_the_delay_nor_than_was_executed(motions, stamp, delay):
    interval, moved = MotionInterval(), 0
    now = stamp + delay
    clock = 0
    for pause, duration, broken_off in motions:
        clock += pause
        interval.begin(clock, clock + duration)
        if broken_off:
            interval.end(clock + duration // 2)
        moved += duration
        if clock > now:
            return
    assert 0 <= interval.skipped(stamp, now) <= min(delay, moved)


def test_a_robot_that_stood_still_skips_nothing_of_its_first_chunk_however_cold_the_model_was():
    assert MotionInterval().skipped(10**9, 10 * 10**9) == 0


def test_a_moving_robot_skips_the_delay_whatever_was_estimated():
    interval = MotionInterval()
    interval.begin(1_000, 2_000)
    interval.begin(1_500, 5_000)  # a handover is no break
    assert interval.skipped(1_200, 1_900) == 700
    assert interval.skipped(800, 1_900) == 900  # it stood still until 1000


def test_what_was_moved_before_it_came_to_rest_counts_and_no_more():
    interval = MotionInterval()
    interval.begin(1_000, 5_000)
    interval.end(2_000)
    assert interval.skipped(1_600, 4_000) == 400
    interval.begin(6_000, 9_000)
    assert interval.skipped(5_500, 7_000) == 1_000


def test_a_motion_that_begins_when_another_ends_continues_it_and_a_little_later_does_not():
    for pause, moved in ((0, 1_000), (1, 500)):
        span = MotionInterval()
        span.begin(1_000, 2_000)
        span.begin(2_000 + pause, 3_000)
        assert span.skipped(1_500, 2_500) == moved - pause


@given(CHUNK, st.floats(0.0, HORIZON * PERIOD - 0.01))
def test_a_chunk_that_began_in_the_past_is_cut_to_what_is_ahead(rows, elapsed):
    whole = plan(rows)
    ahead = whole.ahead(round(elapsed * NANOSECONDS))
    assert ahead.duration >= whole.path.duration - elapsed - 1e-6 > ahead.duration - PERIOD - 1e-5
    assert np.allclose(ahead.positions[0], whole.path.at(elapsed)[0], atol=1e-6)
    assert np.array_equal(ahead.positions[-1], rows[-1]) and not ahead.velocities[-1].any()


def test_a_chunk_of_which_nothing_is_ahead_is_refused():
    with pytest.raises(Refused, match=r"3\.30 s after its start and is only 3\.20 s long") as refused:
        blender().path(plan(np.zeros((HORIZON + 1, 3))), round(3.3 * NANOSECONDS), None, np.zeros(3))
    assert refused.value.reasons == (Reason.STALE,)


# The handover ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", OVERLAPPING)
@given(old=CHUNK, new=CHUNK, arrival=st.floats(1.3, 2.5), cross_fade=st.sampled_from(CrossFade))
@settings(max_examples=25)
def test_it_starts_as_commanded_ends_with_the_chunk_and_stays_between_the_two(mode, old, new, arrival, cross_fade):
    before, after, now = plan(old), plan(new, 1.2), round(arrival * NANOSECONDS)
    it = blender(mode, cross_fade)
    it.take(before, 0)
    path = it.path(after, now, before, np.full(3, np.nan))  # measured is of no interest while it moves
    position, velocity = before.path.at(arrival)
    assert np.allclose(path.positions[0], position) and np.allclose(path.velocities[0], velocity)
    assert not path.velocities[-1].any()
    if mode is not Blending.TEMPORAL_ENSEMBLING:
        assert np.allclose(path.positions[-1], new[-1])
    both = np.vstack([old, new])
    assert (path.positions >= both.min(axis=0) - 1e-9).all() and (path.positions <= both.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("mode", OVERLAPPING)
def test_a_chunk_that_continues_the_old_one_changes_nothing(mode):
    rows = np.cumsum(np.full((2 * HORIZON, 3), 0.01), axis=0)
    before, after = plan(rows[: HORIZON + 1]), plan(rows[6 : HORIZON + 7], 6 * PERIOD, np.full(3, 0.05))
    it = blender(mode)
    it.take(before, 0)
    path = it.path(after, round(1.3 * NANOSECONDS), before, np.zeros(3))
    times = 1.3 + PERIOD * np.arange(8)
    assert np.allclose(path.positions[:8], rows[0] + 0.05 * times[:, None], atol=1e-3)
    assert np.allclose(path.velocities[:7], 0.05, atol=1e-2)  # it does not even slow down


@pytest.mark.parametrize("mode", OVERLAPPING)
def test_an_offset_is_canceled_on_arrival_and_fades_out(mode):
    """Observations lag behind the commands, so every chunk is anchored a little behind them."""
    rows = np.cumsum(np.full((2 * HORIZON, 3), 0.02), axis=0)
    before = plan(rows[: HORIZON + 1])
    after = plan(rows[6 : HORIZON + 7] - 0.05, 6 * PERIOD, np.full(3, 0.1))
    path = blender(mode).path(after, round(1.3 * NANOSECONDS), before, np.zeros(3))
    offset = path.positions - after.ahead(round(1.3 * NANOSECONDS)).positions
    assert np.allclose(offset[0], 0.05)
    assert (np.diff(offset, axis=0) < 1e-9).all() and np.allclose(offset[-1], 0.0)


def test_at_rest_it_starts_where_the_robot_is():
    rows = np.cumsum(np.full((HORIZON + 1, 3), 0.02), axis=0)
    path = blender().path(plan(rows, 5.0), 5 * NANOSECONDS, None, np.full(3, 0.01))
    assert np.allclose(path.positions[0], 0.01) and not path.velocities[0].any()
    assert np.allclose(path.positions[1:], rows[1:]) and path.duration == pytest.approx(HORIZON * PERIOD)


def test_a_running_path_that_is_over_counts_as_rest():
    rows = np.cumsum(np.full((HORIZON + 1, 3), 0.02), axis=0)
    path = blender().path(plan(rows, 10.0), 10 * NANOSECONDS, plan(rows), rows[0])
    assert np.allclose(path.positions[0], rows[0])


def test_beyond_its_end_the_old_path_rests_there():
    """Not at zero, which is an action, too, and often a wild one."""
    old, new = np.full((HORIZON + 1, 3), 0.8), np.full((HORIZON + 1, 3), 0.9)
    path = blender().path(plan(new, 2.8), round(3.0 * NANOSECONDS), plan(old), np.zeros(3))
    assert (path.positions >= 0.8 - 1e-9).all() and (path.positions <= 0.9 + 1e-9).all()


# Smoothness -----------------------------------------------------------------------------------------------------------


def wish(times: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """What the policy wants, (len(times), 3) [rad]."""
    times = np.atleast_1d(times)[:, None]
    return 0.25 * np.sin(0.9 * times + phase) + 0.1 * np.sin(2.1 * times + 2 * phase)


def hand_overs(mode: Blending, cross_fade: CrossFade, seed: int, noise: float, disagreement: float, lag: float):
    """Drive a robot through twelve chunks; returns the largest acceleration at boundaries and inside chunks.

    Every chunk has noise of its own and disagrees with the one before; observations lag behind the commands by `lag`
    [s]; the delay varies.
    """
    rng = np.random.default_rng(seed)
    phase, it, interval = rng.uniform(0, 6, 3), Blender(mode, [True] * 3, cross_fade), MotionInterval()
    running, stamp, boundary, inside = None, 0.0, [], []
    while len(boundary) < 12:
        moving = None if running is None else running.path.at(stamp - running.start_ns / 1e9 - lag)
        bias = rng.normal(size=3) * disagreement * np.minimum(1.0, np.arange(1, HORIZON + 1) / 3)[:, None]
        rows = wish(stamp + PERIOD * np.arange(1, HORIZON + 1), phase) + bias + noise * rng.normal(size=(HORIZON, 3))
        anchor, speed = (wish(stamp, phase)[0], None) if moving is None else moving
        now = round((stamp + 0.15 * rng.uniform(0.7, 1.3)) * NANOSECONDS)
        start = now - interval.skipped(round(stamp * NANOSECONDS), now)
        chunk = TimedPath(JointPath.through(JOINTS, np.vstack([anchor, rows]), PERIOD, speed), start, EXECUTED)
        path = it.path(chunk, now, running, anchor)
        it.take(chunk, now)
        interval.begin(now, now + round(path.duration * NANOSECONDS))
        peaks = path.peak_accelerations()
        if running is not None:
            boundary.append(peaks[:2].max())
        inside += [chunk.path.peak_accelerations()[1:EXECUTED].max(), peaks[2:EXECUTED].max()]
        running = TimedPath(path, now)
        wait = PERIOD if mode is Blending.TEMPORAL_ENSEMBLING else EXECUTED * PERIOD - 0.15
        stamp = max(now / 1e9 + 0.001, start / 1e9 + wait)
    return max(boundary), max(inside)


@pytest.mark.parametrize("mode", OVERLAPPING)
@pytest.mark.parametrize("cross_fade", CrossFade)
@pytest.mark.parametrize(("noise", "disagreement"), [(0.0, 0.0), (0.001, 0.02), (0.004, 0.01)])
def test_boundaries_are_as_smooth_as_the_inside_of_chunks(mode, cross_fade, noise, disagreement):
    ratios = []
    for seed in range(8):
        boundary, inside = hand_overs(mode, cross_fade, seed, noise, disagreement, lag=0.03)
        ratios.append(boundary / inside)
    assert max(ratios) <= 1.1, ratios


@pytest.mark.parametrize("disagreement", [0.05, 0.1])
def test_the_more_two_chunks_disagree_the_longer_the_transition(disagreement):
    rows = np.cumsum(np.full((2 * HORIZON, 3), 0.02), axis=0) + 0.004 * np.sin(np.arange(2 * HORIZON))[:, None]
    before, now = plan(rows[: HORIZON + 1]), round(1.3 * NANOSECONDS)

    def steps(offset: float) -> int:
        it = blender()
        it.take(before, 0)
        after = plan(rows[6 : HORIZON + 7] + offset, 6 * PERIOD, np.full(3, 0.1))
        behind = np.abs(it.path(after, now, before, np.zeros(3)).positions - after.ahead(now).positions) > 1e-9
        return int(behind.any(axis=1).sum())

    assert steps(0.0) <= steps(disagreement / 2) <= steps(disagreement) and steps(disagreement) > 2


def line(offset: float = 0.0, kink: int | None = None, column: int = 0, first: int = 0) -> np.ndarray:
    """(17, 3) at 0.1 rad/s from row `first` on, some way off; at row `kink` one joint jerks."""
    rows = np.tile(0.02 * (first + np.arange(HORIZON + 1)[:, None]) + offset, (1, 3))
    if kink is not None:
        rows[kink, column] += 0.05
    return rows


def transition(before: TimedPath, after: TimedPath, forgotten: bool = False) -> int:
    """After how many steps nothing is left of the chunk before."""
    it, now = blender(), round(1.3 * NANOSECONDS)
    it.take(before, 0)
    if forgotten:
        it.forget()
    behind = np.abs(it.path(after, now, before, np.zeros(3)).positions - after.ahead(now).positions) > 1e-9
    return int(np.flatnonzero(behind.any(axis=1))[-1]) + 1


STEADY = np.full(3, 0.1)


def test_a_transition_may_accelerate_as_hard_as_either_chunk_does_where_it_is_executed():
    calm, kinked = plan(line(), 0.0, STEADY), plan(line(kink=3), 0.0, STEADY)
    target = plan(line(0.03, first=6), 1.2, STEADY)
    longest = transition(calm, target)
    assert longest >= 8, "as low as it gets"
    assert transition(kinked, target) == 1
    assert transition(kinked, target, forgotten=True) == longest
    assert transition(calm, plan(line(0.03, kink=7, first=6), 1.2, STEADY)) == 1


@pytest.mark.parametrize(
    "calm_where_it_counts",
    [
        plan(line(kink=3, column=2), 0.0, STEADY),  # the gripper
        replace(plan(line(kink=4), 0.0, STEADY), execution_horizon=2),  # beyond the execution horizon
        plan(line(), 0.0, -2.0 * STEADY),  # the step from where it was measured
        replace(plan(line(), 0.0, STEADY), execution_horizon=0),  # the last step, in which it comes to rest
    ],
)
def test_what_is_not_how_the_policy_moves_lets_no_transition_accelerate(calm_where_it_counts):
    target = plan(line(0.03, first=6), 1.2, STEADY)
    assert transition(calm_where_it_counts, target) == transition(plan(line(), 0.0, STEADY), target)


def test_a_chunk_without_an_execution_horizon_is_executed_as_a_whole():
    target = plan(line(0.03, first=6), 1.2, STEADY)
    assert transition(replace(plan(line(kink=4), 0.0, STEADY), execution_horizon=0), target) == 1


def test_a_transition_ends_before_a_jerk_that_it_would_have_to_share():
    jerk = line(0.03, first=6)
    jerk[12:] += 0.4
    assert 6 <= transition(plan(line(), 0.0, STEADY), plan(jerk, 1.2, STEADY)) <= 11


def test_a_gripper_does_not_decide_how_long_a_transition_lasts():
    rows = np.cumsum(np.full((2 * HORIZON, 3), 0.02), axis=0)
    before = plan(rows[: HORIZON + 1])
    after = plan(rows[6 : HORIZON + 7] + [0.0, 0.0, 0.5], 6 * PERIOD, np.full(3, 0.1))
    it = blender()
    it.take(before, 0)
    path, target = (f(round(1.3 * NANOSECONDS)) for f in (lambda t: it.path(after, t, before, None), after.ahead))
    assert np.allclose(path.positions[2:, 2], target.positions[2:, 2])


def test_a_base_takes_the_shorter_rotation_where_its_heading_wraps():
    """The odometry reports -pi where the path that is being executed has run on beyond pi."""

    def turning(first: float, start: float) -> TimedPath:
        poses = np.zeros((HORIZON + 1, 3))
        poses[:, 2] = first + 0.05 * np.arange(HORIZON + 1)
        return TimedPath(
            BasePath.through("odom", poses, PERIOD, [0.0, 0.0, 0.25]), round(start * NANOSECONDS), EXECUTED
        )

    before, after = turning(np.pi - 0.2, 0.0), turning(0.1 - np.pi, 6 * PERIOD)
    for mode in OVERLAPPING:
        it = Blender(mode, [True] * 3)
        it.take(before, 0)
        path = it.path(after, round(1.3 * NANOSECONDS), before, np.zeros(3))
        assert isinstance(path, BasePath) and np.allclose(path.velocities[:-2, 2], 0.25, atol=0.02)


@pytest.mark.parametrize("turns", [-2, -1, 0, 1])
@pytest.mark.parametrize("off", [-3.0, 0.0, 3.0])
def test_headings_are_told_in_the_turn_that_another_pose_is_in(turns, off):
    poses = np.array([[1.0, 2.0, 0.5], [1.1, 2.2, 0.7], [1.2, 2.4, 9.0]])
    path = BasePath.through("odom", poses, PERIOD)
    found = same_turn(path, np.array([8.0, 9.0, 0.5 + 2 * np.pi * turns + off]))
    np.testing.assert_allclose(found.positions, path.positions + [0.0, 0.0, 2 * np.pi * turns])
    np.testing.assert_array_equal(found.velocities, path.velocities)
    np.testing.assert_array_equal(path.positions, BasePath.through("odom", poses, PERIOD).positions)


def test_joints_have_no_turn():
    path = plan(line(9.0)).path
    assert same_turn(path, np.zeros(3)) is path


def test_a_base_at_rest_is_led_in_from_where_it_is_without_a_whole_turn():
    poses = np.zeros((HORIZON + 1, 3))
    poses[:, 2] = 0.05 * np.arange(HORIZON + 1)
    chunk = TimedPath(BasePath.through("odom", poses, PERIOD), 0, EXECUTED)
    measured = np.array([0.1, 0.0, 2 * np.pi + 0.1])
    path = blender().path(chunk, 0, None, measured)
    np.testing.assert_array_equal(path.positions[0], measured)
    np.testing.assert_allclose(path.positions[1:, 2], poses[1:, 2] + 2 * np.pi)


# Temporal ensembling --------------------------------------------------------------------------------------------------


def test_the_weights_are_those_of_act():
    paths = [plan(np.full((HORIZON + 1, 3), value)).path for value in (1.0, 2.0, 4.0)]
    weights = np.exp(-0.3 * np.arange(3))
    assert np.allclose(ensemble(paths, 0.3).positions[0], weights @ [1.0, 2.0, 4.0] / weights.sum())


def test_a_chunk_that_is_over_contributes_nothing():
    short = plan(np.ones((5, 3))).path
    mean = ensemble([short, plan(np.zeros((HORIZON + 1, 3))).path], 0.01)
    assert mean.positions[0, 0] > 0.4 and not mean.positions[5:].any()
    assert (np.abs(np.diff(mean.positions[:, 0])) < 0.25).all()  # it leaves the mean little by little


def test_what_was_refused_or_forgotten_is_not_in_the_mean():
    zeros, ones, now = plan(np.zeros((HORIZON + 1, 3))), plan(np.ones((HORIZON + 1, 3)), 1.0), round(1.2 * NANOSECONDS)
    it = blender(Blending.TEMPORAL_ENSEMBLING)
    it.take(zeros, 0)
    mean = it.path(ones, now, zeros, np.zeros(3)).positions[5, 0]
    assert 0.1 < mean < 0.6
    again = it.path(ones, now, zeros, np.zeros(3)).positions[5, 0]
    assert again == pytest.approx(mean), "what was proposed before was never sent"
    it.forget()
    assert it.path(ones, now, None, np.zeros(3)).positions[5, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("decay", [0.0, -0.01, math.nan])
def test_a_decay_that_is_not_positive_is_refused(decay):
    with pytest.raises(ValueError, match="above 0"):
        Blender(Blending.TEMPORAL_ENSEMBLING, [True], decay=decay)


def test_the_synchronous_mode_has_nothing_to_blend():
    with pytest.raises(ValueError, match="synchronous"):
        Blender(Blending.SYNCHRONOUS, [True])


@given(st.integers(1, 20), st.integers(2, 30), st.sampled_from(CrossFade))
def test_the_old_chunk_loses_its_weight_steadily(steps, rows, shape):
    weights = fade(steps, rows, shape)
    assert weights[0] == pytest.approx(1.0) and (np.diff(weights) <= 0).all() and not weights[steps:].any()


def test_the_weight_of_the_old_chunk_falls_in_equal_parts_or_faster():
    linear = np.array([1.0, 2 / 3, 1 / 3, 0.0, 0.0])
    np.testing.assert_allclose(fade(3, 5, CrossFade.LINEAR), linear, atol=1e-12)
    exponential = linear * (np.exp(linear) - 1.0) / (np.e - 1.0)
    np.testing.assert_allclose(fade(3, 5, CrossFade.EXPONENTIAL), exponential, atol=1e-12)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 99), st.floats(0.01, 1.0))
def test_each_row_is_the_mean_of_the_chunks_that_reach_it_and_older_ones_leave_little_by_little(lengths, seed, decay):
    rng = np.random.default_rng(seed)
    paths = [
        JointPath(JOINTS, PERIOD, rng.normal(size=(steps + 1, 3)), rng.normal(size=(steps + 1, 3))) for steps in lengths
    ]
    mean, newest = ensemble(paths, decay), paths[-1]
    assert mean.steps == newest.steps
    for row in range(newest.steps + 1):
        reaching = [path for path in paths if row <= path.steps]
        weights = np.exp(-decay * np.arange(len(reaching)))
        weights *= [1.0 if path is newest else min(1.0, (path.steps + 1 - row) / LEAVING) for path in reaching]
        for found, values in ((mean.positions, "positions"), (mean.velocities, "velocities")):
            expected = np.average([getattr(path, values)[row] for path in reaching], axis=0, weights=weights)
            np.testing.assert_allclose(found[row], expected, atol=1e-9)


def test_all_chunks_that_were_sent_and_are_not_over_are_in_the_mean():
    values, now = (0.0, 1.0, 4.0), round(1.3 * NANOSECONDS)
    sent = [plan(np.full((HORIZON + 1, 3), value), start) for value, start in zip(values, (0.0, 0.6, 1.2), strict=True)]
    it = Blender(Blending.TEMPORAL_ENSEMBLING, [False] * 3, decay=0.3)  # whatever it takes, it is there at once
    it.take(plan(np.full((HORIZON + 1, 3), 99.0), -4.0), 0)
    for chunk in sent[:2]:
        it.take(chunk, chunk.start_ns)
    mean = it.path(sent[2], now, sent[0], np.zeros(3)).positions[:, 0]
    weights = np.exp(-0.3 * np.arange(3))
    assert mean[1] == pytest.approx(weights @ values / weights.sum())
    weights[0] *= (10 + 1 - 9) / LEAVING  # ten steps of the oldest are ahead
    assert mean[9] == pytest.approx(weights @ values / weights.sum())
