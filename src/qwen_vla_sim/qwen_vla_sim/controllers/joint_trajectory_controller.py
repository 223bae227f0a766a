# SPDX-License-Identifier: Apache-2.0
"""A ros2_control JointTrajectoryController without ROS.

The behavior is that of the Kilted release (ros2_controllers 5.x, position command interface): which messages are
rejected, how joints are mapped by name, how points are interpolated, and how a new message replaces the old one.
`JointTrajectoryController.accept` takes a message, `update` gives the set point of one control cycle.

Without velocities the first cycle makes the step of two, as there. In five cases it is stricter than the original: it
refuses duplicate joint names and values that are not finite, and ignores accelerations without velocities; and what the
original's limiter would clamp (a first point at time zero, positions and speeds beyond limits) it commands as it is,
for the monitor of limits to see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_sim.controllers.rejected import CommandRejected

# The original compares with std::numeric_limits<float>::epsilon().
END_VELOCITY_TOLERANCE = 1.1920929e-07

# Above this a quintic over a nanosecond could overflow; no joint comes close.
LARGEST_MAGNITUDE = 1e9

_FIELDS = ("positions", "velocities", "accelerations")


class TrajectoryRejected(CommandRejected):
    """The message is refused as a whole; the text names the joint or point and what is wrong with it."""


@dataclass(frozen=True)
class TrajectoryPoint:
    """One waypoint; the fields are those of trajectory_msgs/JointTrajectoryPoint.

    `time_from_start_ns` counts from the start of the trajectory [ns]. Positions [rad or m], velocities [rad/s or m/s]
    and accelerations [rad/s^2 or m/s^2] are in the order of the message's joint names; empty means not given.
    """

    time_from_start_ns: int
    positions: Sequence[float]
    velocities: Sequence[float] = ()
    accelerations: Sequence[float] = ()
    effort: Sequence[float] = ()


@dataclass(frozen=True)
class JointTrajectory:
    """A message as received: `stamp_ns` is the start time [ns], 0 means "start at the next control cycle"."""

    joint_names: Sequence[str]
    points: Sequence[TrajectoryPoint]
    stamp_ns: int = 0


@dataclass(frozen=True)
class JointState:
    """Joint values at one instant, each of shape (joints,); an unknown derivative is None."""

    positions: np.ndarray
    velocities: np.ndarray | None = None
    accelerations: np.ndarray | None = None


def validate(
    trajectory: JointTrajectory,
    joint_names: Sequence[str],
    now_ns: int,
    *,
    allow_nonzero_velocity_at_trajectory_end: bool = False,
) -> None:
    """Raise TrajectoryRejected unless a controller of `joint_names` would execute `trajectory` at `now_ns`."""
    _validate_names(trajectory.joint_names, joint_names)
    if not trajectory.points:
        raise TrajectoryRejected("the trajectory has no points")
    _validate_times(trajectory, now_ns)
    for index, point in enumerate(trajectory.points):
        _validate_point(index, point, len(trajectory.joint_names))
    if not allow_nonzero_velocity_at_trajectory_end:
        _validate_end(trajectory)


def _validate_names(given: Sequence[str], expected: Sequence[str]) -> None:
    if not given:
        raise TrajectoryRejected("the trajectory names no joints")
    for name in given:
        if name not in expected:
            raise TrajectoryRejected(f"joint '{name}' is not one of this controller's joints: {', '.join(expected)}")
    duplicates = sorted(name for name, count in Counter(given).items() if count > 1)
    if duplicates:
        raise TrajectoryRejected(f"joints named more than once: {', '.join(duplicates)}")
    missing = [name for name in expected if name not in given]
    if missing:
        raise TrajectoryRejected(f"joints missing: {', '.join(missing)}; a partial command is not accepted")


def _validate_times(trajectory: JointTrajectory, now_ns: int) -> None:
    times = [point.time_from_start_ns for point in trajectory.points]
    for index, (before, after) in enumerate(pairwise(times)):
        if after <= before:
            raise TrajectoryRejected(
                f"time_from_start must increase strictly: point {index} is at {before / NANOSECONDS:.9g} s, "
                f"point {index + 1} at {after / NANOSECONDS:.9g} s"
            )
    if trajectory.stamp_ns != 0 and trajectory.stamp_ns + times[-1] < now_ns:
        raise TrajectoryRejected(
            f"the trajectory (stamp {trajectory.stamp_ns / NANOSECONDS:.3f} s) ended at "
            f"{(trajectory.stamp_ns + times[-1]) / NANOSECONDS:.3f} s, which is before now "
            f"({now_ns / NANOSECONDS:.3f} s); stamp 0 means now"
        )


def _validate_point(index: int, point: TrajectoryPoint, joints: int) -> None:
    for name in _FIELDS:
        values = getattr(point, name)
        optional = name != "positions"
        if len(values) != joints and not (optional and len(values) == 0):
            raise TrajectoryRejected(f"point {index} has {len(values)} {name} for {joints} joints")
        if len(values) and not np.all(np.abs(np.asarray(values, dtype=float)) <= LARGEST_MAGNITUDE):
            raise TrajectoryRejected(f"point {index} has {name} that are not finite: {list(values)}")
    if len(point.effort):
        raise TrajectoryRejected(f"point {index} has efforts, but the controller commands positions only")


def _validate_end(trajectory: JointTrajectory) -> None:
    for name, velocity in zip(trajectory.joint_names, trajectory.points[-1].velocities, strict=False):
        if abs(velocity) > END_VELOCITY_TOLERANCE:
            raise TrajectoryRejected(
                f"the last point must be at rest: joint '{name}' has velocity {velocity:.9g} "
                "(set allow_nonzero_velocity_at_trajectory_end to accept it)"
            )


def segment_coefficients(start: JointState, end: JointState, duration: float) -> np.ndarray:
    """Polynomial from `start` to `end` in `duration` [s] > 0, shape (6, joints), lowest power first.

    The degree depends on what both ends give: linear for positions only, cubic with velocities, quintic with
    accelerations. Unused coefficients are zero.
    """
    p0, p1, t = start.positions, end.positions, duration
    c = np.zeros((6, len(p0)))
    c[0] = p0
    if start.velocities is None or end.velocities is None:
        c[1] = (p1 - p0) / t
        return c
    v0, v1, gap = start.velocities, end.velocities, p1 - p0
    c[1] = v0
    if start.accelerations is None or end.accelerations is None:
        c[2] = (3 * gap - (2 * v0 + v1) * t) / t**2
        c[3] = (-2 * gap + (v0 + v1) * t) / t**3
        return c
    a0, a1 = start.accelerations, end.accelerations
    c[2] = a0 / 2
    c[3] = (20 * gap - (12 * v0 + 8 * v1) * t - (3 * a0 - a1) * t**2) / (2 * t**3)
    c[4] = (-30 * gap + (16 * v0 + 14 * v1) * t + (3 * a0 - 2 * a1) * t**2) / (2 * t**4)
    c[5] = (12 * gap - 6 * (v0 + v1) * t + (a1 - a0) * t**2) / (2 * t**5)
    return c


@dataclass(frozen=True)
class _Segment:
    """One polynomial piece: `coefficients` (6, joints) in seconds since `start_ns`, valid before `end_ns`."""

    start_ns: int
    end_ns: int
    coefficients: np.ndarray

    def positions(self, now_ns: int, out: np.ndarray) -> np.ndarray:
        """Write the positions at `now_ns` into `out` (Horner, no allocation) and return it."""
        t = (now_ns - self.start_ns) / NANOSECONDS
        c = self.coefficients
        np.copyto(out, c[5])
        for power in (4, 3, 2, 1, 0):
            np.multiply(out, t, out=out)
            np.add(out, c[power], out=out)
        return out

    def state(self, now_ns: int) -> JointState:
        """Positions, velocities and accelerations at `now_ns`."""
        t = (now_ns - self.start_ns) / NANOSECONDS
        c = self.coefficients
        order = np.arange(6.0)
        powers = t**order
        velocities = (order[1:] * powers[:5]) @ c[1:]
        accelerations = (order[2:] * order[1:5] * powers[:4]) @ c[2:]
        return JointState(powers @ c, velocities, accelerations)


@dataclass(frozen=True)
class _Rest:
    """The last point, held forever. Its state keeps the derivatives that the message gave for that point."""

    knot: JointState

    def positions(self, now_ns: int, out: np.ndarray) -> np.ndarray:
        np.copyto(out, self.knot.positions)
        return out

    def state(self, now_ns: int) -> JointState:
        zeros = np.zeros_like(self.knot.positions)
        velocities, accelerations = self.knot.velocities, self.knot.accelerations
        return JointState(
            self.knot.positions,
            zeros if velocities is None else velocities,
            zeros if accelerations is None else accelerations,
        )


@dataclass
class _Track:
    """The segments of a message whose start time is known, in order, then the rest at its last point."""

    segments: list[_Segment]
    rest: _Rest
    cursor: int = 0

    def piece_at(self, now_ns: int) -> _Segment | _Rest:
        """The segment to execute now; time must not decrease between calls."""
        while self.cursor < len(self.segments) and now_ns >= self.segments[self.cursor].end_ns:
            self.cursor += 1
        return self.segments[self.cursor] if self.cursor < len(self.segments) else self.rest


@dataclass(frozen=True)
class _PendingTrajectory:
    """A validated message in the controller's joint order, waiting for the control cycle that starts it."""

    stamp_ns: int
    times_ns: list[int]
    knots: list[JointState]

    def track(self, now_ns: int, before_ns: int, before: JointState, ahead_ns: int) -> _Track:
        """Fix the start time and compute every segment, the first one from the state before the message.

        Without velocities that one begins `ahead_ns` earlier: the original counts from the cycle before the one for
        which its last set point was.
        """
        start_ns = self.stamp_ns or now_ns
        times = [start_ns + t for t in self.times_ns]
        knots = self.knots
        if now_ns < times[0]:
            before_ns -= ahead_ns if knots[0].velocities is None else 0
            times = [before_ns, *times]
            knots = [_with_derivatives_of(before, knots[0]), *knots]
        segments = [
            _Segment(t0, t1, segment_coefficients(start, end, (t1 - t0) / NANOSECONDS))
            for (t0, start), (t1, end) in pairwise(zip(times, knots, strict=True))
        ]
        return _Track(segments, _Rest(knots[-1]))


