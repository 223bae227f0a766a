# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of one arm (pinocchio), tip relative to the arm's base link.

The inverse is a Levenberg-Marquardt iteration on the pose error log6(T^-1 T_target) in the tip frame, damped by the
error itself as in Sugihara, "Solvability-Unconcerned Inverse Kinematics by the Levenberg-Marquardt Method", IEEE
Trans. Robotics 27(5), 2011: fast near a solution, stable near singularities. Position limits hold in every iterate.
"""

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike, NDArray

from embodiment_descriptions.config import Arm
from embodiment_descriptions.embodiment import Embodiment
from embodiment_descriptions.errors import EmbodimentError, KinematicsError
from embodiment_descriptions.urdf import Mimic, give_one_position, parse_urdf

Array = NDArray[np.float64]

POSITION_TOLERANCE = 1e-5  # [m]
ROTATION_TOLERANCE = 1e-4  # [rad]
MAX_ITERATIONS = 60
MAX_ITERATE_STEP = 0.5  # [rad or m], keeps an iterate inside the region where the linearization holds
MAX_BRANCH_STEP = 1.0  # [rad or m], a larger change between two poses of a path means another IK branch
DAMPING_FLOOR = 1e-9
RESTARTS = 64


class Kinematics:
    """Kinematics of one arm of an embodiment. Not thread-safe: pinocchio's data is reused."""

    def __init__(self, embodiment: Embodiment, arm: int = 0) -> None:
        """Build the reduced model; all joints outside the arm are locked, which does not affect its kinematics.

        Args:
            embodiment: the robot.
            arm: index into embodiment.arms.
        """
        if not 0 <= arm < len(embodiment.arms):
            raise ValueError(f"{embodiment.name!r} has {len(embodiment.arms)} arm(s); there is no arm {arm}")
        self.arm = embodiment.arms[arm]
        self.joint_names = self.arm.joints
        limits = [embodiment.limits[name] for name in self.joint_names]
        self.lower = np.array([limit.lower for limit in limits])
        self.upper = np.array([limit.upper for limit in limits])
        self.velocity = np.array([limit.velocity for limit in limits])
        self.home = np.array([embodiment.home[name] for name in self.joint_names])
        followers = _followers(embodiment.urdf, self.arm)
        self._model = _reduced_model(embodiment.urdf, (*self.joint_names, *followers))
        self._data = self._model.createData()
        self._factors, self._offsets = _expansion(self._model, self.joint_names, followers)
        self._tip = self._model.getFrameId(self.arm.tip_link)
        base = self._model.getFrameId(self.arm.base_link)
        pin.framesForwardKinematics(self._model, self._data, self._all(self._clip(self.home)))
        # With every joint outside the chain locked, the base link is fixed in the model's world.
        self._base = self._data.oMf[base].copy()
        self._base_inverse = self._base.inverse()

    def forward(self, q: ArrayLike) -> Array:
        """Return the (4, 4) pose of the tip in the base link for joint positions q (n,) [rad or m]."""
        pin.framesForwardKinematics(self._model, self._data, self._all(self._vector(q)))
        return (self._base_inverse * self._data.oMf[self._tip]).homogeneous

    def inverse(self, target: ArrayLike, q0: ArrayLike | None = None) -> Array:
        """Find joint positions that bring the tip to a pose, near q0 if that works, else from anywhere.

        Args:
            target: (4, 4) pose of the tip in the base link.
            q0: (n,) start of the search, home by default.

        Returns:
            (n,) joint positions within their limits.

        Raises:
            KinematicsError: no start reached the pose within POSITION_TOLERANCE and ROTATION_TOLERANCE.
        """
        (goal,) = self._goals([target])
        first = self._vector(self.home if q0 is None else q0)
        low, high = np.maximum(self.lower, -np.pi), np.minimum(self.upper, np.pi)
        random = np.random.default_rng(0)  # fixed seed: the same target gives the same result
        best = (first, math.inf, math.inf)
        for attempt in range(RESTARTS + 2):
            start = (first, self.home)[attempt] if attempt < 2 else random.uniform(low, high)
            q, error, rotation = self._solve(goal, self._clip(start), (self.lower, self.upper))
            if error <= POSITION_TOLERANCE and rotation <= ROTATION_TOLERANCE:
                return q
            if (error, rotation) < best[1:]:
                best = (q, error, rotation)
        raise self._unreachable(0, goal, best[1], best[2])

    def follow(self, targets: Sequence[ArrayLike] | Array, q0: ArrayLike) -> Array:
        """Find a continuous joint path through tip poses.

        Each pose is solved from the joints of the one before, so the path stays on the IK branch of q0. Position limits
        hold, but a joint that is beyond one at q0 may stay there or come back; velocity limits do not change the path,
        see speed_fractions.

        Args:
            targets: (N, 4, 4) poses of the tip in the base link.
            q0: (n,) joint positions now [rad or m].

        Returns:
            (N, n) joint positions.

        Raises:
            KinematicsError: a pose is out of reach, or reachable only on another IK branch; names step and error.
        """
        q = self._vector(q0)
        goals = self._goals(targets)
        path = np.empty((len(goals), len(q)))
        for step, goal in enumerate(goals):
            bounds = np.minimum(self.lower, q), np.maximum(self.upper, q)
            solution, error, rotation = self._solve(goal, q, bounds)
            if error > POSITION_TOLERANCE or rotation > ROTATION_TOLERANCE:
                raise self._unreachable(step, goal, error, rotation)
            jump = np.abs(solution - q)
            if jump.max() > MAX_BRANCH_STEP:
                name = self.joint_names[int(jump.argmax())]
                raise KinematicsError(
                    f"step {step}: joint {name!r} would have to move by {jump.max():.3f} in one step; "
                    "the path leaves its IK branch there, plan smaller steps",
                    step,
                    error,
                    rotation,
                )
            path[step] = q = solution
        return path

    def speed_fractions(self, path: ArrayLike, q0: ArrayLike, period: float) -> Array:
        """Return the mean speed of every step as a share of the URDF velocity limits, (N, n); above 1 is too fast.

        Args:
            path: (N, n) joint positions, the first to be reached one period after q0.
            q0: (n,) joint positions at the start.
            period: time per step [s].
        """
        steps = np.diff(np.vstack([self._vector(q0), np.asarray(path, dtype=np.float64)]), axis=0)
        return np.abs(steps) / (period * self.velocity)

    def _solve(self, goal: pin.SE3, q: Array, bounds: tuple[Array, Array]) -> tuple[Array, float, float]:
        """Iterate from q within bounds (n,) each.

        Returns:
            The best joints, the position error [m] and the rotation error [rad] there.
        """
        model, data, tip = self._model, self._data, self._tip
        best = (q, np.inf, np.inf)
        least = np.inf
        for _ in range(MAX_ITERATIONS):
            pin.computeJointJacobians(model, data, self._all(q))
            jacobian = pin.getFrameJacobian(model, data, tip, pin.LOCAL) @ self._factors
            offset = pin.updateFramePlacement(model, data, tip).actInv(goal)
            residual = pin.log6(offset).vector
            squared = float(residual @ residual)
            if squared < least:
                least = squared
                translation, rotation = offset.translation, residual[3:]
                best = (q, math.sqrt(translation @ translation), math.sqrt(rotation @ rotation))
                if best[1] <= POSITION_TOLERANCE and best[2] <= ROTATION_TOLERANCE:
                    break
            step = self._step(jacobian, residual, squared, q, bounds)
            if np.abs(step).max() < 1e-10:
                break
            q = q + step
        return best

    @staticmethod
    def _step(jacobian: Array, residual: Array, squared: float, q: Array, bounds: tuple[Array, Array]) -> Array:
        """Return the damped step; joints that push against a bound are held and the others solved again."""
        lower, upper = bounds
        free = np.ones(len(q), dtype=bool)
        while free.any():
            part = jacobian[:, free]
            normal = part.T @ part
            normal.flat[:: len(normal) + 1] += 0.5 * squared + DAMPING_FLOOR
            step = np.zeros(len(q))
            step[free] = np.linalg.solve(normal, part.T @ residual)
            longest = np.abs(step).max()
            if longest > MAX_ITERATE_STEP:
                step *= MAX_ITERATE_STEP / longest
            stuck = free & (((q <= lower) & (step < 0)) | ((q >= upper) & (step > 0)))
            if not stuck.any():
                return np.clip(q + step, lower, upper) - q
            free &= ~stuck
        return np.zeros(len(q))

    def _goals(self, targets: Sequence[ArrayLike] | Array) -> list[pin.SE3]:
        """Check poses in the base link, all at once, and return them in the frame of the model."""
        poses = np.asarray(targets, dtype=np.float64)
        if poses.shape[1:] != (4, 4) or not np.isfinite(poses).all():
            raise ValueError(f"a target is a finite 4x4 pose; got shape {poses.shape[1:]}")
        rotations = poses[:, :3, :3]
        distances = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3))
        if distances.max(initial=0.0) > 1e-4 or np.linalg.det(rotations).min(initial=1.0) < 0:
            raise ValueError("the upper left 3x3 of a target pose must be a rotation matrix")
        return [self._base * pin.SE3(pose[:3, :3], pose[:3, 3]) for pose in poses]

    def _vector(self, q: ArrayLike) -> Array:
        vector = np.asarray(q, dtype=np.float64)
        if vector.shape != self.home.shape or not np.isfinite(vector).all():
            raise ValueError(f"expected {len(self.home)} finite positions for {', '.join(self.joint_names)}; got {q}")
        return vector

    def _all(self, q: Array) -> Array:
        """Positions of all joints of the model, those that mimic others included."""
        return self._factors @ q + self._offsets

    def _clip(self, q: Array) -> Array:
        return np.minimum(np.maximum(q, self.lower), self.upper)

    def _unreachable(self, step: int, goal: pin.SE3, error: float, rotation: float) -> KinematicsError:
        position = np.round((self._base_inverse * goal).translation, 4).tolist()
        return KinematicsError(
            f"step {step}: {self.arm.tip_link!r} cannot reach {position} m in {self.arm.base_link!r} with the "
            f"requested rotation; within the joint limits, errors of {error * 1e3:.2f} mm and "
            f"{np.degrees(rotation):.2f} degrees remain",
            step,
            error,
            rotation,
        )


