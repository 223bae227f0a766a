# SPDX-License-Identifier: Apache-2.0
"""The controller's contract: what it rejects, how it interpolates, and how one message replaces another."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_sim.controllers.joint_trajectory_controller import (
    JointState,
    JointTrajectory,
    JointTrajectoryController,
    TrajectoryPoint,
    TrajectoryRejected,
    segment_coefficients,
)

JOINTS = ("waist", "shoulder", "elbow")
HOME = (0.1, -0.5, 0.7)
PERIOD_NS = 2_000_000
S = 1_000_000_000


def controller(**options) -> JointTrajectoryController:
    return JointTrajectoryController(JOINTS, HOME, **options)


def trajectory(*points, names=JOINTS, stamp=0.0) -> JointTrajectory:
    """Points are (seconds, positions[, velocities[, accelerations[, effort]]])."""
    return JointTrajectory(names, [TrajectoryPoint(round(t * S), *rest) for t, *rest in points], round(stamp * S))


def play(jtc: JointTrajectoryController, start_ns: int, end_ns: int, period_ns: int = PERIOD_NS) -> np.ndarray:
    """The set points of every cycle from `start_ns` to `end_ns`, both included, shape (cycles, joints)."""
    return np.array([jtc.update(now).copy() for now in range(start_ns, end_ns + 1, period_ns)])


def fingerprint(jtc: JointTrajectoryController, now_ns: int) -> list:
    """Everything that a later command depends on, taken from a copy that runs on for two seconds."""
    return play(copy.deepcopy(jtc), now_ns, now_ns + 2 * S, S // 10).tolist()


positions = st.lists(st.floats(-3, 3), min_size=3, max_size=3)
velocities = st.lists(st.floats(-2, 2), min_size=3, max_size=3)


@st.composite
def trajectories(draw, degrees=(1, 3, 5), shortest_ns=PERIOD_NS):
    """Valid messages of one to five points, at least `shortest_ns` apart, that end at rest."""
    times = np.cumsum(draw(st.lists(st.integers(shortest_ns, S), min_size=1, max_size=5)))
    degree = draw(st.sampled_from(degrees))
    points = []
    for i, t in enumerate(times):
        last = i == len(times) - 1
        v = [] if degree == 1 else [0.0] * 3 if last else draw(velocities)
        a = [] if degree < 5 else [0.0] * 3 if last else draw(velocities)
        points.append(TrajectoryPoint(int(t), draw(positions), v, a))
    return JointTrajectory(draw(st.permutations(JOINTS)), points)


class TestValidation:
    @pytest.mark.parametrize(
        ("message", "why"),
        [
            (trajectory((0.1, [0, 0, 0]), names=()), "names no joints"),
            (trajectory((0.1, [0, 0]), names=JOINTS[:2]), "missing: elbow"),
            (trajectory((0.1, [0, 0, 0]), names=("waist", "shoulder", "knee")), "'knee'"),
            (trajectory((0.1, [0, 0, 0, 0]), names=(*JOINTS, "knee")), "'knee'"),
            (trajectory((0.1, [0, 0, 0]), names=("waist", "waist", "elbow")), "more than once: waist"),
            (trajectory((0.1, [0, 0, 0, 0]), names=(*JOINTS, "waist")), "more than once: waist"),
            (trajectory(), "no points"),
            (trajectory((0.1, [0, 0, 0]), (0.1, [0, 0, 0])), "increase strictly: point 0"),
            (trajectory((0.1, [0, 0, 0]), (0.2, [0, 0, 0]), (0.15, [0, 0, 0])), "increase strictly: point 1"),
            (trajectory((0.1, [])), "0 positions for 3 joints"),
            (trajectory((0.1, [0, 0])), "2 positions for 3 joints"),
            (trajectory((0.1, [0, 0, 0]), (0.2, [0, 0, 0, 0])), "point 1 has 4 positions"),
            (trajectory((0.1, [0, 0, 0], [0, 0])), "2 velocities for 3 joints"),
            (trajectory((0.1, [], [0, 0, 0])), "0 positions for 3 joints"),
            (trajectory((0.1, [0, 0, 0], [0, 0, 0], [0])), "1 accelerations for 3 joints"),
            (trajectory((0.1, [0, 0, 0], [], [], [1, 1, 1])), "efforts"),
            (trajectory((0.1, [0, math.nan, 0])), "not finite"),
            (trajectory((0.1, [0, 0, 0], [0, math.inf, 0])), "not finite"),
            (trajectory((0.1, [0, 0, 1e300])), "not finite"),
            (trajectory((0.1, [0, 0, 0], [0, 1e-3, 0])), "'shoulder' has velocity 0.001"),
            (trajectory((0.5, [0, 0, 0]), stamp=9.4), "ended at 9.900 s"),
        ],
    )
    def test_a_bad_message_is_refused_with_its_reason_and_changes_nothing(self, message, why):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1, 1, 1])), 9 * S)
        play(jtc, 9 * S, 10 * S - PERIOD_NS)
        before = fingerprint(jtc, 10 * S)
        with pytest.raises(TrajectoryRejected, match=why):
            jtc.accept(message, 10 * S)
        assert fingerprint(jtc, 10 * S) == before

    def test_the_last_velocity_may_be_tiny_or_allowed(self):
        controller().accept(trajectory((0.1, [0, 0, 0], [0, 1e-8, 0])), 0)
        controller(allow_nonzero_velocity_at_trajectory_end=True).accept(trajectory((0.1, [0, 0, 0], [0, 1, 0])), 0)

    def test_intermediate_velocities_are_free(self):
        controller().accept(trajectory((0.1, [0, 0, 0], [1, 1, 1]), (0.2, [1, 1, 1], [0, 0, 0])), 0)

    def test_a_stamped_message_that_ends_just_now_is_still_taken(self):
        controller().accept(trajectory((0.5, [0, 0, 0]), stamp=9.5), 10 * S)

    @given(good=trajectories(), data=st.data())
    def test_one_random_fault_refuses_the_whole_message(self, good, data):
        """Any single fault in a valid message must be found, and must leave the running trajectory as it was."""
        i = data.draw(st.integers(0, len(good.points) - 1))
        point, points = good.points[i], list(good.points)
        bad_numbers = st.sampled_from([math.nan, math.inf, -math.inf])
        fault = data.draw(
            st.sampled_from(["drop", "double", "rename", "short", "long", "bad", "time", "effort", "old"])
        )
        faulty = {
            "drop": lambda: dataclasses.replace(good, joint_names=good.joint_names[:-1]),
            "double": lambda: dataclasses.replace(good, joint_names=[good.joint_names[0], *good.joint_names[:2]]),
            "rename": lambda: dataclasses.replace(good, joint_names=[*good.joint_names[:2], "wrist"]),
            "short": lambda: _with_point(good, i, positions=point.positions[:-1]),
            "long": lambda: _with_point(good, i, velocities=[0.0] * 4),
            "bad": lambda: _with_point(good, i, positions=[data.draw(bad_numbers), *point.positions[1:]]),
            "time": lambda: dataclasses.replace(good, points=[*points, points[i]]),
            "effort": lambda: _with_point(good, i, effort=[0.0] * 3),
            "old": lambda: dataclasses.replace(good, stamp_ns=1),
        }[fault]()
        jtc = controller()
        now = 10 * S
        jtc.accept(trajectory((1.0, [1, 1, 1])), now)
        play(jtc, now, now + S // 2)
        before = fingerprint(jtc, now + S // 2)
        with pytest.raises(TrajectoryRejected):
            jtc.accept(faulty, now + S // 2)
        assert fingerprint(jtc, now + S // 2) == before


def _with_point(message: JointTrajectory, i: int, **changes) -> JointTrajectory:
    points = list(message.points)
    points[i] = dataclasses.replace(points[i], **changes)
    return dataclasses.replace(message, points=points)


class TestInterpolation:
    def test_without_a_message_it_holds(self):
        assert play(controller(), 0, S, S // 10).tolist() == [list(HOME)] * 11

    @given(message=trajectories(), start=st.integers(1, 100 * S))
    def test_it_passes_through_every_point_and_then_holds_the_last(self, message, start):
        jtc = controller()
        jtc.accept(message, start)
        jtc.update(start)
        order = [list(message.joint_names).index(name) for name in JOINTS]
        for point in message.points:
            expected = np.array(point.positions)[order]
            just_before = jtc.update(start + point.time_from_start_ns - 1).copy()
            np.testing.assert_allclose(just_before, expected, atol=2e-5)
            np.testing.assert_array_equal(jtc.update(start + point.time_from_start_ns), expected)
        np.testing.assert_array_equal(jtc.update(start + message.points[-1].time_from_start_ns + 60 * S), expected)

    def test_positions_only_is_a_straight_line(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1.1, -0.5, 0.7]), (2.0, [1.1, 0.5, 0.7])), 0)
        points = play(jtc, 0, 2 * S, S // 4)
        np.testing.assert_allclose(points[:, 0], [0.1, 0.35, 0.6, 0.85, 1.1, 1.1, 1.1, 1.1, 1.1], atol=1e-12)
        np.testing.assert_allclose(points[:, 1], [-0.5, -0.5, -0.5, -0.5, -0.5, -0.25, 0, 0.25, 0.5], atol=1e-12)

    def test_without_velocities_the_first_cycle_makes_the_step_of_two(self):
        """As the original does, which counts from the cycle before the one for which its last set point was."""
        jtc = controller(period_ns=PERIOD_NS)
        play(jtc, 0, S)
        jtc.accept(trajectory((1.0, [1.1, -0.5, 0.7])), S)
        steps = np.diff([HOME[0], *play(jtc, S + PERIOD_NS, 2 * S + PERIOD_NS)[:, 0]])
        assert steps[0] == pytest.approx(2 * steps[1], rel=1e-6) and steps[1:].max() == pytest.approx(steps[1])
        assert jtc.command[0] == pytest.approx(1.1)

    def test_with_velocities_it_does_not(self):
        plain, cycled = controller(), controller(period_ns=PERIOD_NS)
        for jtc in (plain, cycled):
            play(jtc, 0, S)
            jtc.accept(trajectory((1.0, [1.1, -0.5, 0.7], [0.0] * 3)), S)
        np.testing.assert_array_equal(play(plain, S, 2 * S), play(cycled, S, 2 * S))

    def test_accelerations_without_velocities_are_a_straight_line_too(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1.1, -0.5, 0.7], [], [5, 5, 5])), 0)
        jtc.update(0)
        np.testing.assert_allclose(jtc.update(S // 2), [0.6, -0.5, 0.7], atol=1e-12)

    @given(p=positions, q=positions, v=velocities, w=velocities, a=velocities, b=velocities, t=st.floats(0.01, 3))
    def test_a_piece_meets_the_values_that_both_ends_give(self, p, q, v, w, a, b, t):
        """Against NumPy's own polynomials: position for a line, velocity for a cubic, acceleration for a quintic."""
        p, q, v, w, a, b = map(np.array, (p, q, v, w, a, b))
        line = segment_coefficients(JointState(p, v), JointState(q), t)
        cubic = segment_coefficients(JointState(p, v), JointState(q, w, b), t)
        quintic = segment_coefficients(JointState(p, v, a), JointState(q, w, b), t)
        for coefficients, known in ((line, [(p, q)]), (cubic, [(p, q), (v, w)]), (quintic, [(p, q), (v, w), (a, b)])):
            for order, (start, end) in enumerate(known):
                derived = np.polynomial.polynomial.polyder(coefficients, order) if order else coefficients
                at_end = np.polynomial.polynomial.polyval(t, derived)
                np.testing.assert_allclose(derived[0], start, atol=1e-12)
                np.testing.assert_allclose(at_end, end, atol=1e-8 * max(1, 1 / t**order))
        assert not line[2:].any() and not cubic[4:].any()

    @given(message=trajectories(degrees=(3, 5), shortest_ns=50_000_000))
    def test_with_velocities_the_speed_has_no_jumps(self, message):
        """C1: at every point the one-sided difference quotients from both sides agree with the given velocity."""
        jtc = controller()
        jtc.accept(message, S)
        jtc.update(S)
        h = 100  # [ns]; segments last at least 50 ms, so no speed changes by more than 0.02 within h
        order = [list(message.joint_names).index(name) for name in JOINTS]
        for point in message.points:
            at = S + point.time_from_start_ns
            left, middle, right = (jtc.update(t).copy() for t in (at - h, at, at + h))
            expected = np.array(point.velocities)[order]
            np.testing.assert_allclose((middle - left) * S / h, expected, atol=0.02)
            np.testing.assert_allclose((right - middle) * S / h, expected, atol=0.02)

    def test_desired_state_follows_the_polynomial(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1.1, 0.5, 1.7], [0, 0, 0])), 0)
        play(jtc, 0, S // 2)
        state = jtc.desired_state
        np.testing.assert_allclose(state.positions, np.array(HOME) + 0.5, atol=1e-12)
        np.testing.assert_allclose(state.velocities, [1.5] * 3, atol=1e-12)
        np.testing.assert_allclose(state.accelerations, [0.0] * 3, atol=1e-9)

    def test_the_control_cycle_does_not_touch_the_message(self):
        jtc = controller()
        message = trajectory((0.0, [1.0, 2.0, 3.0]), (1.0, [0.0, 0.0, 0.0]))
        jtc.accept(message, 0)
        buffer = jtc.update(0)
        assert jtc.update(S // 2) is buffer
        assert message.points[0].positions == [1.0, 2.0, 3.0]


class TestTiming:
    def test_stamp_zero_starts_at_the_next_cycle_not_on_arrival(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1.1, -0.5, 0.7])), 5 * S)
        np.testing.assert_array_equal(jtc.update(8 * S), HOME)
        np.testing.assert_allclose(jtc.update(8 * S + S // 2)[0], 0.6, atol=1e-12)

    def test_a_first_point_at_zero_is_a_step(self):
        jtc = controller()
        jtc.accept(trajectory((0.0, [1, 1, 1])), 0)
        np.testing.assert_array_equal(jtc.update(0), [1, 1, 1])

    def test_a_future_stamp_forgets_the_old_message_now_and_approaches_the_first_point(self):
        jtc = controller()
        jtc.accept(trajectory((10.0, [10.1, -0.5, 0.7])), 0)
        play(jtc, 0, S)  # the waist is at 1.1 and the old message would take it to 2.1 at 2 s
        jtc.accept(trajectory((1.0, [0.1, -0.5, 0.7]), stamp=2.0), S)
        points = play(jtc, S + PERIOD_NS, 3 * S)[:, 0]
        assert points.max() <= 1.1 + 1e-9
        np.testing.assert_allclose(points[points.size // 2], 0.6, atol=2e-3)
        np.testing.assert_allclose(points[-1], 0.1, atol=1e-12)

    def test_a_past_stamp_joins_in_the_middle(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [0, 0, 0]), (2.0, [1, 1, 1]), stamp=10.0), 11 * S + S // 2)
        np.testing.assert_allclose(jtc.update(11 * S + S // 2), [0.5] * 3, atol=1e-12)


class TestReplacement:
    @given(first=trajectories(), second=trajectories(), cut=st.integers(0, 2 * S))
    def test_the_new_message_starts_at_the_last_set_point_without_a_step(self, first, second, cut):
        """One cycle after the replacement the set point moved no further than a cycle of either motion explains."""
        jtc = controller()
        jtc.accept(first, S)
        for now in (S, S + cut // 2, S + cut):
            jtc.update(now)
        before, was = jtc.command, jtc.desired_state
        jtc.accept(second, S + cut)
        after = jtc.update(S + cut + 1000).copy()
        allowed = 1e-6 * (_fastest(second, was) + 1)
        np.testing.assert_allclose(after, before, atol=allowed)

    def test_velocity_carries_over_when_the_new_message_has_velocities(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1.1, 0.5, 1.7], [0, 0, 0])), 0)
        play(jtc, 0, S // 2)
        moving = jtc.desired_state.velocities
        jtc.accept(trajectory((1.0, [0, 0, 0], [0, 0, 0])), S // 2)
        h = 10_000
        start, then = jtc.command, jtc.update(S // 2 + h).copy()
        np.testing.assert_allclose((then - start) * S / h, moving, atol=1e-3)

    def test_the_old_message_is_forgotten(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1, 1, 1]), (2.0, [2, 2, 2])), 0)
        play(jtc, 0, S // 2)
        jtc.accept(trajectory((0.1, [0, 0, 0])), S // 2)
        np.testing.assert_allclose(play(jtc, S // 2, 3 * S)[-1], [0, 0, 0], atol=1e-12)

    def test_only_the_last_of_two_messages_in_one_cycle_counts(self):
        jtc = controller()
        jtc.accept(trajectory((0.0, [1, 1, 1])), 0)
        jtc.accept(trajectory((0.0, [2, 2, 2])), 0)
        np.testing.assert_array_equal(jtc.update(0), [2, 2, 2])

    def test_joined_to_the_measured_state_the_set_point_steps_back_by_the_lag(self):
        jtc = controller(interpolate_from_desired_state=False)
        jtc.accept(trajectory((1.0, [1, 1, 1])), 0)
        measured = JointState(np.array([0.0, 0.0, 0.0]), np.array([0.1, 0.1, 0.1]))
        np.testing.assert_array_equal(jtc.update(0, measured), [0, 0, 0])
        with pytest.raises(ValueError, match="measured"):
            jtc.accept(trajectory((1.0, [1, 1, 1])), S)
            jtc.update(S)

    @pytest.mark.parametrize(
        ("point", "quarter"),
        [
            ((1.0, [1, 1, 1]), 0.25),
            ((1.0, [1, 1, 1], [0] * 3), 0.15625),
            ((1.0, [1, 1, 1], [0] * 3, [0] * 3), 0.103515625),
        ],
    )
    def test_what_was_not_measured_counts_as_rest_and_the_message_decides_the_degree(self, point, quarter):
        """3x² − 2x³ and 10x³ − 15x⁴ + 6x⁵ at x = 1/4."""
        jtc = controller(interpolate_from_desired_state=False)
        jtc.accept(trajectory(point), 0)
        jtc.update(0, JointState(np.zeros(3)))
        np.testing.assert_allclose(jtc.update(S // 4), [quarter] * 3, atol=1e-12)

    def test_an_end_velocity_that_is_allowed_carries_over(self):
        jtc = controller(allow_nonzero_velocity_at_trajectory_end=True)
        jtc.accept(trajectory((1.0, [1, 1, 1], [2, 2, 2])), 0)
        np.testing.assert_array_equal(play(jtc, 0, 2 * S)[-1], [1, 1, 1])
        np.testing.assert_array_equal(jtc.desired_state.velocities, [2, 2, 2])

    def test_hold_forgets_everything(self):
        jtc = controller()
        jtc.accept(trajectory((1.0, [1, 1, 1])), 0)
        play(jtc, 0, S // 2)
        jtc.accept(trajectory((0.0, [5, 5, 5])), S // 2)
        jtc.hold(HOME)
        np.testing.assert_array_equal(play(jtc, S, 2 * S)[-1], HOME)
        with pytest.raises(ValueError, match="3 joints"):
            jtc.hold([0.0])


def _fastest(message: JointTrajectory, before: JointState) -> float:
    """A bound on the speed of the first segment [1/s] that joins `before` to `message`."""
    first = message.points[0]
    seconds = first.time_from_start_ns / S
    derivatives = [np.abs(np.asarray(x)).max() if len(x) else 0.0 for x in (first.velocities, first.accelerations)]
    distance = np.abs(before.positions).max() + 3
    speed = np.abs(before.velocities).max() + derivatives[0]
    return 30 * distance / seconds + 30 * speed + 10 * seconds * (np.abs(before.accelerations).max() + derivatives[1])


@pytest.mark.parametrize("degree", [1, 3])
def test_chunks_streamed_every_fifth_of_a_second_make_one_smooth_motion(degree):
    """Overlapping chunks of the same ramp, resent before their tails, track the ramp from the first point on."""
    jtc = controller()
    speed, dt, seen = 0.5, 0.2, []
    for chunk in range(5):
        start = chunk * dt
        v = [speed] * 3 if degree == 3 else []
        points = [((i + 1) * dt, [x + speed * (start + (i + 1) * dt) for x in HOME], v) for i in range(4)]
        if degree == 3:
            points[-1] = (*points[-1][:2], [0.0] * 3)
        jtc.accept(trajectory(*points), round(start * S))
        seen.append(play(jtc, round(start * S), round((start + dt) * S) - PERIOD_NS))
    path = np.concatenate(seen)
    ramp = np.array(HOME) + speed * np.arange(len(path))[:, None] * PERIOD_NS / S
    np.testing.assert_allclose(path[100:], ramp[100:], atol=2e-3)
    assert np.abs(np.diff(path[100:], axis=0)).max() <= 2.1 * speed * PERIOD_NS / S
