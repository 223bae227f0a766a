"""The safety gate: may this chunk move the robot? It passes whole or not at all. Free of ROS and torch.

Three checks, each a function from data to violations: `check_form` (what the message says about itself), `check_age`
(how old its observation is) and `check_motion` (what the joints would do). Nothing is clipped or mended here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from qwen_vla_ros.joint_path import JointPath

POSITION_TOLERANCE = 1e-6  # [rad | m] rounding, far below the resolution of any encoder
SPEED_TOLERANCE = 1e-6  # [rad/s | m/s]


class Reason(IntEnum):
    """Why a chunk was refused or the arm holds; the numbers are those of qwen_vla_msgs/msg/ChunkReport."""

    NON_FINITE = 1
    WRONG_SHAPE = 2
    WRONG_JOINTS = 3
    WRONG_CONTROL_MODE = 4
    WRONG_EMBODIMENT = 5
    STALE = 6
    POSITION_LIMIT = 7
    VELOCITY_LIMIT = 8
    START_JUMP = 9
    STEP_JUMP = 10
    UNREACHABLE = 11
    NO_JOINT_STATE = 12
    NOT_ACTIVE = 13
    OUT_OF_WORKSPACE = 14
    WRONG_ORDER = 15
    POLICY_SILENT = 16
    STOPPED = 17
    JOINT_STATE_LOST = 18
    NO_CHUNK = 19
    CANCELED = 20
    DEACTIVATED = 21
    INTERNAL = 22
    REPLACED = 23


@dataclass(frozen=True)
class Violation:
    """One reason against a chunk, with the value and the limit in words."""

    reason: Reason
    message: str


class Refused(Exception):
    """A chunk or a motion that may not be executed.

    Attributes:
        violations: every reason found, never empty.
    """

    def __init__(self, violations: Iterable[Violation]) -> None:
        """Join the reasons into the text of the exception."""
        self.violations = tuple(dict.fromkeys(violations))
        super().__init__("; ".join(v.message for v in self.violations))

    @classmethod
    def because(cls, reason: Reason, message: str) -> Refused:
        """Refuse for one reason."""
        return cls([Violation(reason, message)])

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The distinct reasons, in the order in which they were found."""
        return tuple(dict.fromkeys(v.reason for v in self.violations))


@dataclass(frozen=True)
class Chunk:
    """A policy's prediction as it arrived; `data` is still the flat list of the message.

    Attributes:
        stamp_ns: ROS time of the observation [ns].
        frame_id: base frame of the robot.
        period: time between two rows [s].
        data: horizon * len(channel_names) values, row by row, physical units.
    """

    chunk_id: int
    stamp_ns: int
    frame_id: str
    embodiment: str
    control_mode: str
    channel_names: tuple[str, ...]
    instruction: str
    horizon: int
    execution_horizon: int
    period: float
    data: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """(horizon, channels); only after check_form found nothing."""
        return self.data.reshape(self.horizon, len(self.channel_names))


@dataclass(frozen=True)
class ChunkRules:
    """What a chunk for this robot must say about itself."""

    embodiment: str
    control_mode: str
    channel_names: tuple[str, ...]
    period: float
    max_horizon: int
    base_frame: str


@dataclass(frozen=True)
class MotionRules:
    """How the joints may move. All arrays are (joints,), units [rad], [m] and per second.

    Attributes:
        lower, upper: position limits.
        speed: largest speed.
        start_jump: largest distance from where the joint is to the first row.
        step: largest distance between two rows.
    """

    joints: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    speed: np.ndarray
    start_jump: np.ndarray
    step: np.ndarray


def check_form(chunk: Chunk, rules: ChunkRules) -> list[Violation]:
    """Check names, sizes and finiteness; with an empty answer `chunk.rows` is safe to use."""
    found = []

    def expect(good: bool, reason: Reason, message: str) -> None:
        if not good:
            found.append(Violation(reason, message))

    expect(
        chunk.embodiment == rules.embodiment,
        Reason.WRONG_EMBODIMENT,
        f"chunk is for embodiment '{chunk.embodiment}', this robot is '{rules.embodiment}'",
    )
    expect(
        chunk.control_mode == rules.control_mode,
        Reason.WRONG_CONTROL_MODE,
        f"control mode '{chunk.control_mode}', expected '{rules.control_mode}'",
    )
    expect(
        chunk.frame_id == rules.base_frame,
        Reason.WRONG_EMBODIMENT,
        f"chunk is in frame '{chunk.frame_id}', the base frame is '{rules.base_frame}'",
    )
    expect(
        chunk.channel_names == rules.channel_names,
        Reason.WRONG_JOINTS,
        f"channels are {list(chunk.channel_names)}, expected {list(rules.channel_names)} in this order",
    )
    expect(
        1 <= chunk.horizon <= rules.max_horizon,
        Reason.WRONG_SHAPE,
        f"horizon {chunk.horizon} is not in 1..{rules.max_horizon}",
    )
    expect(
        1 <= chunk.execution_horizon <= chunk.horizon,
        Reason.WRONG_SHAPE,
        f"execution_horizon {chunk.execution_horizon} is not in 1..{chunk.horizon} (horizon)",
    )
    expect(
        bool(np.isclose(chunk.period, rules.period, rtol=1e-6)),  # False for NaN
        Reason.WRONG_SHAPE,
        f"period {chunk.period} s, expected {rules.period} s",
    )
    expect(
        chunk.data.ndim == 1 and chunk.data.size == chunk.horizon * len(rules.channel_names),
        Reason.WRONG_SHAPE,
        f"{chunk.data.size} values, expected {chunk.horizon} steps x {len(rules.channel_names)} channels",
    )
    bad = np.flatnonzero(~np.isfinite(chunk.data))
    expect(bad.size == 0, Reason.NON_FINITE, f"{bad.size} values are NaN or infinite, the first at index {bad[:1]}")
    return found


