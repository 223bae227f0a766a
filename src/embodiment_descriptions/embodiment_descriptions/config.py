# SPDX-License-Identifier: Apache-2.0
"""The YAML that adds to a URDF what it lacks: tag, control mode, rate, arms, cameras, topics, safety."""

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from embodiment_descriptions.actions import ControlMode
from embodiment_descriptions.commands import Command, JointStates, Odometry, check_commands
from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.prompt import TAG_PATTERN, image_marker
from embodiment_descriptions.schema import Finite, Name, Positive, Strict, require_unique
from embodiment_descriptions.yaml_files import parse_yaml, read_yaml


def _tag(value: str) -> str:
    image_marker(value)
    return value


CameraTag = Annotated[str, AfterValidator(_tag)]
Point = tuple[Finite, Finite, Finite]
COMPRESSED = "/compressed"
_SIGNS = ("arms", "base", "cameras", "extends", "robot_tag")  # one of them is in every file about a robot
_HOW = "docs/how-to/describe_a_robot.md shows one"
MOST_PROBLEMS = 40  # shown of one file


class Gripper(Strict):
    """The joint that opens a gripper; the channel runs from 0 at `closed` to 1 at `open`.

    Both are measured on the robot and may lie outside the URDF's limits by up to a tenth of their range.
    """

    joint: Name = Field(description="of the URDF")
    closed: Finite = Field(description="joint position when closed [m or rad]")
    open: Finite = Field(description="joint position when open [m or rad]")

    @model_validator(mode="after")
    def _is_a_range(self) -> "Gripper":
        if math.isclose(self.closed, self.open, abs_tol=1e-9):
            raise ValueError(f"closed and open are both {self.open}; a gripper needs a range")
        return self

    def position(self, opening: np.ndarray | float) -> np.ndarray:
        """Joint positions [m or rad] of openings, 0 closed .. 1 open; others saturate, rounding stays in range."""
        there = self.closed + np.clip(opening, 0.0, 1.0) * (self.open - self.closed)
        return np.clip(there, min(self.closed, self.open), max(self.closed, self.open))


class Arm(Strict):
    """A serial chain from base_link to tip_link; its joints are listed from the base to the tip."""

    name: Name = Field(description="prefix of its channel names where there are two arms")
    joints: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(description="of the URDF, all that move the tip")
    base_link: Name = Field(description="tip poses are expressed in this frame")
    tip_link: Name = Field(description="what end-effector actions move")
    gripper: Gripper | None = None
    hand: tuple[Name, ...] = Field(
        default=(), description="joints of a dexterous hand, a channel each in control_mode joint_position"
    )


class Base(Strict):
    """A mobile base; `link` is the one whose pose odometry reports."""

    kind: Literal["differential", "omnidirectional"]
    link: Name = Field(default="base_link", description="of the URDF; the child frame of odometry")


class StatedLimits(Strict):
    """What a URDF leaves open, or what is to be narrower than it says; a wider one belongs into the URDF."""

    lower: Finite | None = Field(default=None, description="least position [m or rad]")
    upper: Finite | None = Field(default=None, description="greatest position [m or rad]")
    velocity: Positive | None = Field(default=None, description="greatest speed [m/s or rad/s]")
    effort: Positive | None = Field(default=None, description="greatest force or torque [N or Nm]")


class Camera(Strict):
    """An image stream; `tag` becomes the image markers of the prompt."""

    tag: CameraTag = Field(description="such as ego or cam_left_wrist")
    topic: Name = Field(description="of the raw images, also where only compressed ones are published")
    info_topic: Name = Field(description="of sensor_msgs/CameraInfo")
    transport: Literal["raw", "compressed"] = Field(
        default="raw", description="compressed: sensor_msgs/CompressedImage on <topic>/compressed"
    )
    max_age_s: Positive = Field(default=0.5, description="older images stop inference [s]")

    @property
    def image_topic(self) -> str:
        """The topic to subscribe to, by the naming of image_transport."""
        if self.transport == "raw" or self.topic.endswith(COMPRESSED):
            return self.topic
        return self.topic + COMPRESSED


class Workspace(Strict):
    """The box in which the tip must stay, in the arm's base_link frame [m]."""

    min: Point = Field(description="lowest x, y, z [m]")
    max: Point = Field(description="highest x, y, z [m]")

    @model_validator(mode="after")
    def _is_a_box(self) -> "Workspace":
        if not all(low < high for low, high in zip(self.min, self.max, strict=True)):
            raise ValueError(f"min {self.min} must be below max {self.max} on every axis")
        return self


