# SPDX-License-Identifier: Apache-2.0
"""The channels of one control mode as the columns of a chunk: selected by kind, decoded, encoded, compared."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embodiment_descriptions.actions.channels import (
    BASE,
    KINDS,
    POSE,
    ROTATION,
    TRANSLATION,
    Channel,
    ChannelKind,
    ControlMode,
    arm_channel,
    parse_channels,
    unknown_channels,
)
from embodiment_descriptions.angles import unwrapped, wrapped

Columns = NDArray[np.intp]


@dataclass(frozen=True)
class ArmAction:
    """One arm's part of an action, or of actions with leading axes (...).

    Attributes:
        arm: its label.
        motion: (..., 6) end-effector delta [m, rad], or (..., joints) positions [rad | m].
        gripper: (...,) opening, 0 closed .. 1 open; None without a gripper.
        hand: (..., joints) positions of a dexterous hand [rad | m]; None where no channel moves one.
    """

    arm: str
    motion: NDArray
    gripper: NDArray | None = None
    hand: NDArray | None = None


@dataclass(frozen=True)
class Action:
    """An action, or actions with leading axes (...), by what it moves.

    Attributes:
        arms: in the order of the channels; empty for a base.
        waist: (..., joints) positions of the torso [rad | m]; None where no channel moves it.
        base: (..., 3) waypoints [m, m, rad] or velocities [m/s, m/s, rad/s]; None for arms.
    """

    arms: tuple[ArmAction, ...] = ()
    waist: NDArray | None = None
    base: NDArray | None = None


@dataclass(frozen=True)
class ActionLayout:
    """The channels of one control mode, in the order of the columns.

    eef_delta: per arm x y z [m] and rotation vector rx ry rz [rad] relative to the tip at the observation, then gripper
    0 closed .. 1 open where it has one. joint_position: per arm its joints [rad | m], gripper and the joints of its
    dexterous hand, then those of the waist. base_waypoints: poses dx dy [m] dtheta [rad] relative to the base at the
    observation. base_velocity: vx vy [m/s] wz [rad/s] in the base frame.

    Raises:
        ValueError: a channel that the control mode does not have, a missing one, or a duplicate.
    """

    control_mode: ControlMode
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        """Check that the channels are those of the control mode."""
        duplicates = sorted({name for name in self.names if self.names.count(name) > 1})
        if duplicates:
            raise ValueError(f"{self.control_mode}: more than one channel is called {', '.join(duplicates)}")
        wrong = [channel.name for channel in self.channels if channel.kind not in KINDS[self.control_mode]]
        if wrong:
            raise unknown_channels(self.control_mode, wrong)
        present = {(channel.arm, channel.kind) for channel in self.channels}
        missing = [arm_channel(*place) for place in self._required() if place not in present]
        if missing or not self.channels:
            has = ", ".join(self.names) or "none"
            raise ValueError(f"{self.control_mode}: the channels {has} lack {', '.join(missing) or 'everything'}")

    @classmethod
    def of_base(cls, control_mode: ControlMode) -> "ActionLayout":
        """Return the channels of a mobile base."""
        return cls(control_mode, tuple(Channel.of(kind) for kind in BASE[control_mode]))

    @classmethod
    def parse(
        cls, control_mode: ControlMode, names: Sequence[str], joints: Mapping[str, bool] | None = None
    ) -> "ActionLayout":
        """Parse channel names, as in ActionChunk.channel_names.

        A joint's name gives neither its arm nor its unit, nor whether it belongs to the waist: all joints get the kind
        `joint` and an empty `arm`.

        Args:
            control_mode: determines what names mean.
            names: in the order of the columns.
            joints: of the robot, name -> continuous. None: every channel of joint_position but grippers is a joint.

        Raises:
            ValueError: names that the control mode does not have, with those it has; or as for the class.
        """
        return cls(control_mode, parse_channels(control_mode, names, joints))

    # --- columns ----------------------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Channel names, as in ActionChunk.channel_names."""
        return tuple(channel.name for channel in self.channels)

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Labels of the arms in order: an empty label for the only arm; no labels for a base."""
        labels = (channel.arm for channel in self.channels if channel.kind is not ChannelKind.WAIST)
        return () if self.control_mode.moves_base else tuple(dict.fromkeys(labels))

    @cached_property
    def translations(self) -> Columns:
        """Translations of end effectors."""
        return self._of(TRANSLATION)

    @cached_property
    def rotations(self) -> Columns:
        """Rotation vectors of end effectors."""
        return self._of(ROTATION)

    @cached_property
    def joints(self) -> Columns:
        """Joint positions, including those of hands and of the waist; no grippers."""
        return self._of((ChannelKind.JOINT, ChannelKind.HAND, ChannelKind.WAIST))

    @cached_property
    def waist(self) -> Columns:
        """Joint positions of the waist."""
        return self._of((ChannelKind.WAIST,))

    @cached_property
    def grippers(self) -> Columns:
        """Gripper openings."""
        return self._of((ChannelKind.GRIPPER,))

    @cached_property
    def base(self) -> Columns:
        """The three channels of a base; empty for arms."""
        return self._of(BASE.get(self.control_mode, ()))

    @cached_property
    def continuous(self) -> Columns:
        """Angles that are the same after a full turn."""
        return np.flatnonzero([channel.continuous for channel in self.channels])

    def arm(self, label: str) -> Columns:
        """All channels of an arm, including its gripper and hand; KeyError for a label that is not in `arms`."""
        self._check_arm(label)
        return self._of((*POSE, ChannelKind.JOINT, ChannelKind.GRIPPER, ChannelKind.HAND), label)

    def motion(self, label: str) -> Columns:
        """The channels that move the tip of an arm: the six of its delta, in the order of POSE, or its joints."""
        self._check_arm(label)
        if self.control_mode is not ControlMode.EEF_DELTA:
            return self._of((ChannelKind.JOINT,), label)
        place = {(channel.arm, channel.kind): column for column, channel in enumerate(self.channels)}
        return np.array([place[label, kind] for kind in POSE])

    # --- values -----------------------------------------------------------------------------------------------------

    def decode(self, rows: ArrayLike) -> Action:
        """Split rows (..., channels) into their parts, which are copies.

        Raises:
            ValueError: a wrong number of channels.
        """
        rows = self._checked(rows)
        return Action(
            tuple(self._arm_action(rows, label) for label in self.arms),
            rows[..., self.waist] if len(self.waist) else None,
            rows[..., self.base] if len(self.base) else None,
        )

    def encode(self, action: Action) -> NDArray[np.float64]:
        """Return rows (..., channels); the inverse of `decode`.

        Raises:
            ValueError: the parts belong to another layout.
        """
        parts = [(self.motion(part.arm), part.motion) for part in action.arms]
        for part in action.arms:
            if part.gripper is not None:
                parts.append((self._gripper(part.arm), np.asarray(part.gripper)[..., None]))
        parts += [(self._hand(part.arm), part.hand) for part in action.arms if part.hand is not None]
        parts += [(self.waist, action.waist)] if action.waist is not None else []
        parts += [(self.base, action.base)] if action.base is not None else []
        given = [int(column) for columns, _ in parts for column in columns]
        widths = [(len(columns), np.shape(values)[-1]) for columns, values in parts]
        if sorted(given) != list(range(len(self.channels))) or any(own != width for own, width in widths):
            filled = ", ".join(self.names[column] for column in given) or "none"
            raise ValueError(
                f"an action of {sum(width for _, width in widths)} values for {filled} of the channels "
                f"{', '.join(self.names)}; give every channel one value"
            )
        rows = np.empty((*np.shape(parts[0][1])[:-1], len(self.channels)))
        for columns, values in parts:
            rows[..., columns] = values
        return rows

    def difference(self, b: ArrayLike, a: ArrayLike) -> NDArray[np.float64]:
        """Return b - a (..., channels) per channel; for continuous joints and headings, the shorter rotation."""
        found = self._checked(b) - self._checked(a)
        found[..., self.continuous] = wrapped(found[..., self.continuous])
        return found

    def unwrap(self, rows: ArrayLike, towards: ArrayLike) -> NDArray[np.float64]:
        """Return rows (..., steps, channels) whose continuous joints and headings do not jump by 2 pi.

        Args:
            rows: of a chunk.
            towards: (..., channels) as measured: the first row is shifted by full turns to be nearest to it, every
                other row to be nearest to the row before. Only continuous joints and headings change.
        """
        rows, towards = self._checked(rows).copy(), self._checked(towards)
        rows[..., self.continuous] = unwrapped(rows[..., self.continuous], towards[..., self.continuous])
        return rows

    def of_joints(self, names: Sequence[str], positions: ArrayLike) -> NDArray[np.float64]:
        """Return rows (..., channels) of joint positions (..., len(names)) [rad | m]; 0 in every other channel.

        Joints without a channel are ignored; channels of joints that are not among the names are 0, too.
        """
        positions, place = np.asarray(positions, np.float64), {name: column for column, name in enumerate(names)}
        known = [column for column in self.joints if self.names[column] in place]
        rows = np.zeros((*positions.shape[:-1], len(self.channels)))
        rows[..., known] = positions[..., [place[self.names[column]] for column in known]]
        return rows

    # --- internal ---------------------------------------------------------------------------------------------------

    def _of(self, kinds: Collection[ChannelKind], arm: str | None = None) -> Columns:
        return np.flatnonzero([c.kind in kinds and arm in (None, c.arm) for c in self.channels])

    def _gripper(self, label: str) -> Columns:
        return self._of((ChannelKind.GRIPPER,), label)

    def _hand(self, label: str) -> Columns:
        return self._of((ChannelKind.HAND,), label)

    def _arm_action(self, rows: NDArray, label: str) -> ArmAction:
        gripper, hand = self._gripper(label), self._hand(label)
        return ArmAction(
            label,
            rows[..., self.motion(label)],
            rows[..., gripper[0]] if len(gripper) else None,
            rows[..., hand] if len(hand) else None,
        )

    def _required(self) -> list[tuple[str, ChannelKind]]:
        kinds = POSE if self.control_mode is ControlMode.EEF_DELTA else ()
        return [("", kind) for kind in BASE.get(self.control_mode, ())] + [(a, k) for a in self.arms for k in kinds]

    def _check_arm(self, label: str) -> None:
        if label not in self.arms:
            raise KeyError(
                f"no arm is called {label!r}; the channels are of {', '.join(map(repr, self.arms)) or 'none'}"
            )

    def _checked(self, rows: ArrayLike) -> NDArray[np.float64]:
        rows = np.asarray(rows, np.float64)
        if rows.shape[-1:] != (len(self.channels),):
            raise ValueError(f"{rows.shape} values for {len(self.channels)} channels: {', '.join(self.names)}")
        return rows
