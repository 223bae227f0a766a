"""What the suite knows about a robot: its URDF and its YAML, checked against each other and frozen."""

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from embodiment_descriptions.actions import ActionLayout, Channel, ChannelKind, ControlMode
from embodiment_descriptions.actions.channels import POSE
from embodiment_descriptions.commands import Command, JointStates, Odometry
from embodiment_descriptions.config import Arm, Base, Camera, EmbodimentConfig, Gripper, Safety, load_config
from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.guess.infer import infer_config
from embodiment_descriptions.prompt import build_prompt, image_marker
from embodiment_descriptions.urdf import UrdfJoint, UrdfTree, hint, parse_urdf

CALIBRATION_MARGIN = 0.1  # of the URDF's range of a gripper joint


class JointLimit(BaseModel):
    """Limits of one joint from the URDF: positions [m or rad], velocity [m/s or rad/s], effort [N or Nm].

    A continuous joint has no position limits: lower is -inf and upper is inf. A gripper's limits include its
    calibrated ends. A prismatic joint is measured in m, all others in rad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["revolute", "continuous", "prismatic"]
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
    joint_states: tuple[JointStates, ...]
    odometry: Odometry | None
    commands: tuple[Command, ...]
    safety: Safety
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
            EmbodimentError: malformed XML or YAML, a joint or link that the URDF lacks, a chain that does not match, a
                joint without limits, a position outside the limits.
        """
        tree = parse_urdf(urdf_text)
        if yaml is None:
            config, inferred = infer_config(tree, urdf_text)
        else:
            config, inferred = load_config(yaml), ()
        for arm in config.arms:
            _check_arm(tree, arm)
        names = _joint_names(config)
        limits = _with_calibrated_grippers(config, {name: _limit(_joint(tree, name)) for name in names})
        if config.base is not None and config.base.link not in tree.links:
            link = config.base.link
            raise EmbodimentError(f"base: the URDF of {tree.name!r} has no link {link!r}{hint(link, tree.links)}")
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
        """All commanded joints: those of the arms in order, then of the grippers, then of the torso."""
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
        return self.base.link if self.control_mode.moves_base else self.arms[0].base_link

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
        return gripper.closed + min(max(float(fraction), 0.0), 1.0) * (gripper.open - gripper.closed)

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
    return (*arms, *(arm.gripper.joint for arm in config.arms if arm.gripper), *config.waist)


def _joint(tree: UrdfTree, name: str) -> UrdfJoint:
    if name not in tree.joints:
        raise EmbodimentError(f"the URDF of {tree.name!r} has no joint {name!r}{hint(name, list(tree.joints))}")
    joint = tree.joints[name]
    if not joint.movable:
        why = f"mimics {joint.mimic.joint!r}" if joint.mimic is not None else f"is {joint.type}"
        raise EmbodimentError(f"joint {name!r} cannot be commanded: it {why}")
    return joint


def _limit(joint: UrdfJoint) -> JointLimit:
    for key in ("velocity", "effort"):
        value = getattr(joint, key)
        if value is None or value <= 0:
            raise EmbodimentError(
                f"joint {joint.name!r} has no usable {key} limit ({key}={value}); "
                f"add <limit {key}=...> greater than 0 to the URDF"
            )
    if joint.type == "continuous":
        return JointLimit(
            type=joint.type, lower=-math.inf, upper=math.inf, velocity=joint.velocity, effort=joint.effort
        )
    if joint.lower is None or joint.upper is None or not joint.lower < joint.upper:
        raise EmbodimentError(
            f"joint {joint.name!r} has no usable position limits (lower={joint.lower}, upper={joint.upper}); "
            "add <limit lower=... upper=...> with lower < upper to the URDF"
        )
    return JointLimit(
        type=joint.type, lower=joint.lower, upper=joint.upper, velocity=joint.velocity, effort=joint.effort
    )


def _check_arm(tree: UrdfTree, arm: Arm) -> None:
    for name in arm.joints:
        _joint(tree, name)
    chain = tree.chain(arm.base_link, arm.tip_link)
    for joint in chain:
        if joint.type != "fixed":
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
    for name in config.home:
        if name not in limits:
            raise EmbodimentError(f"home names the joint {name!r}, which is not commanded{hint(name, list(limits))}")
    missing = [name for name in limits if name not in config.home]
    if missing:
        raise EmbodimentError(f"home lacks {', '.join(missing)}; give a position for every commanded joint")
    for name in limits:
        _check_position("home", name, config.home[name], limits)
    return {name: config.home[name] for name in limits}
