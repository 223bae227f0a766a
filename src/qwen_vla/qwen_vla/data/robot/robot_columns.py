"""Interprets columns of a recording: from an episode's columns to targets and state of one control mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial.transform import Rotation

from embodiment_descriptions import ChannelKind, ControlMode, Embodiment, Kinematics
from embodiment_descriptions.actions import arm_channel
from embodiment_descriptions.poses import pose_vector
from qwen_vla.data.formats.episodes import DatasetError, Episode, EpisodeSource
from qwen_vla.data.robot.chunks import AbsoluteTargets, PoseTargets, Targets
from qwen_vla.data.robot.finite_differences import base_velocities, moved_poses, next_rows
from qwen_vla_control.motion.base_path import increments

ActionKind = Literal["poses", "pose_steps", "joints", "velocities", "none"]
POSE = 7  # x y z qx qy qz qw


class Column(BaseModel):
    """A column of the dataset, and the names of its elements in the required order (default: all)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    names: tuple[str, ...] | None = None


class Columns(BaseModel):
    """A dataset's columns of proprioception and actions. Defaults: those of `qwen-vla collect` and of bags."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    joints: Column = Field(Column(column="observation.state"), description="measured joints [rad, m]")
    poses: Column | None = Field(
        None, description="measured tips, x y z qx qy qz qw per arm; default: observation.eef_pose, else kinematics"
    )
    odometry: Column = Field(Column(column="observation.odometry"), description="x y [m] theta [rad] of the base")
    actions: Column | None = Field(None, description="default: action, for base velocities action.velocity")
    action_kind: ActionKind | None = Field(
        None,
        description="poses: commanded tips (x y z qx qy qz qw gripper per arm); pose_steps: changes of the tip per row "
        "along the base's axes (x y z rx ry rz gripper per arm); joints: commanded joints; velocities: vx vy wz; none: "
        "finite differences of measurements. Default: the one that fits the column and the control mode",
    )
    gripper: Literal["joint", "fraction"] = Field(
        "joint", description="of joint columns: position of the gripper's joint, or 0 closed … 1 open"
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


def read_columns(
    source: EpisodeSource, embodiment: Embodiment, columns: Columns, ends: np.ndarray, relative: bool = False
) -> RobotColumns:
    """Read the columns for the robot's control mode, episode by episode; non-finite rows are kept.

    relative: whether chunks of joint positions are relative to the joints measured at their start.
    """
    reader = _Reader(source, embodiment, columns, relative)
    parts = [reader.read(episode) for episode in source]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    state = joined.get("state")
    return RobotColumns(
        state.astype(np.float32) if state is not None else None,
        reader.state_names,
        reader.targets(joined, ends),
        reader.used,
        int(reader.kind == "none"),
    )


class _Reader:
    def __init__(self, source: EpisodeSource, embodiment: Embodiment, columns: Columns, relative: bool) -> None:
        self.source, self.embodiment, self.columns, self.relative = source, embodiment, columns, relative
        self.on_base = embodiment.control_mode.moves_base
        self.poses = columns.poses or _present(source, "observation.eef_pose")
        self.action = columns.actions or _present(source, "action.velocity" if self.on_base else "action")
        self.kind: ActionKind = columns.action_kind or self._guess()
        self.state_names = ("x", "y", "theta") if self.on_base else tuple(embodiment.joint_names)
        self.grippers = [arm.gripper for arm in embodiment.arms]
        self._kinematics: list[Kinematics] = []
        self._check()

    @property
    def used(self) -> tuple[str, ...]:
        named = [self.columns.odometry if self.on_base else self.columns.joints]
        named += [self.poses] if self._needs_poses and self.poses else []
        named += [self.action] if self.kind != "none" and self.action else []
        return tuple(dict.fromkeys(column.column for column in named if column.column in self.source.features))

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
        origins = layout.of_joints(self.state_names, arrays["state"]) if self.relative else None
        return AbsoluteTargets(arrays["values"], ends, layout, self.on_base, origins)

    # --- arms -------------------------------------------------------------------------------------------------------

    def _arms(self, episode: Episode) -> Iterator[tuple[str, np.ndarray]]:
        joints = None
        if self.columns.joints.column in episode.columns:
            joints = self._column(episode, self.columns.joints, self.embodiment.joint_names)
            yield "state", joints
        if not self._needs_poses:
            yield "values", self._joint_channels(self._commanded_joints(episode, joints))
            return
        measured = self._tips(episode, joints)
        yield "measured", measured
        if self.kind in ("poses", "pose_steps"):
            yield from self._commanded_tips(episode, measured)
            return
        commanded = self._commanded_joints(episode, joints) if self.kind == "joints" else None
        if commanded is None and joints is None:
            raise DatasetError(
                f"{episode.name}: without the column {self.columns.joints.column} the gripper is unknown"
            )
        yield "commanded", next_rows(measured) if commanded is None else self._forward(commanded)
        yield "grippers", self._fractions(next_rows(joints) if commanded is None else commanded)

    def _commanded_joints(self, episode: Episode, joints: np.ndarray | None) -> np.ndarray:
        if self.kind == "joints":
            return self._column(episode, self.action, self.embodiment.joint_names)
        if joints is None:
            raise DatasetError(f"{episode.name} has neither joint commands nor {self.columns.joints.column}")
        return next_rows(joints)

    def _tips(self, episode: Episode, joints: np.ndarray | None) -> np.ndarray:
        """(T, arms, 7) measured tip poses: as recorded, else by the kinematics of the URDF."""
        if self.poses:
            names = _pose_names(self.embodiment, ("x", "y", "z", "qx", "qy", "qz", "qw"))
            values = self._column(episode, self.poses, names, named=False)
            return _unit(values.reshape(len(values), len(self.grippers), POSE))
        if joints is None:
            raise DatasetError(
                f"{episode.name} has neither tip poses nor {self.columns.joints.column}; name the column"
            )
        return self._forward(joints)

    def _commanded_tips(self, episode: Episode, measured: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        pose = ("x", "y", "z", "qx", "qy", "qz", "qw") if self.kind == "poses" else ("x", "y", "z", "rx", "ry", "rz")
        names = _pose_names(self.embodiment, pose, gripper=True)
        values = self._column(episode, self.action, names, named=False).astype(np.float64)
        poses, grippers, at = [], np.full((len(values), len(self.grippers)), np.nan), 0
        for arm, gripper in enumerate(self.grippers):
            part = values[:, at : at + len(pose)]
            poses.append(part if self.kind == "poses" else _stepped(measured[:, arm], part))
            at += len(pose)
            if gripper is not None:
                grippers[:, arm] = values[:, at]
                at += 1
        yield "commanded", _unit(np.stack(poses, axis=1))
        yield "grippers", grippers

    def _joint_channels(self, joints: np.ndarray) -> np.ndarray:
        """Joints in the order of `joint_names` to the channels of joint_position."""
        layout, fractions = self.embodiment.layout, self._fractions(joints)
        rows = layout.of_joints(self.embodiment.joint_names, joints)
        rows[:, layout.grippers] = fractions[:, [gripper is not None for gripper in self.grippers]]
        return rows

    def _fractions(self, joints: np.ndarray) -> np.ndarray:
        """(T, arms) gripper openings, 0 closed … 1 open; NaN columns where an arm has none."""
        result = np.full((len(joints), len(self.grippers)), np.nan)
        names = list(self.embodiment.joint_names)
        for arm, gripper in enumerate(self.grippers):
            if gripper is not None:
                values = joints[:, names.index(gripper.joint)]
                span = gripper.open - gripper.closed
                result[:, arm] = values if self.columns.gripper == "fraction" else (values - gripper.closed) / span
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
            odometry = self._column(episode, self.columns.odometry, ("x", "y", "theta"))
            yield "state", odometry
        if self.kind == "velocities":
            yield "values", self._column(episode, self.action, self.embodiment.channel_names)
        elif odometry is None:
            raise DatasetError(
                f"{episode.name} has no column {self.columns.odometry.column}; name the column of the odometry"
            )
        elif self.embodiment.control_mode is ControlMode.BASE_VELOCITY:
            yield "values", base_velocities(odometry, self.source.rate_hz)
        else:
            yield "values", increments(np.concatenate([odometry, odometry[-1:]]))

    # --- columns ----------------------------------------------------------------------------------------------------

    def _column(self, episode: Episode, wanted: Column, names: tuple[str, ...], named: bool = True) -> np.ndarray:
        """The elements of a column in the robot's order: by given names, else by its own names, else all."""
        channels = episode.columns[wanted.column]
        if wanted.names:
            if len(wanted.names) != len(names):
                raise DatasetError(
                    f"{wanted.column}: {len(wanted.names)} names given, {len(names)} needed: {', '.join(names)}"
                )
            return channels.select(wanted.names, f"{episode.name}: column {wanted.column}")
        if named and set(names) <= set(channels.names):
            return channels.select(names, wanted.column)
        if channels.values.shape[1] != len(names):
            raise DatasetError(
                f"{episode.name}: column {wanted.column} has {channels.values.shape[1]} elements "
                f"({', '.join(channels.names) or 'without names'}), {self.embodiment.name} needs {len(names)}: "
                f"{', '.join(names)}; name them under `columns`"
            )
        return channels.values

    def _guess(self) -> ActionKind:
        mode = self.embodiment.control_mode
        if self.action is None or mode is ControlMode.BASE_WAYPOINTS:
            return "none"
        if not self._needs_poses:
            return "velocities" if self.on_base else "joints"
        names = self.source.features[self.action.column] if self.action.column in self.source.features else ()
        return "joints" if names and set(self.embodiment.joint_names) <= set(self.action.names or names) else "poses"

    def _check(self) -> None:
        for column in (self.poses, self.action if self.kind != "none" else None):
            if column and column.column not in self.source.features:
                raise DatasetError(
                    f"{self.source.root} has no column {column.column}; it has {', '.join(self.source.features)}"
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


def _pose_names(embodiment: Embodiment, pose: tuple[str, ...], gripper: bool = False) -> tuple[str, ...]:
    names: list[str] = []
    for label, arm in zip(embodiment.layout.arms, embodiment.arms, strict=True):
        own = [*pose, *([ChannelKind.GRIPPER] if gripper and arm.gripper else [])]
        names += [arm_channel(label, name) for name in own]
    return tuple(names)


def _unit(poses: np.ndarray) -> np.ndarray:
    """Poses (..., 7) with unit quaternions; NaN if a quaternion is invalid."""
    poses = np.array(poses, np.float64)
    length = np.linalg.norm(poses[..., 3:], axis=-1, keepdims=True)
    poses[..., 3:] = np.divide(poses[..., 3:], length, where=length > 0.5, out=np.full_like(poses[..., 3:], np.nan))
    return poses


def _stepped(measured: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The next pose, from steps along the axes of the base frame: translation, rotation vector."""
    turn = Rotation.from_quat(_finite_quaternions(measured))
    local = np.concatenate([turn.inv().apply(steps[:, :3]), turn.inv().apply(steps[:, 3:])], axis=1)
    moved = moved_poses(np.concatenate([measured[:, :3], turn.as_quat()], axis=1), np.nan_to_num(local))
    return np.where(
        np.isfinite(measured).all(1, keepdims=True) & np.isfinite(steps).all(1, keepdims=True), moved, np.nan
    )


def _finite_quaternions(poses: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(poses[:, 3:]).all(1, keepdims=True), poses[:, 3:], [0.0, 0.0, 0.0, 1.0])
