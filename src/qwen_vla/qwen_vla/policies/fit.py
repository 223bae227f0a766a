"""Checks whether a policy fits the robot: the inputs it needs, and the robot it was trained for. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from embodiment_descriptions import ControlMode, Embodiment


class Trained(Protocol):
    """What an entry of a checkpoint's embodiments.json says about its robot."""

    @property
    def control_mode(self) -> ControlMode | str: ...

    @property
    def channel_names(self) -> tuple[str, ...]: ...

    @property
    def period(self) -> float: ...

    @property
    def horizon(self) -> int: ...


def training_misfits(trained: Trained, embodiment: Embodiment) -> list[str]:
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
