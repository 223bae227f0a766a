# SPDX-License-Identifier: Apache-2.0
"""What the suite knows about a robot: its URDF and its YAML, checked against each other and frozen."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict, Field

from embodiment_descriptions.actions import ActionLayout, Channel, ChannelKind, ControlMode
from embodiment_descriptions.actions.channels import POSE
from embodiment_descriptions.commands import Command, JointStates, Odometry
from embodiment_descriptions.config import (
    Arm,
    Base,
    Camera,
    EmbodimentConfig,
    Gripper,
    Recordings,
    Safety,
    StatedLimits,
    load_config,
)
from embodiment_descriptions.errors import EmbodimentError, Problems
from embodiment_descriptions.guess.infer import infer_config
from embodiment_descriptions.prompt import build_prompt, image_marker
from embodiment_descriptions.urdf import MovableType, UrdfJoint, UrdfTree, hint, parse_urdf

CALIBRATION_MARGIN = 0.1  # of the URDF's range of a gripper joint


class JointLimit(BaseModel):
    """Limits of one joint: positions [m or rad], velocity [m/s or rad/s], effort [N or Nm].

    They are those of the URDF, or of the YAML where the URDF states none or wider ones. A continuous joint has no
    position limits: lower is -inf and upper is inf. A gripper's limits include its calibrated ends. A prismatic joint
    is measured in m, all others in rad. An effort of 0 is not stated; no decision depends on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: MovableType
    lower: float
    upper: float
    velocity: float
    effort: float