def _with_derivatives_of(state: JointState, knot: JointState) -> JointState:
    """Give `state` zero derivatives where only `knot` has them, so that the degree is the knot's."""
    zeros = np.zeros_like(state.positions)
    velocities, accelerations = state.velocities, state.accelerations
    if velocities is None and knot.velocities is not None:
        velocities = zeros
    if accelerations is None and knot.accelerations is not None:
        accelerations = zeros
    return JointState(state.positions, velocities, accelerations)


class JointTrajectoryController:
    """Turns trajectory messages into position set points, one per control cycle.

    Joints are always reported in the order of `joint_names`; units are those of the joints (rad, m). Not thread-safe:
    the owner serializes `accept`, `update` and `hold`.

    Attributes:
        interpolate_from_desired_state: a new message starts from the last set point (True), or from the measured state
            (False; every message then starts with a step back by the tracking error).
        allow_nonzero_velocity_at_trajectory_end: accept messages whose last point is not at rest.
    """

    def __init__(
        self,
        joint_names: Sequence[str],
        positions: Sequence[float],
        *,
        interpolate_from_desired_state: bool = True,
        allow_nonzero_velocity_at_trajectory_end: bool = False,
        period_ns: int = 0,
    ) -> None:
        """Hold `positions`. `period_ns` [ns]: of the control cycles; it counts only where velocities are left out."""
        self.joint_names, self._period_ns = tuple(joint_names), period_ns
        self.interpolate_from_desired_state = interpolate_from_desired_state
        self.allow_nonzero_velocity_at_trajectory_end = allow_nonzero_velocity_at_trajectory_end
        self._command = np.empty(len(self.joint_names))
        self.hold(positions)

    def hold(self, positions: ArrayLike) -> None:
        """Discard every message and command `positions`, shape (joints,), until the next one."""
        held = np.array(positions, dtype=float)
        if held.shape != self._command.shape:
            raise ValueError(f"{len(self.joint_names)} joints cannot hold positions of shape {held.shape}")
        self._command[:] = held
        self._pending: _PendingTrajectory | None = None
        self._track = _Track([], _Rest(JointState(held)))
        self._commanded_at_ns: int | None = None

    @property
    def command(self) -> np.ndarray:
        """The last set point, shape (joints,); a copy."""
        return self._command.copy()

    @property
    def desired_state(self) -> JointState:
        """The last set point with its velocity and acceleration."""
        if self._commanded_at_ns is None:
            return self._track.rest.state(0)
        return self._track.piece_at(self._commanded_at_ns).state(self._commanded_at_ns)

    def accept(self, trajectory: JointTrajectory, now_ns: int) -> None:
        """Replace whatever is being executed by `trajectory`, from the next `update` on.

        The old message is discarded at once, even when the new one starts in the future: until then the joints
        approach its first point.

        Raises:
            TrajectoryRejected: nothing has changed.
        """
        validate(
            trajectory,
            self.joint_names,
            now_ns,
            allow_nonzero_velocity_at_trajectory_end=self.allow_nonzero_velocity_at_trajectory_end,
        )
        given = list(trajectory.joint_names)
        order = [given.index(name) for name in self.joint_names]
        knots = [_knot(point, order) for point in trajectory.points]
        times_ns = [point.time_from_start_ns for point in trajectory.points]
        self._pending = _PendingTrajectory(trajectory.stamp_ns, times_ns, knots)

    def update(self, now_ns: int, measured: JointState | None = None) -> np.ndarray:
        """The set point at `now_ns`, shape (joints,); times of successive calls must not decrease.

        `measured` is used only where a message starts from the measured state. The returned array is the controller's
        own buffer: the next call overwrites it.
        """
        if self._pending is not None:
            self._track = self._pending.track(now_ns, *self._state_before(now_ns, measured), self._period_ns)
            self._pending = None
        self._commanded_at_ns = now_ns
        return self._track.piece_at(now_ns).positions(now_ns, self._command)

    def _state_before(self, now_ns: int, measured: JointState | None) -> tuple[int, JointState]:
        """When [ns] and where the joints were before the new message."""
        if self.interpolate_from_desired_state:
            return (now_ns if self._commanded_at_ns is None else self._commanded_at_ns), self.desired_state
        if measured is None:
            raise ValueError("interpolate_from_desired_state is false: update() needs the measured state")
        return now_ns, measured


def _knot(point: TrajectoryPoint, order: Sequence[int]) -> JointState:
    """The point in the controller's joint order."""

    def ordered(values: Sequence[float]) -> np.ndarray:
        return np.array([values[i] for i in order], dtype=float)

    velocities, accelerations = (
        ordered(values) if len(values) else None for values in (point.velocities, point.accelerations)
    )
    return JointState(ordered(point.positions), velocities, accelerations)