class BaseLimits(Strict):
    """The motion limits of a base, in any direction."""

    max_linear: Positive = Field(description="speed [m/s]")
    max_angular: Positive = Field(description="angular speed [rad/s]")
    max_linear_acceleration: Positive = Field(description="[m/s²]")
    max_angular_acceleration: Positive = Field(description="[rad/s²]")


class Safety(Strict):
    """What the gate allows in addition to the limits of the URDF."""

    max_joint_speed_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the URDF velocity limits that may be used"
    )
    max_start_jump_rad: Positive = Field(default=0.35, description="from the measured joints to the first step [rad]")
    max_step_rad: Positive = Field(default=0.5, description="from one step to the next [rad]")
    max_joint_acceleration: Positive | None = Field(
        default=None, description="of every joint but the grippers [rad/s² or m/s²]; null for no limit"
    )
    workspace: Workspace | None = Field(default=None, description="null for no limit")
    self_collision: bool = Field(default=False, description="refuse motion in which links of the robot would touch")
    base: BaseLimits | None = Field(default=None, description="needed by a robot whose base is driven")


class MotorCalibration(Strict):
    """A motor in the calibration file that LeRobot stores: its encoder's counts at both ends of the joint's range."""

    range_min: int
    range_max: int
    drive_mode: int = Field(default=0, description="1: percentages count the other way")
    id: int | None = None
    homing_offset: int | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> "MotorCalibration":
        if self.range_min >= self.range_max:
            raise ValueError(f"range_min {self.range_min} must be below range_max {self.range_max}")
        return self


Calibration = dict[str, MotorCalibration] | Literal["limits"]
JointUnit = Literal["rad", "degrees", "percent"]
GripperUnit = Literal["joint", "fraction", "closed_fraction", "percent"]


class Recordings(Strict):
    """The units in which programs other than this suite record the robot; a data set that states its own has those."""

    unit: JointUnit = Field(
        default="rad", description="of joints: rad (prismatic ones m), degrees, or percent of the range, -100 .. 100"
    )
    gripper: GripperUnit | None = Field(
        default=None,
        description="joint: position of its joint; fraction: 0 closed .. 1 open; closed_fraction: 0 open .. 1 closed; "
        "percent: 0 closed .. 100 open",
    )
    calibration: Calibration | None = Field(
        default=None,
        description="needed for percent: LeRobot's calibration by joint, or limits: the range is the URDF's",
    )


class EmbodimentConfig(Strict):
    """The whole file. Joint names refer to the URDF and are checked against it by Embodiment.from_urdf."""

    name: Annotated[str, Field(pattern=f"^{TAG_PATTERN.pattern}$")] = Field(description="of the robot in chunks")
    robot_tag: Name = Field(description="of the robot in the prompt")
    control_mode: ControlMode = Field(default=ControlMode.EEF_DELTA, description="what the channels of an action are")
    rate_hz: Positive = Field(description="actions per second")
    chunk_size: Annotated[int, Field(ge=1)] = Field(description="actions per chunk")
    arms: Annotated[tuple[Arm, ...], Field(max_length=2)] = Field(default=(), description="none for a base alone")
    waist: tuple[Name, ...] = Field(default=(), description="torso joints; empty if the robot has none")
    base: Base | None = Field(default=None, description="null if the robot does not drive")
    cameras: Annotated[tuple[Camera, ...], Field(min_length=1)] = Field(description="in the order of the prompt")
    home: dict[str, Finite] = Field(default_factory=dict, description="joint positions of the rest pose [m or rad]")
    joint_limits: dict[str, StatedLimits] = Field(
        default_factory=dict, description="of joints for which the URDF states none, or too wide ones"
    )
    joint_states: Annotated[tuple[JointStates, ...], Field(min_length=1)] = Field(
        default=(JointStates(),), description="where positions come from"
    )
    odometry: Odometry | None = Field(default=None, description="of a mobile robot")
    commands: tuple[Command, ...] = Field(
        default=(), description="one entry per command interface; none for a robot that is only described"
    )
    safety: Safety = Field(default=Safety(), description="what the gate allows")
    recordings: Recordings = Field(default=Recordings(), description="units of data sets that others record")

    @model_validator(mode="after")
    def _is_consistent(self) -> "EmbodimentConfig":
        require_unique("arm", [arm.name for arm in self.arms])
        require_unique("camera tag", [camera.tag for camera in self.cameras])
        require_unique("joint states", [f"{s.topic} with prefix {s.prefix!r}" for s in self.joint_states])
        grippers = [arm.gripper.joint for arm in self.arms if arm.gripper]
        joints = [*(joint for arm in self.arms for joint in (*arm.joints, *arm.hand)), *grippers, *self.waist]
        require_unique("joint", joints)
        if not self.arms and self.base is None:
            raise ValueError("a robot needs arms or a base")
        if self.control_mode.moves_base:
            self._is_a_safe_base()
        elif not self.arms:
            raise ValueError(f"control_mode '{self.control_mode}' needs arms; describe them under `arms`")
        check_commands(self.commands, joints, grippers, self.base is not None)
        return self

    def _is_a_safe_base(self) -> None:
        for key, value in (("base", self.base), ("odometry", self.odometry), ("safety.base", self.safety.base)):
            if value is None:
                raise ValueError(f"control_mode '{self.control_mode}' needs a base; describe it under `{key}`")


