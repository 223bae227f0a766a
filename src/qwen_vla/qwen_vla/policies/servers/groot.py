# SPDX-License-Identifier: Apache-2.0
"""A policy behind GR00T's ZeroMQ protocol: `groot://HOST:PORT,FILE.yaml`.

The server names its keys and how many times it reads; what they mean for this robot is defined by the file. Both are
compared with each other and with the robot before the first request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from embodiment_descriptions import Embodiment
from qwen_vla.policies.chunk_policy import Observation, PolicyOptions
from qwen_vla.policies.servers.connection import KEY
from qwen_vla.policies.servers.groot_connection import GrootConnection
from qwen_vla.policies.servers.needs import ServerNeeds
from qwen_vla.policies.servers.policy import ServerPolicy
from qwen_vla.serving.messages import describe, msgpack_numpy_array, npy_array

ENCODINGS = {"npy": npy_array, "msgpack_numpy": msgpack_numpy_array}


class GrootNeeds(ServerNeeds):
    """What differs from server to server of this protocol; keys are those of its modality configuration.

    Attributes:
        actions: the server's key -> channels of its columns, in order; those of a key are neighbors in the robot, too.
        arrays: their encoding in requests; npy is NVIDIA's own.
    """

    prompt: str = "task"
    actions: dict[str, tuple[str, ...]] = Field(min_length=1)
    arrays: Literal["npy", "msgpack_numpy"] = "npy"

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels of a chunk, in order."""
        return tuple(channel for channels in self.actions.values() for channel in channels)

    def in_order_of(self, robot: Sequence[str]) -> GrootNeeds:
        """The same, with the keys of the actions in the order of the robot's channels."""
        order = {channel: number for number, channel in enumerate(robot)}
        keys = sorted(
            self.actions, key=lambda key: min((order.get(c, len(order)) for c in self.actions[key]), default=0)
        )
        return self.model_copy(update={"actions": {key: self.actions[key] for key in keys}})


def open_groot(address: str, embodiment: Embodiment, options: PolicyOptions) -> GrootPolicy:
    """Connect, and read the server's modality configuration.

    Raises:
        ValueError, FileNotFoundError: no such file, or it is invalid.
        ConnectionError: no server responds.
    """
    place, _, file = address.partition(",")
    if not file:
        raise ValueError("a GR00T server does not describe its units; do so in a file, groot://HOST:PORT,FILE.yaml")
    needs = GrootNeeds.from_file(Path(file).expanduser()).in_order_of(embodiment.channel_names)
    connection = GrootConnection(place, os.environ.get(KEY, ""), ENCODINGS[needs.arrays])
    connection.open()
    return GrootPolicy(connection, needs, embodiment)


class GrootPolicy(ServerPolicy):
    """Any server of this protocol; each request is a batch of one."""

    _needs: GrootNeeds

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        """Differences between server and file, and between the server's robot and this one, a phrase each."""
        return [*self._differences(), *super().misfits(embodiment)]

    def _differences(self) -> Iterator[str]:
        needs, modalities = self._needs, self._connection.metadata
        for name, keys in (
            ("video", needs.cameras.values()),
            ("state", needs.state),
            ("action", needs.actions),
            ("language", [needs.prompt]),
        ):
            served = modalities.get(name, {"keys": []})["keys"]
            if sorted(served) != sorted(keys):
                yield f"{name}: the server has {', '.join(served) or 'none'}, the file {', '.join(keys) or 'none'}"
        for name, what, times in (
            ("video", "history_frames", needs.history_frames),
            ("action", "horizon", needs.horizon),
        ):
            served = modalities.get(name, {"times": times})["times"]
            if served != times:
                yield f"{what}: the server has {served}, the file {times}"

    def _fields(self, observation: Observation, seed: int | None) -> dict[str, Any]:
        frames = {key: self._history(image)[None] for key, image in self._images(observation).items()}
        states = {key: positions[None, None] for key, positions in self._states(observation).items()}
        language = {self._needs.prompt: [[observation.instruction]]}
        options = None if seed is None else {"seed": seed}  # other servers ignore it
        seen = {"video": frames, "state": states, "language": language}
        return {"endpoint": "get_action", "data": {"observation": seen, "options": options}}

    def _history(self, image: np.ndarray) -> np.ndarray:
        """Frames T×H×W×3; where the history has just begun, its oldest frame is repeated."""
        frames = image if image.ndim == 4 else image[None]
        missing = self._needs.history_frames - len(frames)
        return np.concatenate([np.repeat(frames[:1], missing, axis=0), frames]) if missing > 0 else frames

    def _actions(self, answer: Any) -> np.ndarray:
        actions = answer[0] if isinstance(answer, list) and answer else answer
        if not isinstance(actions, dict):
            raise ArithmeticError(f"{self._connection}: the response must be [actions, info], got {describe(answer)}")
        rows = self._needs.horizon
        parts = [
            self._expect(f"action {key}", actions.get(key), (1, rows, len(channels)))[0]
            for key, channels in self._needs.actions.items()
        ]
        return np.hstack(parts)
