# SPDX-License-Identifier: Apache-2.0
"""vla-eval's websocket protocol, version 1: a benchmark sends observations and gets one action per step.

docs/reference/protocols.md lists every key, and the conversion of a chunk to a benchmark's actions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import ControlMode
from qwen_vla.policies import Observation
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.messages import RequestError, describe, pack, unpack, vla_eval_array
from qwen_vla.serving.request import Request
from qwen_vla.serving.request_reader import RequestReader
from qwen_vla.serving.served_policy import ServedPolicy

logger = logging.getLogger(__name__)
PAGES = {"/health": '{"status": "ok"}\n', "/config": '{"applied": {}, "config": {}}\n'}
VERSION = 1
TYPES = ("hello", "observation", "episode_start", "episode_end", "error")
POSITION_STEP, ROTATION_STEP = 0.05, 0.5  # scale of 1.0 in robosuite's OSC_POSE [m, rad]
POSE_STATE = 8  # numbers of the benchmark's state: position, axis-angle and two fingers
ACTIONS = {
    "position": {"name": "position", "dims": 3, "format": "delta_xyz", "range": [-1, 1]},
    "rotation": {"name": "rotation", "dims": 3, "format": "axis_angle", "range": [-3.15, 3.15]},
    "gripper": {"name": "gripper", "dims": 1, "format": "binary_close_positive", "range": [-1, 1]},
}
IMAGE = {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"}
LANGUAGE = {"name": "language", "dims": 0, "format": "language"}
STATE = {"name": "state", "dims": POSE_STATE, "format": "eef_pos3_axisangle3_gripper2"}


class VlaEvalSession:
    """One benchmark: executes each chunk up to its execution horizon, then requests the next."""

    ends_on_error = False

    def __init__(self, number: int, served: ServedPolicy, queue: InferenceQueue) -> None:
        self._number, self._served, self._queue = number, served, queue
        self._reader = RequestReader(served)
        self._by_pose = served.metadata["control_mode"] == ControlMode.EEF_DELTA and len(served.arms) == 1
        self._names = _benchmark_names(served)
        self._rows: list[np.ndarray] = []
        self._seen_at = Tip(np.zeros(3), Rotation.identity())
        self._sequence = 0

    def greeting(self) -> None:
        """None: the benchmark sends first."""

    async def answer(self, frame: bytes | str) -> bytes | None:
        """The reply to a message: a greeting or an action; none to the begin and end of an episode."""
        fields = unpack(frame)
        sequence, payload = fields.get("seq"), fields.get("payload")
        self._sequence = sequence if type(sequence) is int else 0
        if not isinstance(payload, Mapping):
            raise RequestError(f"payload: must be a map, got {describe(payload)}")
        kind = self._reader.choice("type", fields.get("type"), TYPES)
        if kind == "hello":
            return self._message("hello", self._hello(payload))
        if kind == "observation":
            return self._message("action", {"actions": await self._action(payload)})
        if kind in ("episode_start", "episode_end"):
            self._rows.clear()
        return None

    def refusal(self, error: RequestError) -> bytes:
        """An error, after which the connection stays open."""
        return self._message("error", {"error": str(error)})

    def _message(self, kind: str, payload: Mapping[str, Any]) -> bytes:
        message = {"type": kind, "payload": payload, "seq": self._sequence, "timestamp": time.time()}
        return pack(message, vla_eval_array)

    def _hello(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        version = payload.get("protocol_version")
        if type(version) is not int or version != VERSION:
            raise RequestError(f"payload.protocol_version: must be {VERSION}, got {describe(version)}")
        self._require_no_joints()
        wrist = any("wrist" in tag for tag in self._served.cameras)
        needs = {"send_wrist_image": wrist, "send_state": self._by_pose or bool(self._served.state_names)}
        names = {tag: name for name, tag in self._names.items() if name != tag}
        cameras = {names.get(tag, tag): IMAGE for tag in self._served.cameras}
        return {
            "harness_version": self._served.metadata["server"],
            "protocol_version": VERSION,
            "model_server": self._served.metadata["policy"],
            "capabilities": {},
            "observation_params": needs,
            "action_spec": ACTIONS if self._by_pose else {},
            "observation_spec": {**cameras, "language": LANGUAGE, **({"state": STATE} if needs["send_state"] else {})},
        }

    async def _action(self, payload: Mapping[str, Any]) -> np.ndarray:
        """The next row of the current chunk, or of a new one at its end."""
        tip = self._tip(payload) if self._by_pose else None
        if not self._rows:
            chunk = (await self._queue.infer(self._number, self._request(payload))).chunk
            self._rows = list(chunk.data[: chunk.execution_horizon])
            self._seen_at = tip or self._seen_at
        row = self._rows.pop(0)
        return (osc_action(row, self._seen_at, tip) if tip else row).astype(np.float32)

    def _request(self, payload: Mapping[str, Any]) -> Request:
        self._require_no_joints()
        images = payload.get("images")
        if not isinstance(images, Mapping):
            raise RequestError(f"payload.images: must be a map from camera to image, got {describe(images)}")
        given = {
            tag: (f"payload.images.{name}", image)
            for name, image in images.items()
            if (tag := self._names.get(name)) is not None
        }
        observation = Observation(
            images=self._reader.images(given),
            instruction=self._reader.instruction("payload.task_description", payload.get("task_description")),
            state=None if self._by_pose else self._reader.state("payload.states", payload.get("states")),
        )
        return Request(observation, self._reader.seed(payload.get("seed")))

    def _tip(self, payload: Mapping[str, Any]) -> Tip:
        """Where the tip is now."""
        state = self._reader.numbers("payload.states", payload.get("states"), (POSE_STATE,))
        return Tip(state[:3], Rotation.from_rotvec(state[3:6]))

    def _require_no_joints(self) -> None:
        """A benchmark's pose is as many numbers as a seven-joint arm has, and must not be taken for them."""
        if self._by_pose and (names := self._served.state_names):
            raise RequestError(
                f"the policy reads joint positions ({', '.join(names)}), but a benchmark tells the pose of the tip; "
                "serve one that was trained with `use_state: false`"
            )


