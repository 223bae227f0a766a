# SPDX-License-Identifier: Apache-2.0
"""One column of a recording in the robot's order and units: which element is what, its unit, sign and calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from embodiment_descriptions import Embodiment
from embodiment_descriptions.config import Calibration, GripperUnit, JointUnit
from qwen_vla.data.formats.episodes import Channels, DatasetError
from qwen_vla.data.formats.spec import as_text
from qwen_vla.data.robot.joint_names import NamedJoints, find_joints, find_names
from qwen_vla.data.robot.rotations import RotationKind

ENCODER_STEPS = 4095  # of a turn, as LeRobot counts it
AMBIGUOUS_TRAVEL = 0.2  # [rad, m] a gripper's joint that moves farther may have values of 0…1, as its opening has
CALIBRATION_REMEDY = (
    "give LeRobot's calibration file under `columns: {calibration: …}` (~/.cache/huggingface/lerobot/calibration/"
    "robots/TYPE/ID.json), or `calibration: limits` if the range is that of the URDF"
)


class Column(BaseModel):
    """A column of the dataset: the names of its elements in the robot's order (default: by their names), and units."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    names: tuple[str, ...] | None = None
    unit: JointUnit | None = Field(
        default=None,
        description="of angles: rad, degrees, or percent (-100…100 of the range); default: the robot's `recordings`",
    )
    rotation: RotationKind | None = Field(
        default=None,
        description="how the rotations of poses are recorded: quaternion (qx qy qz qw), rotation_vector (rx ry rz), "
        "euler (roll pitch yaw about fixed x, y, z) or matrix_6d (the first two columns of the matrix); default: "
        "quaternion, for pose_steps rotation_vector",
    )
    inverted: tuple[str, ...] = Field(default=(), description="elements that count in the other direction")


@dataclass(frozen=True)
class JointUnits:
    """How joints are recorded, complete: unit None and gripper None mean that nobody said so."""

    unit: JointUnit = "rad"
    gripper: GripperUnit | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class ColumnMap:
    """elements: what the robot needs, in its order; picks: the index of each in the column.

    A value of the robot is offset + scale · value of the file. unit: of the file's angles. names: of the file's
    elements, if they have names.
    """

    column: str
    names: tuple[str, ...]
    width: int
    elements: tuple[str, ...]
    picks: tuple[int, ...]
    scale: np.ndarray
    offset: np.ndarray
    unit: str = "rad"

    def read(self, values: np.ndarray, name: str) -> np.ndarray:
        """(T, width) values of the file to (T, elements) in the robot's units; `name` is that of the episode."""
        if values.shape[1] != self.width:
            raise DatasetError(f"{self.column} has {values.shape[1]} elements, elsewhere {self.width}", where=name)
        return values[:, list(self.picks)].astype(np.float64) * self.scale + self.offset

    def in_file(self, values: np.ndarray) -> np.ndarray:
        """Undo `read` for (..., elements)."""
        return (values - self.offset) / self.scale

    @property
    def mapped_to(self) -> tuple[str, ...]:
        """What each element of the file is; empty if it is not used."""
        of = dict(zip(self.picks, self.elements, strict=True))
        return tuple(of.get(index, "") for index in range(self.width))


def joint_map(column: Column, channels: Channels, embodiment: Embodiment, units: JointUnits, where: str) -> ColumnMap:
    """The map of a column of joint positions to `embodiment.joint_names` [rad, m].

    Raises:
        DatasetError: names, number of elements or units are not understood.
    """
    joints = embodiment.joint_names
    found = _given(column, channels, joints, where) or _joints_by_name(column, channels, embodiment, where)
    scales = _scales(embodiment, units, found, f"{where}: {column.column}")
    scale, offset = (np.array(values, float) for values in zip(*scales, strict=True))
    names, width = channels.names, channels.values.shape[1]
    flip = _flipped(column, names, joints, found.picks)
    return ColumnMap(column.column, names, width, joints, found.picks, scale * flip, offset, units.unit)


def plain_map(
    column: Column, channels: Channels, wanted: Sequence[str], angles: Sequence[str], where: str
) -> ColumnMap:
    """The map of a column of poses, odometry or velocities; `angles`: which of the elements are angles."""
    if column.unit == "percent":
        raise DatasetError(
            "percent is a unit of joints", where=f"{where}: {column.column}", remedy="choose another unit"
        )
    wanted, width = tuple(wanted), channels.values.shape[1]
    given = _given(column, channels, wanted, where)
    if given:
        picks = given.picks
    elif channels.names:
        _check_width(column, channels, where)
        picks = find_names(channels.names, wanted, f"{where}: {column.column}")
    else:
        picks = _by_position(column, channels, wanted, where)
    degrees = column.unit == "degrees"
    scale = np.array([math.pi / 180 if degrees and name in angles else 1.0 for name in wanted])
    flip = _flipped(column, channels.names, wanted, picks)
    unit = column.unit or "rad"
    return ColumnMap(column.column, channels.names, width, wanted, picks, scale * flip, np.zeros(len(wanted)), unit)