def check_age(stamp_ns: int, now_ns: int, max_age: float, max_future: float) -> list[Violation]:
    """Check the age of the observation against ROS time; limits in seconds."""
    if stamp_ns <= 0:
        return [Violation(Reason.STALE, "the stamp of the observation is unset")]
    age = (now_ns - stamp_ns) / 1e9
    if age > max_age:
        return [Violation(Reason.STALE, f"the observation is {age:.2f} s old (limit {max_age:.2f} s)")]
    if age < -max_future:
        return [
            Violation(
                Reason.STALE,
                f"the observation lies {-age:.2f} s in the future (limit {max_future:.2f} s); "
                "are the clocks synchronised and is use_sim_time the same everywhere?",
            )
        ]
    return []


def check_motion(path: JointPath, rules: MotionRules) -> list[Violation]:
    """Check what the joints would do, between the rows of the path as well.

    Row 0 of the path is where the joints are. A joint that is beyond a limit there may move back, never farther out.
    """
    if path.joints != rules.joints:
        return [Violation(Reason.WRONG_JOINTS, f"joints are {list(path.joints)}, expected {list(rules.joints)}")]
    if not (np.isfinite(path.positions).all() and np.isfinite(path.velocities).all()):
        return [Violation(Reason.NON_FINITE, "the joint path has values that are NaN or infinite")]
    if path.steps < 1:
        return [Violation(Reason.WRONG_SHAPE, "the joint path has no step")]

    jumps = np.abs(np.diff(path.positions, axis=0))
    found = _excess(Reason.START_JUMP, "first step", jumps[:1], rules.start_jump, POSITION_TOLERANCE, rules.joints)
    found += _excess(Reason.STEP_JUMP, "motion", jumps[1:], rules.step, POSITION_TOLERANCE, rules.joints, first_step=1)
    found += _excess(Reason.VELOCITY_LIMIT, "speed", path.peak_speeds(), rules.speed, SPEED_TOLERANCE, rules.joints)
    return found + _position_violations(path, rules)


def check_workspace(points: np.ndarray, lower: Sequence[float], upper: Sequence[float]) -> list[Violation]:
    """Check end-effector positions (steps + 1, 3) [m] in the base frame against a box.

    Row 0 is where the end effector is; from outside it may come back, never go farther out.
    """
    points, lower, upper = (np.asarray(a, float) for a in (points, lower, upper))
    outside = np.maximum(np.maximum(lower - points, points - upper), 0.0)
    step, axis = _first(outside[1:] > outside[:-1] + POSITION_TOLERANCE)
    if step is None:
        return []
    return [
        Violation(
            Reason.OUT_OF_WORKSPACE,
            f"end effector at step {step}: {'xyz'[axis]} = {points[step + 1, axis]:.3f} m "
            f"is outside the workspace {lower[axis]:.3f} .. {upper[axis]:.3f} m",
        )
    ]


def _position_violations(path: JointPath, rules: MotionRules) -> list[Violation]:
    beyond_at_row = np.maximum(np.maximum(path.positions - rules.upper, rules.lower - path.positions), 0.0)
    low, high = path.extents()
    beyond_in_step = np.maximum(np.maximum(high - rules.upper, rules.lower - low), 0.0)
    farther_out = beyond_in_step > beyond_at_row[:-1] + POSITION_TOLERANCE
    step, joint = _first(farther_out)
    if step is None:
        return []
    worst = high if high[step, joint] > rules.upper[joint] else low
    return [
        Violation(
            Reason.POSITION_LIMIT,
            f"joint '{rules.joints[joint]}' at step {step}: {worst[step, joint]:.4f} is outside "
            f"{rules.lower[joint]:.4f} .. {rules.upper[joint]:.4f}",
        )
    ]


def _excess(
    reason: Reason,
    what: str,
    values: np.ndarray,
    limits: np.ndarray,
    tolerance: float,
    joints: Sequence[str],
    first_step: int = 0,
) -> list[Violation]:
    """Report where (steps, joints) values exceed (joints,) limits: one violation, the first place, and how many."""
    over = values > limits + tolerance
    step, joint = _first(over)
    if step is None:
        return []
    more = f" (and {over.sum() - 1} more)" if over.sum() > 1 else ""
    return [
        Violation(
            reason,
            f"joint '{joints[joint]}' at step {step + first_step}: {what} {values[step, joint]:.4f} "
            f"over the limit {limits[joint]:.4f}{more}",
        )
    ]


def _first(mask: np.ndarray) -> tuple[int, int] | tuple[None, None]:
    places = np.argwhere(mask)
    return (int(places[0, 0]), int(places[0, 1])) if len(places) else (None, None)