class Tip(NamedTuple):
    """Where a tip is in the base frame [m], and how it is turned."""

    position: np.ndarray
    rotation: Rotation


def osc_action(row: np.ndarray, seen_at: Tip, now: Tip) -> np.ndarray:
    """The action of robosuite's OSC_POSE (7,) that drives the tip from where it is to where a row of a chunk has it.

    In units of the controller's largest step, in the base frame; gripper 1 closed, -1 open. The controller comes only a
    part of the way in a step, so the next action starts from where the tip is by then.

    Args:
        row: (7,) pose relative to the tip at the chunk's observation [m, rad], gripper 0 closed .. 1 open.
        seen_at: the tip at that observation.
        now: the tip.
    """
    position = seen_at.position + seen_at.rotation.apply(row[:3]) - now.position
    turn = (seen_at.rotation * Rotation.from_rotvec(row[3:6]) * now.rotation.inv()).as_rotvec()
    step = np.clip(np.concatenate([position / POSITION_STEP, turn / ROTATION_STEP]), -1, 1)
    return np.append(step, 1 - 2 * np.clip(row[6], 0, 1))


def _benchmark_names(served: ServedPolicy) -> dict[str, str]:
    """Benchmarks' names of cameras -> tags: their usual names for the first wrist camera and the first other one, the
    names given to the server, and the tags themselves.
    """
    wrists = [tag for tag in served.cameras if "wrist" in tag]
    others = [tag for tag in served.cameras if "wrist" not in tag]
    usual = {"wrist": wrists[0]} if wrists else {}
    usual |= {"agentview": others[0]} if others else {}
    return {**usual, **served.camera_names, **{tag: tag for tag in served.cameras}}