class Embodiment(BaseModel):
    """A robot as model, executor and simulator use it. Build it with from_urdf or robots.load_robot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    robot_tag: str
    control_mode: ControlMode
    rate_hz: float
    chunk_size: int
    arms: tuple[Arm, ...]
    waist: tuple[str, ...]
    base: Base | None
    cameras: tuple[Camera, ...]
    limits: dict[str, JointLimit]
    home: dict[str, float]
    joint_limits: dict[str, StatedLimits]
    joint_states: tuple[JointStates, ...]
    odometry: Odometry | None
    commands: tuple[Command, ...]
    safety: Safety
    recordings: Recordings = Recordings()
    urdf: str = Field(repr=False)
    inferred: tuple[str, ...] = Field(default=(), description="what was guessed without a YAML, one line each")

    @classmethod
    def from_urdf(cls, urdf_text: str, yaml: str | Path | dict | None = None) -> "Embodiment":
        """Derive an embodiment.

        Args:
            urdf_text: expanded URDF, such as the content of /robot_description.
            yaml: the embodiment configuration as a path, text or mapping. None guesses one for a single arm from the
                URDF alone and lists the guesses in `inferred`.

        Raises:
            EmbodimentError: malformed XML or YAML, a joint or link that the URDF lacks, a chain that does not fit, a
                joint without limits, a position outside the limits. All of a kind are named at once.
        """
        tree = parse_urdf(urdf_text)
        if yaml is None:
            config, inferred = infer_config(tree, urdf_text)
        else:
            config, inferred = load_config(yaml), ()
        limits = _limits(tree, config)
        embodiment = cls(
            **{key: getattr(config, key) for key in EmbodimentConfig.model_fields if key != "home"},
            limits=limits,
            home=_home(config, limits),
            urdf=urdf_text,
            inferred=inferred,
        )
        try:
            _ = embodiment.layout  # raises if two channels have the same name
        except ValueError as error:
            raise EmbodimentError(f"{config.name!r}: {error}; rename the arm or the joint") from error
        return embodiment

    @property
    def period(self) -> float:
        """Time between two actions of a chunk [s]."""
        return 1.0 / self.rate_hz

    @property
    def has_waist(self) -> bool:
        """Whether the robot moves its torso."""
        return bool(self.waist)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """All commanded joints: those of the arms in order, of the grippers, of the hands, of the torso."""
        return _joint_names(self)

    @property
    def layout(self) -> ActionLayout:
        """The action channels in order; with two arms, their labels are the arms' names."""
        if self.control_mode.moves_base:
            return ActionLayout.of_base(self.control_mode)
        by_pose, channels = self.control_mode is ControlMode.EEF_DELTA, []
        for arm in self.arms:
            label = arm.name if len(self.arms) > 1 else ""
            joints = (self._joint_channel(ChannelKind.JOINT, joint, label) for joint in arm.joints)
            channels += [Channel.of(kind, label) for kind in POSE] if by_pose else joints
            channels += [Channel.of(ChannelKind.GRIPPER, label)] if arm.gripper else []
            hand = () if by_pose else arm.hand
            channels += [self._joint_channel(ChannelKind.HAND, joint, label) for joint in hand]
        waist = () if by_pose else self.waist
        channels += [self._joint_channel(ChannelKind.WAIST, joint) for joint in waist]
        return ActionLayout(self.control_mode, tuple(channels))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the action channels in order, as in chunks; see `layout`."""
        return self.layout.names

    @property
    def base_frame(self) -> str:
        """The link in which chunks are expressed: the first arm's base, or the mobile base if that is what moves."""
        if self.base is not None and self.control_mode.moves_base:
            return self.base.link
        return self.arms[0].base_link

    def prompt(self, instruction: str) -> str:
        """Return the text that gives the model its robot and its task, without image markers.

        Raises:
            ValueError: the instruction is empty or contains a special token.
        """
        return build_prompt(
            robot_tag=self.robot_tag,
            arm_count=len(self.arms),
            has_waist=self.has_waist,
            has_base=self.base is not None,
            rate_hz=self.rate_hz,
            chunk_size=self.chunk_size,
            instruction=instruction,
            waypoints=self.control_mode is ControlMode.BASE_WAYPOINTS,
        )

    def image_markers(self) -> list[tuple[str, str]]:
        """Return the tokens that open and close each camera's image, in the order of `cameras`."""
        return [image_marker(camera.tag) for camera in self.cameras]

    def gripper_to_joint(self, fraction: float, arm: int = 0) -> float:
        """Convert a gripper channel to the joint position [m or rad].

        Values outside 0 (closed) .. 1 (open) saturate: a model that predicts 1.02 means open.

        Raises:
            ValueError: the value is not finite, or the arm has no gripper.
        """
        gripper = self._gripper(arm)
        if not math.isfinite(fraction):
            raise ValueError(f"gripper value {fraction} is not finite")
        return float(gripper.position(fraction))

    def gripper_from_joint(self, position: float, arm: int = 0) -> float:
        """Convert a gripper joint position [m or rad] to the channel, 0 closed .. 1 open.

        A position outside the range gives a value outside 0..1, so that a bad measurement stays visible.

        Raises:
            ValueError: the value is not finite, or the arm has no gripper.
        """
        gripper = self._gripper(arm)
        if not math.isfinite(position):
            raise ValueError(f"gripper joint position {position} is not finite")
        return (float(position) - gripper.closed) / (gripper.open - gripper.closed)

    def _joint_channel(self, kind: ChannelKind, joint: str, arm: str = "") -> Channel:
        limit = self.limits[joint]
        unit = "m" if limit.type == "prismatic" else "rad"
        return Channel(kind, arm, unit, limit.type == "continuous", joint)

    def _gripper(self, arm: int) -> Gripper:
        gripper = self.arms[arm].gripper
        if gripper is None:
            raise ValueError(f"arm {self.arms[arm].name!r} of {self.name!r} has no gripper")
        return gripper


def _joint_names(config: EmbodimentConfig | Embodiment) -> tuple[str, ...]:
    arms = [joint for arm in config.arms for joint in arm.joints]
    grippers = [arm.gripper.joint for arm in config.arms if arm.gripper]
    return (*arms, *grippers, *(joint for arm in config.arms for joint in arm.hand), *config.waist)