def load_config(source: str | Path | dict) -> EmbodimentConfig:
    """Read and check an embodiment configuration.

    A file may begin with `extends: other.yaml`, a file in the same folder, and then list only the differences: each of
    its keys replaces that of the other file as a whole.

    Args:
        source: a path (a Path, or a one-line str ending in .yaml or .yml), YAML text, or the parsed mapping.

    Raises:
        EmbodimentError: unreadable, not YAML, or not valid; names the file and every wrong key.
    """
    origin, data = _read(source)
    if "extends" in data:
        data = _extended(origin, data)
    try:
        return EmbodimentConfig.model_validate(data)
    except ValidationError as error:
        lines = list(dict.fromkeys(_explain(e) for e in _causes(error)))
        more = [f"  and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
        raise EmbodimentError("\n".join([f"{origin} is not valid:", *lines[:MOST_PROBLEMS], *more])) from error


def _extended(origin: str, data: dict) -> dict:
    folder, name = Path(origin).parent, data["extends"]
    if not Path(origin).is_file() or not isinstance(name, str) or Path(name).name != name:
        raise EmbodimentError(f"{origin}: extends is {name!r}; a file can extend another one in its own folder")
    other, settings = _read(folder / name)
    if "extends" in settings:
        raise EmbodimentError(f"{origin} extends {other}, which extends yet another file; one step is allowed")
    return settings | {key: value for key, value in data.items() if key != "extends"}


def _read(source: str | Path | dict) -> tuple[str, dict]:
    if isinstance(source, dict):
        return "the embodiment configuration", source
    is_path = isinstance(source, Path) or ("\n" not in source and source.endswith((".yaml", ".yml")))
    origin = str(source) if is_path else "the embodiment YAML"
    try:
        data = read_yaml(Path(source)) if is_path else parse_yaml(str(source))
    except OSError as error:
        raise EmbodimentError(f"cannot read {origin}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise EmbodimentError(f"{origin} is not valid YAML: {error}") from error
    if isinstance(data, dict) and data.keys().isdisjoint(_SIGNS):
        raise EmbodimentError(f"{origin} describes no robot: it has none of the keys {', '.join(_SIGNS)}; {_HOW}")
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else reprlib.repr(data)
        raise EmbodimentError(f"{origin} must be a mapping of keys such as name and arms, not {kind}; {_HOW}")
    return origin, data


def _causes(error: ValidationError) -> Sequence[Mapping[str, Any]]:
    """Drop the error that a list is too short where it is so only because one of its items is wrong."""
    found = error.errors()
    inside = {e["loc"][:depth] for e in found for depth in range(len(e["loc"]))}
    return [e for e in found if not (e["type"] == "too_short" and e["loc"] in inside)]


def _explain(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    if error["type"] == "extra_forbidden":
        keys = {key for model in _models(Strict) for key in model.model_fields}
        close = get_close_matches(str(error["loc"][-1]), sorted(keys), n=1, cutoff=0.5)
        return f"  {place}: unknown key" + (f"; did you mean {close[0]!r}?" if close else "")
    if error["type"] == "missing":
        return f"  {place}: missing"
    value = error["input"]
    shown = f" (got {reprlib.repr(value)})" if not isinstance(value, dict | list) else ""
    return f"  {place}: {error['msg'].removeprefix('Value error, ')}{shown}"


def _models(parent: type[Strict]) -> Iterator[type[Strict]]:
    """Every part of the YAML that there is."""
    for model in parent.__subclasses__():
        yield model
        yield from _models(model)