def _followers(urdf: str, arm: Arm) -> dict[str, Mimic]:
    """The joints in an arm's chain that mimic others of it, by name."""
    tree = parse_urdf(urdf)
    chain = tree.chain(arm.base_link, arm.tip_link)
    return {joint.name: tree.followed(joint.name) for joint in chain if joint.mimic is not None}


def _expansion(model: pin.Model, joints: tuple[str, ...], followers: dict[str, Mimic]) -> tuple[Array, Array]:
    """Factors (m, n) and offsets (m,): the model's m positions are factors @ q + offsets of the arm's n."""
    factors, offsets = np.zeros((model.nq, len(joints))), np.zeros(model.nq)
    for row, name in enumerate(list(model.names)[1:]):
        mimic = followers.get(name, Mimic(name, 1.0, 0.0))
        factors[row, joints.index(mimic.joint)], offsets[row] = mimic.factor, mimic.offset
    return factors, offsets


def _reduced_model(urdf: str, joints: tuple[str, ...]) -> pin.Model:
    """Build the pinocchio model of only the given joints, each with one position."""
    robot = ElementTree.fromstring(urdf)
    for joint in robot.findall("joint"):
        give_one_position(joint)
    try:
        model = pin.buildModelFromXML(ElementTree.tostring(robot, encoding="unicode"))
    except (ValueError, RuntimeError) as error:
        raise EmbodimentError(f"pinocchio cannot build a model of {robot.get('name')!r}: {error}") from error
    locked = [model.getJointId(name) for name in list(model.names)[1:] if name not in joints]
    return pin.buildReducedModel(model, locked, pin.neutral(model))
