# SPDX-License-Identifier: Apache-2.0
"""Six kinds of arm motion as geometry, and the joint trajectories that execute them.

The paper has six motion templates and does not publish them; these are ours: move along an axis, rotate about an axis,
reach a position, follow an arc, set the gripper, and a sequence of several of these. All directions are those of the
arm's base link (REP-103: x forward, y left, z up), all lengths whole centimeters and all angles whole degrees, so that
an instruction can state exactly what is done. Every step starts and ends at rest with minimum-jerk timing (Flash and
Hogan, J. Neuroscience 5(7), 1985): s(τ) = 10τ³ − 15τ⁴ + 6τ⁵. Collisions are not checked; the workspace box is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Embodiment, Kinematics, KinematicsError

TEMPLATES = ("move", "turn", "reach", "arc", "gripper", "sequence")
DIRECTIONS = {
    "forward": (1, 0, 0),
    "backward": (-1, 0, 0),
    "left": (0, 1, 0),
    "right": (0, -1, 0),
    "up": (0, 0, 1),
    "down": (0, 0, -1),
}
AXES = ("x", "y", "z")  # of rotations and arcs, by the right-hand rule
PLACES = {"depth": ("near", "far"), "side": ("right", "center", "left"), "height": ("low", "high")}
SHARES = {"near": 0.25, "far": 0.75, "right": 0.2, "center": 0.5, "left": 0.8, "low": 0.25, "high": 0.75}
PACES = {"quickly": (1.0, 1.2), "": (1.2, 1.8), "slowly": (1.8, 2.6)}  # duration relative to the shortest possible one

CM = 0.01
MAX_TIP_SPEED = 0.25  # [m/s], the limit of collaborative operation in ISO 10218-1
MAX_TURN_SPEED = 1.2  # [rad/s]
SHORTEST_STEP = 0.4  # [s] keeps short moves slow
SHORTEST_GRIP = 0.5  # [s] from closed to open, even if the joint is faster
SPEED_SHARE = 0.9  # of the URDF velocity limits
KNOT_DISTANCE, KNOT_ANGLE = 0.01, 0.1  # [m], [rad] between two solutions of the inverse kinematics
CHECKED = np.linspace(0, 1, 101)  # times at which limits are checked
ATTEMPTS = 200
REACH_SAMPLES = 2000


class MotionError(ValueError):
    """A robot that cannot execute the requested motions."""


class Infeasible(Exception):
    """This motion violates the workspace, a limit or the available time; another one is drawn."""


@dataclass(frozen=True)
class Move:
    """Straight along a direction of the base, with constant orientation. distance: whole centimeters."""

    direction: str
    centimeters: int

    @property
    def size(self) -> tuple[float, float]:
        return self.centimeters * CM, 0.0

    def pose(self, start: np.ndarray, share: float) -> np.ndarray:
        return _moved(start, np.array(DIRECTIONS[self.direction]) * self.centimeters * CM * share)


@dataclass(frozen=True)
class Turn:
    """Rotation about an axis of the base through the tip; degrees by the right-hand rule."""

    axis: str
    degrees: int

    @property
    def size(self) -> tuple[float, float]:
        return 0.0, abs(np.radians(self.degrees))

    def pose(self, start: np.ndarray, share: float) -> np.ndarray:
        pose = start.copy()
        pose[:3, :3] = _rotation(self.axis, self.degrees * share) @ start[:3, :3]
        return pose


@dataclass(frozen=True)
class Reach:
    """Straight to a point in the base frame [cm], with constant orientation. length: of the path [m].

    place: depth, side and height of the point in the workspace, if it is named.
    """

    point: tuple[int, int, int]
    length: float
    place: tuple[str, str, str] | None = None

    @property
    def size(self) -> tuple[float, float]:
        return self.length, 0.0

    def pose(self, start: np.ndarray, share: float) -> np.ndarray:
        return _moved(start, share * (np.array(self.point) * CM - start[:3, 3]))


@dataclass(frozen=True)
class Arc:
    """Part of a circle about an axis of the base, its center in a direction from the tip; constant orientation."""

    axis: str
    center: str
    centimeters: int
    degrees: int

    @property
    def size(self) -> tuple[float, float]:
        return self.centimeters * CM * abs(np.radians(self.degrees)), 0.0

    def pose(self, start: np.ndarray, share: float) -> np.ndarray:
        to_center = np.array(DIRECTIONS[self.center]) * self.centimeters * CM
        return _moved(start, to_center - _rotation(self.axis, self.degrees * share) @ to_center)


@dataclass(frozen=True)
class Grip:
    """Set the gripper to an opening in percent (0 closed, 100 open); the arm holds still."""

    percent: int
    size = (0.0, 0.0)

    def pose(self, start: np.ndarray, share: float) -> np.ndarray:
        return start


@dataclass(frozen=True)
class Return:
    """Straight back to the start of the sequence. length: of the path [m]."""

    origin: tuple[float, float, float]
    length: float

    @property
    def size(self) -> tuple[float, float]:
        return self.length, 0.0

    def pose(self, start: np.ndarray, share: float) -> np.ndarray:
        return _moved(start, share * (np.array(self.origin) - start[:3, 3]))


Step = Move | Turn | Reach | Arc | Grip | Return


@dataclass(frozen=True)
class Segment:
    """One step as joint positions over path parameter s, and its duration [s]."""

    joints: Callable[[np.ndarray], np.ndarray]
    openings: tuple[float, float]
    duration: float


@dataclass(frozen=True)
class Motion:
    """A feasible motion of one arm: its steps, pace, and joint positions over time."""

    template: str
    arm: int
    steps: tuple[Step, ...]
    pace: str
    segments: tuple[Segment, ...]

    @property
    def duration(self) -> float:
        """[s]"""
        return sum(segment.duration for segment in self.segments)

    def count(self, rate_hz: float) -> int:
        """Number of samples after the first until the end of the motion."""
        return max(1, int(np.ceil(self.duration * rate_hz - 1e-6)))

    def sample(self, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions (count + 1, n) and gripper openings (count + 1,) 0…1, from the start; held at the end."""
        times = np.arange(self.count(rate_hz) + 1) / rate_hz
        ends = np.cumsum([segment.duration for segment in self.segments])
        which = np.minimum(np.searchsorted(ends, times, side="right"), len(ends) - 1)
        joints, openings = [], []
        for time, number in zip(times, which, strict=True):
            segment = self.segments[number]
            share = minimum_jerk(min((time - ends[number] + segment.duration) / segment.duration, 1.0))
            joints.append(segment.joints(share))
            openings.append(segment.openings[0] + share * (segment.openings[1] - segment.openings[0]))
        return np.array(joints), np.array(openings)


