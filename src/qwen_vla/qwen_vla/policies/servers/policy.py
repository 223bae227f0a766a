# SPDX-License-Identifier: Apache-2.0
"""A policy on a server, whatever its protocol: no response is trusted. Shape and values are checked here, motion by the
gate.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.policies.chunk_policy import ActionChunk, Observation
from qwen_vla.policies.fit import training_misfits
from qwen_vla.policies.servers.connection import ServerConnection
from qwen_vla.policies.servers.needs import ServerNeeds
from qwen_vla.serving.messages import describe


class ServerPolicy(ABC):
    """Requests each chunk."""

    def __init__(self, connection: ServerConnection, needs: ServerNeeds, embodiment: Embodiment) -> None:
        """connection: open."""
        self._connection, self._needs, self._robot = connection, needs, embodiment
        self.camera_tags = tuple(needs.cameras)
        self.state_names = needs.joints
        self.history = needs.history

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        """Differences between the server's robot and this one, a phrase each."""
        needs = self._needs
        return [
            *training_misfits(needs, embodiment),
            *(f"state_units: {name} is not in the state" for name in needs.state_units if name not in needs.joints),
            *(f"action_units: no channel {name}" for name in needs.action_units if name not in needs.channel_names),
        ]

    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        """The next chunk.

        Raises:
            ConnectionError, TimeoutError: the server is gone or does not respond in time; the next call reconnects.
            ValueError: it refuses the observation, or the observation lacks something.
            ArithmeticError: its response is not a chunk of this robot.
        """
        return self._chunk(observation, self._fields(observation, seed))

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    @abstractmethod
    def _fields(self, observation: Observation, seed: int | None) -> dict[str, Any]:
        """The request for a chunk."""

    @abstractmethod
    def _actions(self, answer: Any) -> np.ndarray:
        """The chunk [horizon, channels] in a response, in the server's units; `_expect` checks its parts."""

    def _delay(self, answer: Any) -> int:
        """Leading rows that repeat what was being executed."""
        return 0

    def _chunk(self, observation: Observation, fields: Mapping[str, Any]) -> ActionChunk:
        began, needs = time.perf_counter(), self._needs
        answer = self._connection.ask(fields, needs.answer_seconds)
        data = needs.received_chunk(self._actions(answer))
        if not np.isfinite(data).all():
            raise FloatingPointError(f"{self._connection} sent actions that are not finite")
        return ActionChunk(
            data=data,
            channel_names=needs.channel_names,
            period=needs.period,
            control_mode=needs.control_mode,
            embodiment=self._robot.name,
            instruction=observation.instruction,
            stamp_ns=observation.stamp_ns,
            inference_ms={"total": 1e3 * (time.perf_counter() - began)},
            execution_horizon=min(needs.execution_horizon or max(1, needs.horizon // 2), len(data)),
            tip_poses=observation.tip_poses,
            inference_delay=self._delay(answer),
        )

    def _images(self, observation: Observation) -> dict[str, np.ndarray]:
        """The server's key and image H×W×3, or history of them T×H×W×3, of each camera."""
        for tag in self.camera_tags:
            if observation.images.get(tag) is None:
                raise ValueError(f"the observation lacks the image of {tag}")
        return {key: self._resized(np.asarray(observation.images[tag])) for tag, key in self._needs.cameras.items()}

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if image.ndim == 4:
            return np.stack([self._resized(frame) for frame in image])
        return with_borders(image, self._needs.image_size) if self._needs.image_size else image

    def _states(self, observation: Observation) -> dict[str, np.ndarray]:
        """The server's key and float32 positions of each part of the state."""
        joints, state = self._needs.joints, observation.state
        if not joints:
            return {}
        if state is None or np.shape(state) != (len(joints),):
            raise ValueError(f"the state must be {len(joints)} numbers, got {describe(state)}")
        return dict(self._needs.sent_state(state))

    def _expect(self, what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        """An array of this shape; ArithmeticError if it is not one."""
        if not isinstance(value, np.ndarray) or value.shape != shape:
            raise ArithmeticError(f"{self._connection}: {what} must be {list(shape)}, got {describe(value)}")
        return value


def with_borders(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image resized with its aspect ratio kept by black borders, as in the training of openpi's models."""
    height, width = image.shape[:2]
    share = min(size[0] / height, size[1] / width)
    inner = max(1, round(share * height)), max(1, round(share * width))
    smaller = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR)
    whole = np.zeros((*size, 3), image.dtype)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    whole[top : top + inner[0], left : left + inner[1]] = smaller
    return whole
