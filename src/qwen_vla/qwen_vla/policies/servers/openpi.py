# SPDX-License-Identifier: Apache-2.0
"""A policy behind openpi's websocket protocol, our server or another: `openpi://HOST:PORT[,FILE.yaml]`.

A server of ours describes its inputs and outputs itself. Others describe nothing, or little: the file does. Either is
compared with the robot before the first request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from embodiment_descriptions import Embodiment
from qwen_vla.errors.validation_errors import as_text
from qwen_vla.policies.chunk_policy import ActionChunk, Observation, PolicyOptions
from qwen_vla.policies.servers.connection import KEY
from qwen_vla.policies.servers.needs import ServerNeeds
from qwen_vla.policies.servers.openpi_connection import OpenPiConnection
from qwen_vla.policies.servers.policy import ServerPolicy
from qwen_vla.serving.messages import describe


class OpenPiNeeds(ServerNeeds):
    """What differs from server to server of this protocol; a key `images.X` is X in the map `images`.

    Attributes:
        channels: of the columns of `actions`, in order.
        channels_first: images are sent 3×H×W.
        seeded: whether it accepts `seed`.
    """

    channels: tuple[str, ...] = Field(min_length=1)
    channels_first: bool = False
    seeded: bool = False

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels of a chunk, in order."""
        return self.channels

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> OpenPiNeeds:
        """From the metadata of a server of ours; ValueError for those of another."""
        try:
            state = tuple(each["name"] for each in metadata["state"])
            return cls(
                cameras={tag: f"images.{tag}" for tag in metadata["cameras"]},
                state={"state": state} if state else {},
                control_mode=metadata["control_mode"],
                channels=tuple(each["name"] for each in metadata["actions"]),
                period=metadata["period"],
                horizon=metadata["horizon"],
                execution_horizon=metadata["execution_horizon"],
                seeded=True,
                history_frames=metadata["history"]["frames"],
                history_rate=metadata["history"]["rate_hz"],
            )
        except (KeyError, TypeError, ValidationError) as error:
            lacking = as_text(error, "metadata") if isinstance(error, ValidationError) else f"no {error}"
            raise ValueError(
                f"the server does not describe its inputs ({lacking}); do so in a file, openpi://HOST:PORT,FILE.yaml"
            ) from error


def open_openpi(address: str, embodiment: Embodiment, options: PolicyOptions) -> OpenPiPolicy:
    """Connect, and read the server's needs.

    Raises:
        ValueError, FileNotFoundError: no such file, or it or the server's metadata are invalid.
        ConnectionError: no server responds.
    """
    place, _, file = address.partition(",")
    needs = OpenPiNeeds.from_file(Path(file).expanduser()) if file else None
    connection = OpenPiConnection(place, os.environ.get(KEY, ""))
    connection.open()
    if needs is not None:
        return OpenPiPolicy(connection, needs, embodiment)
    kind = ContinuingOpenPiPolicy if connection.metadata.get("continues") is True else OpenPiPolicy
    return kind(connection, OpenPiNeeds.from_metadata(connection.metadata), embodiment)


class OpenPiPolicy(ServerPolicy):
    """Any server of this protocol."""

    _needs: OpenPiNeeds

    @property
    def policy_name(self) -> str:
        """The served policy's name in the metadata."""
        return _text(self._connection.metadata.get("policy"))

    @property
    def policy_hash(self) -> str:
        """The served checkpoint's hash in the metadata."""
        return _text(self._connection.metadata.get("checkpoint_hash"))

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        """Differences between the server's robot and this one, a phrase each."""
        named = self._connection.metadata.get("embodiment", embodiment.name)
        other = [f"robot: the server drives {named}, this is {embodiment.name}"] if named != embodiment.name else []
        return [*other, *super().misfits(embodiment)]

    def _fields(self, observation: Observation, seed: int | None) -> dict[str, Any]:
        needs = self._needs
        fields: dict[str, Any] = {needs.prompt: observation.instruction}
        for key, image in self._images(observation).items():
            _put(fields, key, np.moveaxis(image, -1, -3) if needs.channels_first else image)
        for key, positions in self._states(observation).items():
            _put(fields, key, positions)
        if seed is not None and needs.seeded:
            fields["seed"] = seed
        return fields

    def _actions(self, answer: Mapping[str, Any]) -> np.ndarray:
        needs = self._needs
        return self._expect("actions", answer.get("actions"), (needs.horizon, len(needs.channels)))

    def _delay(self, answer: Mapping[str, Any]) -> int:
        delay = answer.get("inference_delay", 0)
        if type(delay) is not int or not 0 <= delay <= self._needs.horizon:
            raise ArithmeticError(f"inference_delay must be 0 to {self._needs.horizon}, got {describe(delay)}")
        return delay


class ContinuingOpenPiPolicy(OpenPiPolicy):
    """A server of ours, which can continue a chunk."""

    def continue_chunk(
        self,
        observation: Observation,
        previous_chunk: ActionChunk,
        inference_delay: int | None = None,
        execution_horizon: int | None = None,
        *,
        consumed: int | None = None,
        schedule: str = "exponential",
        seed: int | None = None,
    ) -> ActionChunk:
        """See `ContinuingPolicy`; errors as in `infer`."""
        if consumed is None:
            consumed = round((observation.stamp_ns - previous_chunk.stamp_ns) * 1e-9 / self._needs.period)
        given = {
            "previous_chunk": np.asarray(previous_chunk.data, np.float32),
            "previous_tip_poses": _by_arm(previous_chunk.tip_poses),
            "tip_poses": _by_arm(observation.tip_poses),
            "consumed": consumed,
            "inference_delay": inference_delay,
            "execution_horizon": execution_horizon,
            "schedule": schedule,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return self._chunk(observation, self._fields(observation, seed) | given)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _by_arm(poses: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    return {arm: np.asarray(pose, np.float64) for arm, pose in poses.items()} if poses else None


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    """Set a key; one with a dot, in the map named before it."""
    outer, point, inner = key.partition(".")
    if point:
        fields.setdefault(outer, {})[inner] = value
    else:
        fields[key] = value