def read_calibration(source: Path | Literal["limits"]) -> Calibration:
    """LeRobot's calibration file; DatasetError if it is missing or not one."""
    if source == "limits":
        return "limits"
    try:
        return TypeAdapter(Calibration).validate_python(json.loads(Path(source).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"unreadable: {error}", where=str(source), remedy=CALIBRATION_REMEDY) from error
    except ValidationError as error:
        raise DatasetError(as_text(error), where=str(source), remedy=CALIBRATION_REMEDY) from error


# --- names ------------------------------------------------------------------------------------------------------------


def _given(column: Column, channels: Channels, wanted: Sequence[str], where: str) -> NamedJoints | None:
    """The elements that the user names, in the robot's order."""
    if column.names is None:
        return None
    if len(column.names) != len(wanted):
        raise DatasetError(
            f"{len(column.names)} names given, {len(wanted)} needed: {', '.join(wanted)}",
            where=f"{where}: {column.column}",
        )
    _check_width(column, channels, where)
    absent = [name for name in column.names if name not in channels.names]
    if absent:
        has = ", ".join(channels.names) or "no names for its elements"
        raise DatasetError(f"has no {', '.join(absent)}; it has {has}", where=f"{where}: {column.column}")
    renamed = {own for own, name in zip(wanted, column.names, strict=True) if own != name}
    return NamedJoints(tuple(map(channels.names.index, column.names)), frozenset(renamed))


def _joints_by_name(column: Column, channels: Channels, embodiment: Embodiment, where: str) -> NamedJoints:
    if not channels.names:
        return NamedJoints(_by_position(column, channels, embodiment.joint_names, where))
    _check_width(column, channels, where)
    return find_joints(channels.names, embodiment, f"{where}: {column.column}")


def _check_width(column: Column, channels: Channels, where: str) -> None:
    if len(channels.names) != channels.values.shape[1]:
        raise DatasetError(
            f"has {channels.values.shape[1]} elements and {len(channels.names)} names: {', '.join(channels.names)}",
            where=f"{where}: {column.column}",
            remedy="correct `names` in meta/info.json",
        )


def _by_position(column: Column, channels: Channels, wanted: Sequence[str], where: str) -> tuple[int, ...]:
    """Elements without names have the robot's order."""
    if channels.values.shape[1] != len(wanted):
        raise DatasetError(
            f"has {channels.values.shape[1]} elements without names, {len(wanted)} are needed: {', '.join(wanted)}",
            where=f"{where}: {column.column}",
            remedy="name another column, or the kind of its actions (`action_kind`), under `columns` in a recipe",
        )
    return tuple(range(len(wanted)))


def _flipped(column: Column, names: Sequence[str], wanted: Sequence[str], picks: Sequence[int]) -> np.ndarray:
    """(elements,) -1 where the file counts in the other direction, by its own name or the robot's."""
    known = {*wanted, *names}
    if unknown := [name for name in column.inverted if name not in known]:
        raise DatasetError(f"inverted: no element is called {', '.join(unknown)}", where=column.column)
    called = [{own, names[pick] if names else own} for own, pick in zip(wanted, picks, strict=True)]
    return np.array([-1.0 if own & set(column.inverted) else 1.0 for own in called])


# --- units ------------------------------------------------------------------------------------------------------------


def _scales(embodiment: Embodiment, units: JointUnits, found: NamedJoints, where: str) -> list[tuple[float, float]]:
    """Scale and offset of every joint."""
    grippers = {arm.gripper.joint: arm.gripper for arm in embodiment.arms if arm.gripper}
    result = []
    for joint in embodiment.joint_names:
        kind = units.gripper if joint in grippers else "joint"
        if kind is None:
            _refuse_ambiguous(joint, grippers[joint], found, where)
        if kind in (None, "joint"):
            result.append(_joint_scale(embodiment, joint, units, where))
        else:
            closed, span = grippers[joint].closed, grippers[joint].open - grippers[joint].closed
            result.append(
                {
                    "fraction": (span, closed),
                    "closed_fraction": (-span, closed + span),
                    "percent": (span / 100, closed),
                }[kind]
            )
    return result


def _refuse_ambiguous(joint: str, gripper, found: NamedJoints, where: str) -> None:
    if joint in found.renamed and abs(gripper.open - gripper.closed) >= AMBIGUOUS_TRAVEL:
        raise DatasetError(
            f"has the gripper under another name than {joint}: it may be that joint's position ({gripper.closed:g} "
            f"closed, {gripper.open:g} open) or an opening",
            where=where,
            remedy="write `columns: {gripper: joint}`, `fraction` (0 closed … 1 open), `closed_fraction` (0 open … 1 "
            "closed) or `percent` (0 closed … 100 open)",
        )


def _joint_scale(embodiment: Embodiment, joint: str, units: JointUnits, where: str) -> tuple[float, float]:
    limit = embodiment.limits[joint]
    if units.unit == "degrees":
        return (1.0 if limit.type == "prismatic" else math.pi / 180), 0.0
    if units.unit == "rad":
        return 1.0, 0.0
    if units.calibration is None:
        raise DatasetError("percent needs the range to which it refers", where=where, remedy=CALIBRATION_REMEDY)
    if units.calibration == "limits":
        if limit.type == "continuous":
            raise DatasetError(f"{joint} turns without end, so that percent has no range", where=where)
        return (limit.upper - limit.lower) / 200, (limit.upper + limit.lower) / 2
    if joint not in units.calibration:
        has = ", ".join(units.calibration)
        raise DatasetError(
            f"the calibration has no motor {joint}; it has {has}", where=where, remedy=CALIBRATION_REMEDY
        )
    motor = units.calibration[joint]
    span = (motor.range_max - motor.range_min) / ENCODER_STEPS * 2 * math.pi
    return (-span if motor.drive_mode else span) / 200, 0.0
