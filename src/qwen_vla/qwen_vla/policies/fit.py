# SPDX-License-Identifier: Apache-2.0
"""Checks whether a policy fits the robot: its inputs, the robot of its training, its statistics. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from embodiment_descriptions import Channel, ChannelKind, ControlMode, Embodiment
from embodiment_descriptions.actions.channels import BASE, ROTATION, TRANSLATION
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.normalization import Quantiles

LIMIT_MARGIN = 0.05  # share of a joint's range by which demonstrations may exceed the limits of the URDF
FARTHEST = 3.0  # [m] no arm moves its tip this far in one chunk


class TrainedRobot(Protocol):
    """What a policy's chunks are, of the robot that it was trained for: an `EmbodimentInfo`, or a server's needs."""

    @property
    def control_mode(self) -> ControlMode: ...
    @property
    def channel_names(self) -> tuple[str, ...]: ...
    @property
    def period(self) -> float: ...  # [s]
    @property
    def horizon(self) -> int: ...


def training_misfits(trained: TrainedRobot, embodiment: Embodiment) -> list[str]:
    """Differences between the robot that a policy was trained for and the actual one, a phrase each."""
    pairs = {
        "control mode": (trained.control_mode, embodiment.control_mode),
        "channels": (" ".join(trained.channel_names), " ".join(embodiment.channel_names)),
        "period [s]": (round(trained.period, 9), round(embodiment.period, 9)),
        "chunk size": (trained.horizon, embodiment.chunk_size),
    }
    return [f"{what}: trained with {a}, the robot has {b}" for what, (a, b) in pairs.items() if a != b]


def missing_inputs(camera_tags: Sequence[str], state_names: Sequence[str], embodiment: Embodiment) -> Iterator[str]:
    """Inputs that a policy needs and the robot does not have: cameras and joints, a phrase each."""
    for what, needed, present in (
        ("cameras", camera_tags, [camera.tag for camera in embodiment.cameras]),
        ("joints", state_names, embodiment.joint_names),
    ):
        missing = [name for name in needed if name not in present]
        if missing:
            yield f"{what}: the policy needs {', '.join(missing)}, the robot has {', '.join(present) or 'none'}"


def statistics_misfit(statistics: Quantiles, trained: EmbodimentInfo) -> str:
    """Why statistics cannot scale the actions of a robot: other channels, or in another order; empty if they can."""
    if statistics.channel_names and statistics.channel_names != trained.channel_names:
        return (
            f"statistics {trained.dataset!r}: their channels are {' '.join(statistics.channel_names)}, those of "
            f"{trained.name!r} {' '.join(trained.channel_names)}; the order determines which joint moves"
        )
    if len(statistics.q01) != len(trained.channel_names):
        return (
            f"statistics of {trained.dataset!r} have {len(statistics.q01)} channels, embodiment {trained.name!r} has "
            f"{len(trained.channel_names)}"
        )
    return ""


def checkpoint_misfits(trained: EmbodimentInfo, statistics: Quantiles | None, embodiment: Embodiment) -> Iterator[str]:
    """Why a checkpoint must not drive a robot, beyond `training_misfits`; a phrase each."""
    if embodiment.cameras and not trained.camera_tags:
        yield "cameras: it has none (camera_tags is empty) and would act blindly"
    if statistics is None:
        yield f"normalization.json has no statistics for {trained.dataset!r}"
    elif wrong := statistics_misfit(statistics, trained):
        yield wrong
    elif outside := outside_limits(statistics, trained, embodiment):
        yield f"statistics outside the robot's limits: {'; '.join(outside)}; check the units of its training data"


def outside_limits(statistics: Quantiles, trained: EmbodimentInfo, embodiment: Embodiment) -> list[str]:
    """Channels whose statistics leave the robot's limits, a phrase each; none if the channels themselves differ."""
    if trained.channel_names != embodiment.channel_names:
        return []  # `training_misfits` says so
    columns = zip(
        embodiment.layout.channels,
        channel_bounds(embodiment, trained.relative_actions),
        statistics.q01,
        statistics.q99,
        strict=True,
    )
    return [
        _outside(channel, low, high, bounds) for channel, bounds, low, high in columns if not _inside(low, high, bounds)
    ]


def channel_bounds(robot: Embodiment, relative_actions: bool) -> list[tuple[float, float]]:
    """The plausible range of each action channel in the model, in the channel's unit; see Embodiment.layout."""
    base = robot.safety.base
    linear = base.max_linear if base else math.inf
    angular = base.max_angular if base else math.inf
    step, rotation = linear * robot.period, angular * robot.period  # in the model, waypoints are increments
    sizes = dict.fromkeys(TRANSLATION, FARTHEST) | dict.fromkeys(ROTATION, math.pi)
    sizes |= dict(zip(BASE[ControlMode.BASE_WAYPOINTS], (step, step, rotation), strict=True))
    sizes |= dict(zip(BASE[ControlMode.BASE_VELOCITY], (linear, linear, angular), strict=True))
    ends = {kind: (-size, size) for kind, size in sizes.items()} | {ChannelKind.GRIPPER: (0.0, 1.0)}
    limits = {name: (limit.lower, limit.upper) for name, limit in robot.limits.items()}
    if relative_actions:
        limits = {name: (lower - upper, upper - lower) for name, (lower, upper) in limits.items()}
    return [limits[channel.joint] if channel.joint else ends[channel.kind] for channel in robot.layout.channels]


def _inside(low: float, high: float, bounds: tuple[float, float]) -> bool:
    span = bounds[1] - bounds[0]
    margin = LIMIT_MARGIN * span if math.isfinite(span) else 0.0
    return bool(bounds[0] - margin <= low and high <= bounds[1] + margin)


def _outside(channel: Channel, low: float, high: float, bounds: tuple[float, float]) -> str:
    text = f"{channel.name} {low:.3g}..{high:.3g}, the robot's limits {bounds[0]:.3g}..{bounds[1]:.3g}"
    is_length = channel.unit in ("m", "m/s")
    factor, guess = (1000.0, "millimeters") if is_length else (np.rad2deg(1.0), "degrees")
    likely = channel.kind is not ChannelKind.GRIPPER and _inside(low / factor, high / factor, bounds)
    return f"{text} ({guess}?)" if likely else text
