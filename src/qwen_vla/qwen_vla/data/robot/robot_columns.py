# SPDX-License-Identifier: Apache-2.0
"""Interprets columns of a recording: from an episode's columns to targets and state of one control mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial.transform import Rotation

from embodiment_descriptions import ChannelKind, ControlMode, Embodiment, Kinematics
from embodiment_descriptions.actions import arm_channel
from embodiment_descriptions.config import GripperUnit, Recordings
from embodiment_descriptions.poses import pose_vector
from qwen_vla.data.formats.episodes import Channels, DatasetError, Episode, EpisodeSource
from qwen_vla.data.robot.chunks import AbsoluteTargets, PoseTargets, Targets
from qwen_vla.data.robot.column_map import Column, ColumnMap, JointUnits, joint_map, plain_map, read_calibration
from qwen_vla.data.robot.finite_differences import base_velocities, moved_poses, next_rows
from qwen_vla.data.robot.joint_names import are_joints
from qwen_vla.data.robot.range_checks import Ranges
from qwen_vla.data.robot.rotations import ANGLES, ELEMENTS, RotationKind, quaternions
from qwen_vla_control.motion.base_path import increments

ActionKind = Literal["poses", "pose_steps", "joints", "velocities", "none"]
POSE = 7  # x y z qx qy qz qw
PLACE = ("x", "y", "z")


class Columns(BaseModel):
    """A dataset's columns of proprioception and actions. Defaults: those of `qwen-vla collect` and of bags."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    joints: Column = Field(default=Column(column="observation.state"), description="measured joints [rad, m]")
    poses: Column | None = Field(
        default=None,
        description="measured tips, x y z qx qy qz qw per arm; default: observation.eef_pose, else kinematics",
    )
    odometry: Column = Field(
        default=Column(column="observation.odometry"), description="x y [m] theta [rad] of the base"
    )
    actions: Column | None = Field(default=None, description="default: action, for base velocities action.velocity")
    action_kind: ActionKind | None = Field(
        default=None,
        description="poses: commanded tips (x y z qx qy qz qw gripper per arm); pose_steps: changes of the tip per row "
        "along the base's axes (x y z rx ry rz gripper per arm); joints: commanded joints; velocities: vx vy wz; none: "
        "finite differences of measurements. Default: the one that fits the column and the control mode",
    )
    gripper: GripperUnit | None = Field(
        default=None,
        description="of joint columns: joint (position of the gripper's joint), fraction (0 closed … 1 open), "
        "closed_fraction (0 open … 1 closed) or percent (0 closed … 100 open); default: the robot's `recordings`, else "
        "joint",
    )
    calibration: Path | Literal["limits"] | None = Field(
        default=None,
        description="what unit percent refers to: the calibration file that LeRobot stores for the robot, or limits: "
        "the range of the URDF",
    )


@dataclass(frozen=True)
class RobotColumns:
    """A whole dataset's columns in the robot's order.

    state (N, S): joint positions, or x y theta of the base; None if not recorded. targets: None without
    actions to train on. used: names of the columns that were read. looks_ahead: rows beyond its own that an action
    uses (1 for finite differences).
    """

    state: np.ndarray | None
    state_names: tuple[str, ...]
    targets: Targets | None
    used: tuple[str, ...]
    looks_ahead: int