def _joint(tree: UrdfTree, name: str) -> UrdfJoint:
    if name not in tree.joints:
        raise EmbodimentError(f"the URDF of {tree.name!r} has no joint {name!r}{hint(name, list(tree.joints))}")
    joint = tree.joints[name]
    if not joint.movable:
        why = f"mimics {joint.mimic.joint!r}" if joint.mimic is not None else f"is {joint.type}"
        raise EmbodimentError(f"joint {name!r} cannot be commanded: it {why}")
    return joint


def _limits(tree: UrdfTree, config: EmbodimentConfig) -> dict[str, JointLimit]:
    """Check arms, joints and base against the URDF, all of them; return the limits of all commanded joints."""
    problems, names = Problems(), _joint_names(config)
    for arm in config.arms:
        problems.check(_check_arm, tree, arm)
    found = {name: problems.check(_limit, tree, name, config.joint_limits.get(name)) for name in names}
    problems.check(_check_names, "joint_limits", config.joint_limits, names)
    problems.check(_check_base, tree, config.base)
    problems.refuse_any(f"the URDF of {tree.name!r}")
    limits = {name: limit for name, limit in found.items() if limit is not None}
    for arm in config.arms:
        limits |= _limits_of_followers(tree, arm, limits)
    return _with_calibrated_grippers(config, limits)


def _limits_of_followers(tree: UrdfTree, arm: Arm, limits: dict[str, JointLimit]) -> dict[str, JointLimit]:
    """The limits of an arm's joints, narrowed by those of the joints in its chain that mimic them."""
    narrowed = dict(limits)
    for joint in tree.chain(arm.base_link, arm.tip_link):
        mimic = tree.followed(joint.name) if joint.mimic is not None else None
        if mimic is None or not mimic.factor:
            continue
        limit = narrowed[mimic.joint]
        lower, upper, velocity = limit.lower, limit.upper, limit.velocity
        if joint.range is not None:
            ends = sorted((end - mimic.offset) / mimic.factor for end in joint.range)
            lower, upper = max(lower, ends[0]), min(upper, ends[1])
        if joint.velocity:
            velocity = min(velocity, joint.velocity / abs(mimic.factor))
        if not lower < upper:
            raise EmbodimentError(f"joint {joint.name!r} mimics {mimic.joint!r}, but their limits exclude each other")
        narrowed[mimic.joint] = limit.model_copy(update={"lower": lower, "upper": upper, "velocity": velocity})
    return narrowed


def _limit(tree: UrdfTree, name: str, stated: StatedLimits | None) -> JointLimit:
    joint, stated = _joint(tree, name), stated or StatedLimits()
    speed, effort = (value if value is not None and value > 0 else None for value in (joint.velocity, joint.effort))
    velocity = _narrower(joint, "velocity", speed, stated.velocity)
    if velocity is None:
        raise _no_limit(name, f"velocity limit (velocity={joint.velocity})", "velocity: ...")
    lower, upper = _range(joint, stated)
    effort = _narrower(joint, "effort", effort, stated.effort) or 0.0
    kind = cast(MovableType, joint.type)  # _joint has refused the others
    return JointLimit(type=kind, lower=lower, upper=upper, velocity=velocity, effort=effort)


def _range(joint: UrdfJoint, stated: StatedLimits) -> tuple[float, float]:
    if joint.type == "continuous":
        if (stated.lower, stated.upper) != (None, None):
            raise EmbodimentError(
                f"joint_limits: {joint.name!r} turns without end; make it revolute in the URDF to limit it"
            )
        return -math.inf, math.inf
    lower, upper = joint.lower, joint.upper
    if lower is None or upper is None or not lower < upper:
        lower, upper = (None, None) if stated.lower is not None and stated.upper is not None else (lower, upper)
    lower = _narrower(joint, "lower", lower, stated.lower)
    upper = _narrower(joint, "upper", upper, stated.upper)
    if lower is None or upper is None or not lower < upper:
        raise _no_limit(joint.name, f"position limits (lower={lower}, upper={upper})", "lower: ..., upper: ...")
    return lower, upper