class Planner:
    """Draws motions of one arm from home, within its limits, its workspace and the available time."""

    def __init__(self, embodiment: Embodiment, arm: int, max_seconds: float) -> None:
        self.embodiment, self.arm, self.max_seconds = embodiment, arm, max_seconds
        self.kinematics = Kinematics(embodiment, arm)
        self.start = self.kinematics.home
        self.pose = self.kinematics.forward(self.start)
        self.speed = self.kinematics.velocity * SPEED_SHARE * embodiment.safety.max_joint_speed_fraction
        self.gripper = embodiment.arms[arm].gripper
        position = embodiment.home[self.gripper.joint] if self.gripper else 0.0
        self.opening = float(np.clip(embodiment.gripper_from_joint(position, arm), 0, 1)) if self.gripper else 0.0
        self.low, self.high = self._workspace()

    def draw(self, template: str, rng: np.random.Generator) -> Motion:
        """A random feasible motion; MotionError if ATTEMPTS draws give none."""
        for _ in range(ATTEMPTS):
            try:
                steps = getattr(self, f"_{template}")(rng)
                return self._plan(template, steps, rng)
            except (Infeasible, KinematicsError):
                continue
        raise MotionError(
            f"arm {self.embodiment.arms[self.arm].name!r} of {self.embodiment.name!r} cannot execute any {template!r} "
            f"motion from home within its limits and {self.max_seconds:g} s ({ATTEMPTS} tried)"
        )

    def poses(self, joints: np.ndarray) -> np.ndarray:
        """(N, 4, 4) tip poses in the arm's base link."""
        return np.stack([self.kinematics.forward(q) for q in joints])

    # --- drawing steps --------------------------------------------------------------------------------------------

    def _move(self, rng: np.random.Generator) -> tuple[Step, ...]:
        return (Move(_choose(rng, DIRECTIONS), int(rng.integers(2, self._longest()))),)

    def _turn(self, rng: np.random.Generator) -> tuple[Step, ...]:
        degrees = 5 * int(rng.integers(2, 19))  # 10…90
        return (Turn(_choose(rng, AXES), degrees if rng.random() < 0.5 else -degrees),)

    def _reach(self, rng: np.random.Generator) -> tuple[Step, ...]:
        place = None
        shares = rng.uniform(0, 1, 3)
        if rng.random() < 0.5:
            place = tuple(_choose(rng, names) for names in PLACES.values())
            shares = np.array([SHARES[name] for name in place])
        point = np.round((self.low + shares * (self.high - self.low)) / CM).astype(int)
        length = float(np.linalg.norm(point * CM - self.pose[:3, 3]))
        if length < 2 * CM:
            raise Infeasible
        x, y, z = point.tolist()
        return (Reach((x, y, z), length, place),)

    def _arc(self, rng: np.random.Generator) -> tuple[Step, ...]:
        axis = _choose(rng, AXES)
        centers = [name for name, direction in DIRECTIONS.items() if direction[AXES.index(axis)] == 0]
        degrees = int(_choose(rng, (90, 180, 360))) * (1 if rng.random() < 0.5 else -1)
        return (Arc(axis, _choose(rng, centers), int(rng.integers(2, max(4, self._longest() // 2))), degrees),)

    def _gripper(self, rng: np.random.Generator) -> tuple[Step, ...]:
        if self.gripper is None:
            raise Infeasible
        return (Grip(int(_choose(rng, (0, 100, *range(0, 101, 10))))),)

    def _sequence(self, rng: np.random.Generator) -> tuple[Step, ...]:
        """Two or three moves along different axes, optionally the gripper, optionally back to the start."""
        axes = rng.permutation(3)[: int(rng.integers(2, 4))]
        pairs = list(DIRECTIONS)
        longest = max(4, self._longest() // 2)
        moves = [Move(pairs[2 * axis + rng.integers(2)], int(rng.integers(2, longest))) for axis in axes]
        steps: list[Step] = [*moves]
        if self.gripper is not None and rng.random() < 0.4:
            steps.append(Grip(0 if self.opening >= 0.5 else 100))
        if rng.random() < 0.5:
            away = sum(np.array(DIRECTIONS[move.direction]) * move.centimeters for move in moves) * CM
            steps.append(Return(tuple(self.pose[:3, 3]), float(np.linalg.norm(away))))
        return tuple(steps)

    def _longest(self) -> int:
        """One more than the longest move that is drawn [cm]: three quarters of the workspace's longest side."""
        return max(4, int(0.75 * (self.high - self.low).max() / CM))

    # --- planning ------------------------------------------------------------------------------------

    def _plan(self, template: str, steps: tuple[Step, ...], rng: np.random.Generator) -> Motion:
        pace = _choose(rng, PACES)
        factor = rng.uniform(*PACES[pace])
        self._check(steps, self.max_seconds / factor)
        joints, pose, opening, left = self.start, self.pose, self._first_opening(steps), self.max_seconds
        segments = []
        for step in steps:
            path, joints = self._path(step, pose, joints)
            wanted = step.percent / 100 if isinstance(step, Grip) else opening
            duration = factor * max(self._shortest(step), self._joint_time(path), self._gripper_time(wanted - opening))
            left -= duration
            if left < 0 or duration <= 0:
                raise Infeasible
            segments.append(Segment(path, (opening, wanted), duration))
            pose, opening = step.pose(pose, 1.0), wanted
        return Motion(template, self.arm, steps, pace, tuple(segments))

    def _check(self, steps: tuple[Step, ...], seconds: float) -> None:
        """Infeasible if the tip's speed or the workspace exclude the steps: a cheap check before inverse kinematics."""
        if sum(self._shortest(step) for step in steps) > seconds:
            raise Infeasible
        pose = self.pose
        for step in steps:
            places = np.array([step.pose(pose, share)[:3, 3] for share in CHECKED[::4]])
            if (places < self.low - 1e-6).any() or (places > self.high + 1e-6).any():
                raise Infeasible
            pose = step.pose(pose, 1.0)

    def _first_opening(self, steps: tuple[Step, ...]) -> float:
        """Home's, but a motion of only the gripper starts at the farther end."""
        if len(steps) == 1 and isinstance(steps[0], Grip):
            return 0.0 if steps[0].percent >= 50 else 1.0
        return self.opening

    def _path(self, step: Step, pose: np.ndarray, joints: np.ndarray) -> tuple[Callable, np.ndarray]:
        """Joint positions over s in 0…1, and the last ones; Infeasible outside the joint limits."""
        length, angle = step.size
        if not (length or angle):
            return (lambda share: np.broadcast_to(joints, (*np.shape(share), len(joints)))), joints
        knots = np.linspace(0, 1, 2 + max(8, int(length / KNOT_DISTANCE), int(angle / KNOT_ANGLE)))
        poses = [step.pose(pose, share) for share in knots[1:]]
        solved = self._follow(poses, joints)
        spline = CubicSpline(knots, np.vstack([joints, solved]))
        dense = spline(CHECKED)
        if (dense < self.kinematics.lower - 1e-6).any() or (dense > self.kinematics.upper + 1e-6).any():
            raise Infeasible
        lower, upper = self.kinematics.lower, self.kinematics.upper
        return (lambda share: np.clip(spline(share), lower, upper)), solved[-1]

    def _follow(self, poses: Sequence[np.ndarray], joints: np.ndarray) -> np.ndarray:
        """Joints for tip poses; an arm with fewer than six joints follows only the positions."""
        if len(joints) >= 6 or np.allclose(poses[0][:3, 3], poses[-1][:3, 3]):
            return self.kinematics.follow(poses, joints)
        return follow_positions(self.kinematics, np.array([pose[:3, 3] for pose in poses]), joints)

    def _shortest(self, step: Step) -> float:
        """Shortest duration [s] within the limits of the tip."""
        length, angle = step.size
        moving = SHORTEST_STEP if length or angle else 0.0
        return max(moving, PEAK * length / MAX_TIP_SPEED, PEAK * angle / MAX_TURN_SPEED)

    def _joint_time(self, path: Callable) -> float:
        """Shortest duration [s] within the velocity limits of the joints."""
        share = minimum_jerk(CHECKED)
        slope = np.abs(np.diff(path(share), axis=0)) / np.diff(CHECKED)[:, None]
        return float((slope / self.speed).max())

    def _gripper_time(self, change: float) -> float:
        if self.gripper is None or not change:
            return 0.0
        travel = abs(change * (self.gripper.open - self.gripper.closed))
        at_limit = PEAK * travel / (SPEED_SHARE * self.embodiment.limits[self.gripper.joint].velocity)
        return max(SHORTEST_GRIP * abs(change), at_limit)

    def _workspace(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the workspace box of the tip: the robot's own, or the range of most joint positions."""
        box = self.embodiment.safety.workspace
        if box is not None:
            return np.array(box.min), np.array(box.max)
        rng = np.random.default_rng(0)
        low, high = np.maximum(self.kinematics.lower, -np.pi), np.minimum(self.kinematics.upper, np.pi)
        reached = self.poses(rng.uniform(low, high, (REACH_SAMPLES, len(low))))[:, :3, 3]
        home = self.pose[:3, 3]
        return np.minimum(np.quantile(reached, 0.1, 0), home), np.maximum(np.quantile(reached, 0.9, 0), home)


PEAK = 1.875  # largest slope of minimum_jerk


def minimum_jerk(time: np.ndarray | float) -> np.ndarray:
    """Path parameter over normalized time, with zero velocity and acceleration at both ends."""
    time = np.asarray(time, np.float64)
    return time**3 * (10 + time * (6 * time - 15))


def follow_positions(kinematics: Kinematics, points: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Joint path (N, n) through tip positions (N, 3), each solved from the previous one; the orientation is free.

    Damped least squares on the position alone, with a numerical Jacobian. Infeasible if a point is out of reach.
    """
    path = []
    for point in points:
        for _ in range(60):
            error = point - kinematics.forward(joints)[:3, 3]
            if np.linalg.norm(error) < 1e-5:
                break
            shifted = joints + 1e-6 * np.eye(len(joints))
            here = kinematics.forward(joints)[:3, 3]
            jacobian = np.stack([(kinematics.forward(q)[:3, 3] - here) / 1e-6 for q in shifted], axis=1)
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(3), error)
            step *= min(1.0, 0.3 / max(np.abs(step).max(), 1e-12))
            joints = np.clip(joints + step, kinematics.lower, kinematics.upper)
        else:
            raise Infeasible
        path.append(joints)
    return np.array(path)


def _moved(start: np.ndarray, offset: np.ndarray) -> np.ndarray:
    pose = start.copy()
    pose[:3, 3] += offset
    return pose


def _rotation(axis: str, degrees: float) -> np.ndarray:
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


def _choose(rng: np.random.Generator, options):
    options = list(options)
    return options[int(rng.integers(len(options)))]
