# SPDX-License-Identifier: Apache-2.0
"""Control modes and channels. Channel names are built and parsed here and nowhere else."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Unit = Literal["m", "rad", "m/s", "rad/s", "1", ""]


class ControlMode(StrEnum):
    """What the channels of an action are; the values are those of YAML files, checkpoints and messages."""

    JOINT_POSITION = "joint_position"
    EEF_DELTA = "eef_delta"
    BASE_WAYPOINTS = "base_waypoints"
    BASE_VELOCITY = "base_velocity"

    @property
    def moves_base(self) -> bool:
        """Whether actions drive a mobile base; otherwise they move arms."""
        return self in BASE

    def __repr__(self) -> str:
        """The value as written in files, which is what error messages show."""
        return repr(self.value)


class ChannelKind(StrEnum):
    """What one channel is; ActionLayout defines what the values mean."""

    X = "x"
    Y = "y"
    Z = "z"
    RX = "rx"
    RY = "ry"
    RZ = "rz"
    JOINT = "joint"
    GRIPPER = "gripper"
    HAND = "hand"
    WAIST = "waist"
    DX = "dx"
    DY = "dy"
    DTHETA = "dtheta"
    VX = "vx"
    VY = "vy"
    WZ = "wz"


TRANSLATION = (ChannelKind.X, ChannelKind.Y, ChannelKind.Z)
ROTATION = (ChannelKind.RX, ChannelKind.RY, ChannelKind.RZ)
POSE = (*TRANSLATION, *ROTATION)
BASE = {
    ControlMode.BASE_WAYPOINTS: (ChannelKind.DX, ChannelKind.DY, ChannelKind.DTHETA),
    ControlMode.BASE_VELOCITY: (ChannelKind.VX, ChannelKind.VY, ChannelKind.WZ),
}
KINDS = BASE | {
    ControlMode.EEF_DELTA: (*POSE, ChannelKind.GRIPPER),
    ControlMode.JOINT_POSITION: (ChannelKind.JOINT, ChannelKind.GRIPPER, ChannelKind.HAND, ChannelKind.WAIST),
}
UNITS: dict[ChannelKind, Unit] = {
    **dict.fromkeys((*TRANSLATION, ChannelKind.DX, ChannelKind.DY), "m"),
    **dict.fromkeys((*ROTATION, ChannelKind.DTHETA), "rad"),
    **dict.fromkeys((ChannelKind.VX, ChannelKind.VY), "m/s"),
    ChannelKind.WZ: "rad/s",
    ChannelKind.GRIPPER: "1",
}


def arm_channel(arm: str, what: str) -> str:
    """Return the channel name of `what` of an arm: `what` itself for the only arm, whose label is empty."""
    return f"{arm}_{what}" if arm else what


@dataclass(frozen=True)
class Channel:
    """One column of a chunk.

    Attributes:
        kind: what it is.
        arm: label of the arm; empty for the only one, for the waist and for a base.
        unit: "1" is dimensionless; empty for a joint of which only the name is known.
        continuous: an angle that is the same after a full turn.
        joint: URDF name, for a joint of an arm, of a dexterous hand or of the waist.
    """

    kind: ChannelKind
    arm: str = ""
    unit: Unit = ""
    continuous: bool = False
    joint: str = ""

    @classmethod
    def of(cls, kind: ChannelKind, arm: str = "") -> "Channel":
        """Return a channel that is not a joint."""
        return cls(kind, arm, UNITS[kind], continuous=kind is ChannelKind.DTHETA)

    @property
    def name(self) -> str:
        """The name in ActionChunk.channel_names."""
        return self.joint or arm_channel(self.arm, self.kind)


def parse_channels(
    control_mode: ControlMode, names: Sequence[str], joints: Mapping[str, bool] | None
) -> tuple[Channel, ...]:
    """Parse channel names; see ActionLayout.parse."""
    parsed = {name: _parsed(control_mode, name, joints) for name in names}
    found = {name: channel for name, channel in parsed.items() if channel is not None}
    unknown = [name for name in parsed if name not in found]
    if unknown:
        by_joint = control_mode is ControlMode.JOINT_POSITION
        raise unknown_channels(control_mode, unknown, (*(joints or ()), ChannelKind.GRIPPER) if by_joint else None)
    return tuple(found[name] for name in names)


def unknown_channels(
    control_mode: ControlMode, names: Collection[str], known: Collection[str] | None = None
) -> ValueError:
    """Return the error that names the channels a control mode does not have, and those it has."""
    arms = "" if control_mode.moves_base else "; with two arms as in left_gripper"
    return ValueError(
        f"{control_mode} has no channel {', '.join(names)}; it has {', '.join(known or KINDS[control_mode])}{arms}"
    )


def _parsed(control_mode: ControlMode, name: str, joints: Mapping[str, bool] | None) -> Channel | None:
    """Return the channel of a name, None if the control mode does not have it."""
    if joints is not None and name in joints and control_mode is ControlMode.JOINT_POSITION:
        return Channel(ChannelKind.JOINT, continuous=joints[name], joint=name)
    arm, _, kind = ("", "", name) if control_mode.moves_base else name.rpartition("_")
    named = [own for own in KINDS[control_mode] if own in UNITS and own == kind and arm_channel(arm, own) == name]
    if named:
        return Channel.of(named[0], arm)
    any_joint = control_mode is ControlMode.JOINT_POSITION and joints is None
    return Channel(ChannelKind.JOINT, joint=name) if any_joint else None