def _narrower(joint: UrdfJoint, key: str, urdf: float | None, stated: float | None) -> float | None:
    if urdf is None or stated is None:
        return urdf if stated is None else stated
    if (stated < urdf) if key == "lower" else (stated > urdf):
        raise EmbodimentError(
            f"joint_limits: {joint.name!r} {key} {stated:g} is wider than the URDF's {urdf:g}; correct the URDF instead"
        )
    return stated


def _no_limit(joint: str, what: str, keys: str) -> EmbodimentError:
    return EmbodimentError(
        f"joint {joint!r} has no usable {what}; complete its <limit> in the URDF, or write "
        f"joint_limits: {{{joint}: {{{keys}}}}} in the YAML"
    )


def _check_names(where: str, named: Iterable[str], known: Sequence[str]) -> None:
    for name in named:
        if name not in known:
            raise EmbodimentError(f"{where} names the joint {name!r}, which is not commanded{hint(name, known)}")


def _check_base(tree: UrdfTree, base: Base | None) -> None:
    if base is not None and base.link not in tree.links:
        raise EmbodimentError(f"base: the URDF of {tree.name!r} has no link {base.link!r}{hint(base.link, tree.links)}")


def _check_arm(tree: UrdfTree, arm: Arm) -> None:
    for name in arm.joints:
        _joint(tree, name)
    chain = tree.chain(arm.base_link, arm.tip_link)
    for joint in chain:
        if joint.type != "fixed" and tree.followed(joint.name).joint not in arm.joints:
            _joint(tree, joint.name)  # a joint in the chain that cannot be commanded would make its kinematics wrong
    moving = [joint.name for joint in chain if joint.movable]
    if tuple(moving) != arm.joints:
        raise EmbodimentError(
            f"arm {arm.name!r}: the joints that move {arm.tip_link!r} relative to {arm.base_link!r} are "
            f"{', '.join(moving) or 'none'}, but the configuration lists {', '.join(arm.joints)}; "
            "list all of them, from base to tip, or choose other links"
        )


def _with_calibrated_grippers(config: EmbodimentConfig, limits: dict[str, JointLimit]) -> dict[str, JointLimit]:
    """Check the grippers' ends, and widen the limits of their joints to ends that lie just outside.

    A URDF gives the design range of a finger, a calibration what the robot reports; they differ by a millimeter or so.
    """
    widened = dict(limits)
    for arm in config.arms:
        if arm.gripper is None:
            continue
        joint, ends = arm.gripper.joint, (arm.gripper.closed, arm.gripper.open)
        limit = limits[joint]
        span = limit.upper - limit.lower
        margin = CALIBRATION_MARGIN * span if math.isfinite(span) else 0.0
        for key, position in zip(("closed", "open"), ends, strict=True):
            if not limit.lower - margin <= position <= limit.upper + margin:
                _check_position(f"arm {arm.name!r}: gripper {key}", joint, position, limits)
        wide = {"lower": min(limit.lower, *ends), "upper": max(limit.upper, *ends)}
        widened[joint] = limit.model_copy(update=wide)
    return widened


def _check_position(what: str, joint: str, position: float, limits: dict[str, JointLimit]) -> None:
    limit = limits[joint]
    if not limit.lower <= position <= limit.upper:
        raise EmbodimentError(f"{what}: {joint} = {position} is outside its limits {limit.lower} .. {limit.upper}")


def _home(config: EmbodimentConfig, limits: dict[str, JointLimit]) -> dict[str, float]:
    """Return the home position of every joint in order; without one in the YAML, the allowed position nearest zero."""
    if not config.home:
        return {name: min(max(0.0, limit.lower), limit.upper) for name, limit in limits.items()}
    _check_names("home", config.home, list(limits))
    missing = [name for name in limits if name not in config.home]
    if missing:
        raise EmbodimentError(f"home lacks {', '.join(missing)}; give every commanded joint a position")
    problems = Problems()
    for name in limits:
        problems.check(_check_position, "home", name, config.home[name], limits)
    problems.refuse_any(f"home of {config.name!r}")
    return {name: config.home[name] for name in limits}
