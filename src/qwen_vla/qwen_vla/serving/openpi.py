# SPDX-License-Identifier: Apache-2.0
"""openpi's websocket protocol, and RoboArena's dialect of it: metadata first, then one response per observation.

docs/reference/protocols.md lists every key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from qwen_vla.policies import Observation
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.messages import RequestError, describe, openpi_array, pack, unpack
from qwen_vla.serving.request import Request
from qwen_vla.serving.request_reader import RequestReader
from qwen_vla.serving.served_policy import ServedPolicy

logger = logging.getLogger(__name__)
PAGES = {"/healthz": "OK\n"}
FLAT = "observation/"  # prefix of the names of cameras and of the following
STATE, JOINTS, GRIPPER = "observation/state", "observation/joint_position", "observation/gripper_position"
NO_CAMERAS = (STATE, JOINTS, GRIPPER, "observation/cartesian_position")
CONTINUATION = (
    "previous_chunk", "previous_tip_poses", "tip_poses", "consumed", "inference_delay", "execution_horizon", "schedule",
)  # fmt: skip
KNOWN = ("images", "state", "prompt", "seed", "endpoint", "session_id", *CONTINUATION)
RESET = "reset successful"


class OpenPiSession:
    """One connection of an openpi client."""

    ends_on_error = True

    def __init__(self, number: int, served: ServedPolicy, queue: InferenceQueue) -> None:
        self._number, self._served, self._queue = number, served, queue
        self._reader = RequestReader(served)
        self._previous_ms: float | None = None
        self._ignored: set[str] = set()

    def greeting(self) -> bytes:
        """The metadata."""
        return pack(self._served.metadata, openpi_array)

    async def answer(self, frame: bytes | str) -> bytes | str:
        """A chunk with its times, or the acknowledgment of a reset."""
        began = time.perf_counter()
        fields = unpack(frame)
        if self._endpoint(fields) == "reset":
            return RESET
        answer = await self._queue.infer(self._number, self._request(fields))
        timing = {"infer_ms": answer.infer_ms, "wait_ms": answer.wait_ms, "batch": answer.batch}
        if self._previous_ms is not None:
            timing["prev_total_ms"] = self._previous_ms
        chunk = answer.chunk
        reply = {
            "actions": np.asarray(chunk.data, np.float32),
            "server_timing": timing,
            "execution_horizon": chunk.execution_horizon,
            "inference_delay": chunk.inference_delay,
        }
        self._previous_ms = 1e3 * (time.perf_counter() - began)
        return pack(reply, openpi_array)

    def refusal(self, error: RequestError) -> str:
        """A text frame, by which openpi's clients recognize an error."""
        return str(error)

    def _endpoint(self, fields: Mapping[str, Any]) -> str:
        if fields.get("session_id") is not None:
            self._reader.text("session_id", fields["session_id"])
        return self._reader.choice("endpoint", fields.get("endpoint", "infer"), ("infer", "reset"))

    def _request(self, fields: Mapping[str, Any]) -> Request:
        self._note_ignored(fields)
        reader = self._reader
        observation = Observation(
            images=reader.images(_images(fields)),
            instruction=reader.instruction("prompt", fields.get("prompt")),
            state=reader.state(*_state(fields)),
            tip_poses=reader.tip_poses("tip_poses", fields.get("tip_poses")),
        )
        return Request(observation, reader.seed(fields.get("seed")), reader.previous(fields))

    def _note_ignored(self, fields: Mapping[str, Any]) -> None:
        """Log unread fields once: clients of other servers send more than is needed here."""
        unread = {name for name in fields if name not in KNOWN and not name.startswith(FLAT)} - self._ignored
        if unread and len(self._ignored) < len(KNOWN):
            logger.warning("client %d sends fields that are not read: %s", self._number, sorted(unread)[:10])
            self._ignored |= unread


def _images(fields: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Field and value of each camera's image, in either naming."""
    images = fields.get("images", {})
    if not isinstance(images, Mapping):
        raise RequestError(f"images: must be a map of a camera to its image, got {describe(images)}")
    nested = {tag: (f"images.{tag}", image) for tag, image in images.items()}
    flat = {
        name.removeprefix(FLAT): (name, image)
        for name, image in fields.items()
        if name.startswith(FLAT) and name not in NO_CAMERAS
    }
    if both := nested.keys() & flat.keys():
        raise RequestError(f"images.{min(both)}: given twice, also as {FLAT}{min(both)}")
    return nested | flat


def _state(fields: Mapping[str, Any]) -> tuple[str, Any]:
    """Field and value of the state: a single field, or RoboArena's joints and gripper concatenated."""
    for name in ("state", STATE):
        if fields.get(name) is not None:
            return name, fields[name]
    parts = [fields[name] for name in (JOINTS, GRIPPER) if isinstance(fields.get(name), np.ndarray)]
    return ("state", np.concatenate([part.ravel() for part in parts])) if parts else ("state", None)
