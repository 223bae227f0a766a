# SPDX-License-Identifier: Apache-2.0
"""Checks of a joint path: jumps, speed, acceleration, position limits, and the workspace of the end effectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from embodiment_descriptions import Embodiment
from qwen_vla_control.gate.robot_state import Reference
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason, Violation

POSITION_TOLERANCE = 1e-6  # [rad | m] rounding, far below the resolution of any encoder
SPEED_TOLERANCE = 1e-6  # [rad/s | m/s]
# [rad] more than a servo lags behind at rest; farther from where its controller starts a joint was moved otherwise.
REFERENCE_NEAR = 0.1
ACCELERATION_TOLERANCE = 1e-3  # [rad/s² | m/s²] rounding, divided by the square of a short period


@dataclass(frozen=True)
class MotionRules:
    """How the joints may move. All arrays are (joints,), units [rad], [m] and per second.

    Attributes:
        lower, upper: position limits.
        speed: largest speed.
        start_jump: largest distance from the joint's position to the first row.
        step: largest distance between two rows.
        acceleration: largest acceleration, inf for none.
    """

    joints: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    speed: np.ndarray
    start_jump: np.ndarray
    step: np.ndarray
    acceleration: np.ndarray

    @classmethod
    def of(cls, embodiment: Embodiment) -> MotionRules:
        """Take the limits of the URDF, narrowed by the safety section of the YAML.

        The jump limits are angles and apply to the arm joints; a gripper may go from closed to open in one step and is
        bounded by its position and velocity limits.
        """
        joints = tuple(embodiment.joint_names)
        limits = [embodiment.limits[name] for name in joints]
        safety = embodiment.safety
        grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
        jump_of = dict.fromkeys(grippers, np.inf)
        return cls(
            joints=joints,
            lower=np.array([limit.lower for limit in limits]),
            upper=np.array([limit.upper for limit in limits]),
            speed=np.array([limit.velocity * safety.max_joint_speed_fraction for limit in limits]),
            start_jump=np.array([jump_of.get(name, safety.max_start_jump_rad) for name in joints]),
            step=np.array([jump_of.get(name, safety.max_step_rad) for name in joints]),
            acceleration=np.array([jump_of.get(name, safety.max_joint_acceleration or np.inf) for name in joints]),
        )


def check_motion(path: JointPath, rules: MotionRules) -> list[Violation]:
    """Check a joint path, between its rows as well.

    Row 0 of the path is where the joints are. A joint that starts beyond a limit may move back, never farther out.
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
    found += _excess(
        Reason.ACCELERATION_LIMIT,
        "acceleration",
        path.peak_accelerations(),
        rules.acceleration,
        ACCELERATION_TOLERANCE,
        rules.joints,
    )
    return found + _position_violations(path, rules)


def check_start(first: np.ndarray, measured: np.ndarray, rules: MotionRules) -> list[Violation]:
    """Check the distance from the measured positions to the first row (joints,) of a chunk."""
    jump = np.abs(first - measured)[None]
    return _excess(Reason.START_JUMP, "first step", jump, rules.start_jump, POSITION_TOLERANCE, rules.joints)


def check_reference(
    reference: Reference, measured: np.ndarray, rules: MotionRules, at_rest: bool = True
) -> list[Violation]:
    """Check that the joints are where their controllers would start from, or the next command would make them jump.

    What a gripper holds keeps it from where it was told to go: grippers are not compared. While joints move they lag
    behind, by no more than the start jump.
    """
    near = np.minimum(rules.start_jump, REFERENCE_NEAR) if at_rest else rules.start_jump
    limits = np.where(np.isfinite(rules.start_jump), near, np.inf)
    apart = np.abs(reference.positions - measured)
    over = apart > limits + POSITION_TOLERANCE
    if not over.any():
        return []
    joint = int(np.argmax(np.where(over, apart, 0.0)))
    more = f" (and {over.sum() - 1} more)" if over.sum() > 1 else ""
    text = (
        f"joint '{rules.joints[joint]}': its controller starts from {reference.positions[joint]:.4f} "
        f"({reference.sources[joint]}), but it is measured at {measured[joint]:.4f}, {apart[joint]:.4f} away "
        f"(limit {limits[joint]:.4f}){more}; was it moved by hand, or is the measurement wrong? Look at the robot, "
        "then call ~/resynchronize"
    )
    return [Violation(Reason.REFERENCE_MISMATCH, text)]


def check_workspace(points: np.ndarray, lower: ArrayLike, upper: ArrayLike) -> list[Violation]:
    """Check end-effector positions (steps + 1, 3) [m] in the base frame against a box.

    Row 0 is where the end effector is; if it starts outside, it may come back, never go farther out.
    """
    low, high = np.asarray(lower, float), np.asarray(upper, float)
    outside = np.maximum(np.maximum(low - points, points - high), 0.0)
    first = _first(outside[1:] > outside[:-1] + POSITION_TOLERANCE)
    if first is None:
        return []
    step, axis = first
    return [
        Violation(
            Reason.OUT_OF_WORKSPACE,
            f"end effector at step {step}: {'xyz'[axis]} = {points[step + 1, axis]:.3f} m "
            f"is outside the workspace {low[axis]:.3f} .. {high[axis]:.3f} m",
        )
    ]


def grown(lower: ArrayLike, upper: ArrayLike, point: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The smallest box around another one that holds a point (3,) with a margin beside and above it, none below [m]."""
    below = np.array([margin, margin, 0.0])
    return np.minimum(lower, point - below), np.maximum(upper, point + margin)


def _position_violations(path: JointPath, rules: MotionRules) -> list[Violation]:
    beyond_at_row = np.maximum(np.maximum(path.positions - rules.upper, rules.lower - path.positions), 0.0)
    low, high = path.extents()
    beyond_in_step = np.maximum(np.maximum(high - rules.upper, rules.lower - low), 0.0)
    farther_out = beyond_in_step > beyond_at_row[:-1] + POSITION_TOLERANCE
    first = _first(farther_out)
    if first is None:
        return []
    step, joint = first
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
    """Report (steps, joints) values that exceed (joints,) limits: one violation with the first and the count."""
    over = values > limits + tolerance
    first = _first(over)
    if first is None:
        return []
    step, joint = first
    more = f" (and {over.sum() - 1} more)" if over.sum() > 1 else ""
    return [
        Violation(
            reason,
            f"joint '{joints[joint]}' at step {step + first_step}: {what} {values[step, joint]:.4f} "
            f"over the limit {limits[joint]:.4f}{more}",
        )
    ]


def _first(mask: np.ndarray) -> tuple[int, int] | None:
    places = np.argwhere(mask)
    return (int(places[0, 0]), int(places[0, 1])) if len(places) else None