class ColumnReader:
    """Reads the columns for the robot's control mode, episode by episode; non-finite rows are kept.

    kind: of the actions. maps, ranges: by the column's name, how it is read, and what is possible in it. errors: why
    the names, number of elements or units of the other columns are not understood.
    """

    def __init__(self, source: EpisodeSource, embodiment: Embodiment, columns: Columns, relative: bool = False) -> None:
        """relative: whether chunks of joint positions are relative to the joints measured at their start.

        Raises:
            DatasetError: a column is missing, or its actions do not fit the control mode.
        """
        self.source, self.embodiment, self.columns, self.relative = source, embodiment, columns, relative
        self.on_base = embodiment.control_mode.moves_base
        self.poses = columns.poses or _present(source, "observation.eef_pose")
        self.action = columns.actions or _present(source, "action.velocity" if self.on_base else "action")
        self.kind: ActionKind = columns.action_kind or self._guess()
        self.state_names = ("x", "y", "theta") if self.on_base else tuple(embodiment.joint_names)
        self.grippers = [arm.gripper for arm in embodiment.arms]
        self._kinematics: list[Kinematics] = []
        self._check()
        self.maps: dict[str, ColumnMap] = {}
        self.ranges: dict[str, Ranges] = {}
        self.errors: list[DatasetError] = []
        self._map_columns()

    def all_columns(self, ends: np.ndarray) -> RobotColumns:
        """The whole dataset's columns; ends (N,): past-last row of the episode of every row."""
        parts = [self.read(episode) for episode in self.source]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        state = joined.get("state")
        return RobotColumns(
            state.astype(np.float32) if state is not None else None,
            self.state_names,
            self.targets(joined, ends),
            self.used,
            int(self.kind == "none"),
        )

    def values(self, episode: Episode, column: str) -> np.ndarray:
        """(T, elements) a column in the robot's order and units."""
        return self.maps[column].read(episode.columns[column].values, episode.name)

    @property
    def used(self) -> tuple[str, ...]:
        named = [self.columns.odometry if self.on_base else self.columns.joints]
        named += [self.poses] if self._needs_poses and self.poses else []
        named += [self.action] if self.kind != "none" and self.action else []
        return tuple(dict.fromkeys(column.column for column in named if column.column in self.source.features))

    @property
    def _commands(self) -> Column:
        """The column of the actions, in a recording of them."""
        if self.action is None:
            raise DatasetError(f"{self.source.name} has no column of actions; name it under `columns`")
        return self.action

    @property
    def _needs_poses(self) -> bool:
        return self.embodiment.control_mode is ControlMode.EEF_DELTA

    def read(self, episode: Episode) -> dict[str, np.ndarray]:
        """The arrays of one episode for targets and state."""
        return dict(self._base(episode) if self.on_base else self._arms(episode))

    def targets(self, arrays: dict[str, np.ndarray], ends: np.ndarray) -> Targets | None:
        if "measured" in arrays:
            has_gripper = tuple(gripper is not None for gripper in self.grippers)
            return PoseTargets(arrays["measured"], arrays["commanded"], arrays["grippers"], ends, has_gripper)
        if "values" not in arrays:
            return None
        layout = self.embodiment.layout
        by_joints = "state" in arrays and not self.on_base
        measured = layout.of_joints(self.state_names, arrays["state"]) if by_joints else None
        return AbsoluteTargets(arrays["values"], ends, layout, self.on_base, measured, self.relative)

    # --- arms -------------------------------------------------------------------------------------------------------

    def _arms(self, episode: Episode) -> Iterator[tuple[str, np.ndarray]]:
        joints = None
        if self.columns.joints.column in episode.columns:
            joints = self.values(episode, self.columns.joints.column)
            yield "state", joints
        if not self._needs_poses:
            yield "values", self._joint_channels(self._commanded_joints(episode, joints))
            return
        measured = self._tips(episode, joints)
        yield "measured", measured
        if self.kind in ("poses", "pose_steps"):
            yield from self._commanded_tips(episode, measured)
            return
        if self.kind == "joints":
            commanded = self._commanded_joints(episode, joints)
            yield "commanded", self._forward(commanded)
        elif joints is not None:
            commanded = next_rows(joints)
            yield "commanded", next_rows(measured)
        else:
            raise DatasetError(
                f"{episode.name}: without the column {self.columns.joints.column} the gripper is unknown"
            )
        yield "grippers", self._fractions(commanded)

    def _commanded_joints(self, episode: Episode, joints: np.ndarray | None) -> np.ndarray:
        if self.kind == "joints":
            return self.values(episode, self._commands.column)
        if joints is None:
            raise DatasetError(f"{episode.name} has neither joint commands nor {self.columns.joints.column}")
        return next_rows(joints)

    def _tips(self, episode: Episode, joints: np.ndarray | None) -> np.ndarray:
        """(T, arms, 7) measured tip poses: as recorded, else by the kinematics of the URDF."""
        if self.poses:
            values, kind = self.values(episode, self.poses.column), self._rotation(self.poses)
            return _poses(values.reshape(len(values), len(self.grippers), -1), kind)
        if joints is None:
            raise DatasetError(
                f"{episode.name} has neither tip poses nor {self.columns.joints.column}; name the column"
            )
        return self._forward(joints)

    def _commanded_tips(self, episode: Episode, measured: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        kind = self._rotation(self._commands)
        width, values = len(PLACE) + len(ELEMENTS[kind]), self.values(episode, self._commands.column)
        poses, grippers, at = [], np.full((len(values), len(self.grippers)), np.nan), 0
        for arm, gripper in enumerate(self.grippers):
            part = _poses(values[:, at : at + width], kind)
            poses.append(part if self.kind == "poses" else _stepped(measured[:, arm], part))
            at += width
            if gripper is not None:
                grippers[:, arm] = values[:, at]
                at += 1
        yield "commanded", np.stack(poses, axis=1)
        yield "grippers", grippers

    def _joint_channels(self, joints: np.ndarray) -> np.ndarray:
        """Joints in the order of `joint_names` to the channels of joint_position."""
        layout, fractions = self.embodiment.layout, self._fractions(joints)
        rows = layout.of_joints(self.embodiment.joint_names, joints)
        rows[:, layout.grippers] = fractions[:, [gripper is not None for gripper in self.grippers]]
        return rows

    def _fractions(self, joints: np.ndarray) -> np.ndarray:
        """(T, arms) gripper openings, 0 closed … 1 open, saturated; NaN columns where an arm has none."""
        result = np.full((len(joints), len(self.grippers)), np.nan)
        names = list(self.embodiment.joint_names)
        for arm, gripper in enumerate(self.grippers):
            if gripper is not None:
                values = joints[:, names.index(gripper.joint)]
                result[:, arm] = np.clip((values - gripper.closed) / (gripper.open - gripper.closed), 0.0, 1.0)
        return result

    def _forward(self, joints: np.ndarray) -> np.ndarray:
        """(T, joints) to (T, arms, 7) tip poses in each arm's base link; NaN where a joint is."""
        if not self._kinematics:
            self._kinematics = [Kinematics(self.embodiment, arm) for arm in range(len(self.grippers))]
        names = list(self.embodiment.joint_names)
        tips = np.full((len(joints), len(self.grippers), POSE), np.nan)
        for arm, kinematics in enumerate(self._kinematics):
            chain = joints[:, [names.index(name) for name in kinematics.joint_names]]
            for row in np.flatnonzero(np.isfinite(chain).all(axis=1)):
                tips[row, arm] = pose_vector(kinematics.forward(chain[row]))
        return tips

    # --- base -------------------------------------------------------------------------------------------------------

    def _base(self, episode: Episode) -> Iterator[tuple[str, np.ndarray]]:
        odometry = None
        if self.columns.odometry.column in episode.columns:
            odometry = self.values(episode, self.columns.odometry.column)
            yield "state", odometry
        if self.kind == "velocities":
            yield "values", self.values(episode, self._commands.column)
        elif odometry is None:
            raise DatasetError(
                f"{episode.name} has no column {self.columns.odometry.column}; name the column of the odometry"
            )
        elif self.embodiment.control_mode is ControlMode.BASE_VELOCITY:
            yield "values", base_velocities(odometry, self.source.rate_hz)
        else:
            yield "values", increments(np.concatenate([odometry, odometry[-1:]]))

    # --- columns ----------------------------------------------------------------------------------------------------

    def _map_columns(self) -> None:
        """Find out what every element of every used column is."""
        for column in (self.columns.odometry if self.on_base else self.columns.joints, self._pose_column()):
            if column and column.column in self.source.features:
                self._map(column, self._elements(column))
        if self.kind != "none" and self.action:
            self._map(self.action, self._elements(self.action, commanded=True))

    def _pose_column(self) -> Column | None:
        return self.poses if self._needs_poses else None

    def _elements(self, column: Column, commanded: bool = False) -> tuple[str, ...]:
        """The elements of a column in the robot's order; none for joints."""
        if self.on_base:
            return self.embodiment.channel_names if commanded else ("x", "y", "theta")
        of_tips = self.kind in ("poses", "pose_steps") if commanded else column is self.poses
        pose = (*PLACE, *ELEMENTS[self._rotation(column)])
        return _pose_names(self.embodiment, pose, gripper=commanded) if of_tips else ()

    def _rotation(self, column: Column) -> RotationKind:
        steps = column is self.action and self.kind == "pose_steps"
        return column.rotation or ("rotation_vector" if steps else "quaternion")

    def _map(self, column: Column, elements: tuple[str, ...]) -> None:
        try:
            self._understand(column, elements)
        except DatasetError as error:
            self.errors.append(error)

    def _understand(self, column: Column, elements: tuple[str, ...]) -> None:
        name, channels, where = column.column, self._channels(column.column), str(self.source.root)
        if elements:
            self.maps[name] = plain_map(column, channels, elements, [n for n in elements if _is_angle(n)], where)
            grippers = [element for element in elements if element.endswith(ChannelKind.GRIPPER)]
            self.ranges[name] = Ranges.of_openings(elements, grippers)
        else:
            self.maps[name] = joint_map(column, channels, self.embodiment, self._units(column, channels), where)
            self.ranges[name] = Ranges.of_joints(self.embodiment)

    def _channels(self, column: str) -> Channels:
        return self.source[0].columns[column]

    def _units(self, column: Column, channels: Channels) -> JointUnits:
        """Those of the recipe, else those that the file states (SI), else those in which others record the robot."""
        given, others = self.columns, self.embodiment.recordings if not any(channels.units) else Recordings()
        calibration = read_calibration(given.calibration) if given.calibration else others.calibration
        gripper = given.gripper or others.gripper or ("joint" if any(channels.units) else None)
        return JointUnits(column.unit or others.unit, gripper, calibration)

    def _guess(self) -> ActionKind:
        mode = self.embodiment.control_mode
        if self.action is None or mode is ControlMode.BASE_WAYPOINTS:
            return "none"
        if not self._needs_poses:
            return "velocities" if self.on_base else "joints"
        names = self.action.names or self.source.features.get(self.action.column, ())
        measured = self.columns.joints.names or self.source.features.get(self.columns.joints.column)
        of_joints = names and (names == measured or are_joints(names, self.embodiment))
        return "joints" if of_joints else "poses"

    def _check(self) -> None:
        for column in (self.poses, self.action if self.kind != "none" else None):
            if column and column.column not in self.source.features:
                why = self.source.unreadable.get(column.column)
                raise DatasetError(
                    f"{self.source.root}: the column {column.column} cannot be read: {why}"
                    if why
                    else f"{self.source.root} has no column {column.column}; it has {', '.join(self.source.features)}"
                )
        if self.kind != "none" and self.action is None:
            raise DatasetError(f"{self.source.root} has no column action; name one, or set action_kind: none")
        if self.relative and self.embodiment.control_mode is not ControlMode.JOINT_POSITION:
            raise DatasetError(
                f"{self.source.root}: relative_actions is for joint_position; chunks of "
                f"{self.embodiment.control_mode} are relative to their first frame anyway"
            )
        if self.relative and self.columns.joints.column not in self.source.features:
            raise DatasetError(f"{self.source.root}: relative_actions needs the column {self.columns.joints.column}")
        allowed = {
            ControlMode.EEF_DELTA: ("poses", "pose_steps", "joints", "none"),
            ControlMode.JOINT_POSITION: ("joints", "none"),
            ControlMode.BASE_WAYPOINTS: ("none",),
            ControlMode.BASE_VELOCITY: ("velocities", "none"),
        }[self.embodiment.control_mode]
        if self.kind not in allowed:
            raise DatasetError(
                f"action_kind {self.kind!r} cannot become {self.embodiment.control_mode}; choose {', '.join(allowed)}"
            )


def _present(source: EpisodeSource, name: str) -> Column | None:
    return Column(column=name) if name in source.features else None


def _is_angle(element: str) -> bool:
    return element.rpartition("_")[2] in (*ANGLES, "theta", "wz")


def _pose_names(embodiment: Embodiment, pose: tuple[str, ...], gripper: bool = False) -> tuple[str, ...]:
    names: list[str] = []
    for label, arm in zip(embodiment.layout.arms, embodiment.arms, strict=True):
        own = [*pose, *([ChannelKind.GRIPPER] if gripper and arm.gripper else [])]
        names += [arm_channel(label, name) for name in own]
    return tuple(names)


def _poses(values: np.ndarray, kind: RotationKind) -> np.ndarray:
    """(..., 3 + elements) positions and rotations as recorded to (..., 7); NaN if a rotation is invalid."""
    return np.concatenate([values[..., :3], quaternions(values[..., 3:], kind)], axis=-1)


def _stepped(measured: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The next pose, from steps (T, 7) along the axes of the base frame."""
    turn, change = (Rotation.from_quat(_finite_quaternions(poses)) for poses in (measured, steps))
    local = np.concatenate([turn.inv().apply(steps[:, :3]), turn.inv().apply(change.as_rotvec())], axis=1)
    moved = moved_poses(np.concatenate([measured[:, :3], turn.as_quat()], axis=1), np.nan_to_num(local))
    return np.where(
        np.isfinite(measured).all(1, keepdims=True) & np.isfinite(steps).all(1, keepdims=True), moved, np.nan
    )


def _finite_quaternions(poses: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(poses[:, 3:]).all(1, keepdims=True), poses[:, 3:], [0.0, 0.0, 0.0, 1.0])
