# SPDX-License-Identifier: Apache-2.0
"""The served policy: opened for one robot and warmed up, with its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.policies import (
    ActionChunk,
    BatchingPolicy,
    ContinuingPolicy,
    Observation,
    PolicyOptions,
    PreparedPolicy,
    open_policy,
    warm_up,
)
from qwen_vla.policies.checkpoint import PLACEHOLDER
from qwen_vla.policies.identity import identity_of
from qwen_vla.serving.request import Request

BATCH_ON_GPU = 8
SYNTHETIC_SIZE = (48, 64)  # of the images for the first chunk [pixels]


class ServedPolicy:
    """Computes chunks for requests, in one thread at a time.

    Attributes:
        cameras: tags of the images of every observation.
        state_names: joints whose positions are the state [rad | m], in order.
        history: maximum number of frames of each camera in an observation.
        arms: labels of the robot's arms in tip poses; "" for the only one.
        continues: whether it can continue a chunk (real-time chunking).
        batches: whether it can compute chunks in a batch, unless they continue others.
        chunk_shape: rows and channels of its chunks.
        camera_names: accepted names of cameras -> tag.
        largest_batch: maximum number of requests in a batch.
        metadata: description for clients; plain values.
    """

    def __init__(
        self,
        reference: str,
        embodiment: Embodiment,
        options: PolicyOptions | None = None,
        largest_batch: int = 0,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Open and warm up.

        Args:
            reference, embodiment, options: as for `open_policy`, including errors.
            largest_batch: maximum number of requests in a batch; 0: several on a GPU; one on a CPU, where batches of 8
                chunks of the shipped model took a quarter longer than one by one.
            names: clients' names of cameras -> the policy's tags; the tags themselves are always accepted.

        Raises:
            ValueError: a name refers to no camera of the policy.
        """
        options = options or PolicyOptions()
        self._policy = open_policy(reference, embodiment, options)
        self.cameras = tuple(self._policy.camera_tags)
        self.state_names = tuple(self._policy.state_names)
        self.history = self._policy.history
        self.arms = tuple(embodiment.layout.arms)
        self._continuing = self._policy if isinstance(self._policy, ContinuingPolicy) else None
        self._batching = self._policy if isinstance(self._policy, BatchingPolicy) else None
        self.continues, self.batches = self._continuing is not None, self._batching is not None
        self.camera_names = dict(names or {})
        if unknown := sorted(set(self.camera_names.values()) - set(self.cameras)):
            raise ValueError(f"no camera is called {unknown[0]!r}; the policy has {', '.join(self.cameras)}")
        self.largest_batch = (largest_batch or _usual_batch(options.device)) if self.batches else 1
        self._warm_up(options.device)
        self._example = self._policy.infer(self._synthetic(), seed=0)
        self.chunk_shape: tuple[int, int] = self._example.data.shape
        self.metadata = self._metadata(reference, embodiment, options.prompt_template)

    def infer(self, requests: Sequence[Request]) -> list[ActionChunk]:
        """A chunk for each request, computed in a batch if there are several; errors as in the policy."""
        if len(requests) == 1 or self._batching is None:
            return [self._infer_one(request) for request in requests]
        return self._batching.infer_batch([asked.observation for asked in requests], [asked.seed for asked in requests])

    def check_instruction(self, instruction: str) -> None:
        """ValueError for an instruction that the policy cannot read, as far as that is known in advance."""
        if isinstance(self._policy, PreparedPolicy):
            self._policy.check_instruction(instruction)

    def _warm_up(self, device: str) -> None:
        """Prepare all shapes; if they cost time, batches of all sizes are padded to one of a few."""
        if self._batching is not None and self.largest_batch > 1 and device != "cpu":
            sizes = [size for size in (1, 2, 4, 8, 16, 32) if size < self.largest_batch]
            self._batching.warm_up(batch_sizes=[*sizes, self.largest_batch], continues=self.continues)
        else:
            warm_up(self._policy, continues=self.continues)

    def _infer_one(self, request: Request) -> ActionChunk:
        previous = request.previous
        if previous is None or self._continuing is None:
            return self._policy.infer(request.observation, request.seed)
        return self._continuing.continue_chunk(
            request.observation,
            self._chunk(previous.data, previous.tip_poses),
            previous.inference_delay,
            previous.execution_horizon,
            consumed=previous.consumed,
            schedule=previous.schedule,
            seed=request.seed,
        )

    def _chunk(self, data: np.ndarray, tip_poses: Any) -> ActionChunk:
        shown = self._example
        return ActionChunk(
            data=data,
            channel_names=shown.channel_names,
            period=shown.period,
            control_mode=shown.control_mode,
            embodiment=shown.embodiment,
            instruction=shown.instruction,
            stamp_ns=0,
            inference_ms=shown.inference_ms,
            execution_horizon=shown.execution_horizon,
            tip_poses=tip_poses,
        )

    def _synthetic(self) -> Observation:
        black = np.zeros((*SYNTHETIC_SIZE, 3), np.uint8)
        state = np.zeros(len(self.state_names)) if self.state_names else None
        return Observation(dict.fromkeys(self.cameras, black), "stand still", state=state)

    def _metadata(self, reference: str, embodiment: Embodiment, prompt_template: str) -> dict[str, Any]:
        chunk, identity = self._example, identity_of(reference, self._policy, embodiment)
        return {
            "server": f"qwen-vla {version('qwen_vla')}",
            "policy": reference,
            "checkpoint_hash": identity.hash or None,
            "embodiment": embodiment.name,
            "control_mode": str(embodiment.control_mode.value),
            "cameras": list(self.cameras),
            "history": {"frames": self.history.frames, "rate_hz": self.history.rate},
            "state": [{"name": name, "unit": _unit(embodiment, name)} for name in self.state_names],
            "actions": [
                {"name": channel.name, "unit": channel.unit, "arm": channel.arm}
                for channel in embodiment.layout.channels
            ],
            "horizon": chunk.data.shape[0],
            "execution_horizon": chunk.execution_horizon,
            "period": chunk.period,
            "prompt_template": prompt_template or embodiment.prompt(PLACEHOLDER),
            "continues": self.continues,
            **roboarena_metadata(self.cameras, embodiment),
        }


def roboarena_metadata(cameras: Sequence[str], embodiment: Embodiment) -> dict[str, Any]:
    """The metadata that RoboArena's clients expect, as far as it applies to any robot's cameras and channels."""
    wrists = [tag for tag in cameras if "wrist" in tag]
    return {
        "image_resolution": None,
        "needs_wrist_camera": bool(wrists),
        "n_external_cameras": len(cameras) - len(wrists),
        "needs_stereo_camera": False,
        "needs_session_id": False,
        "action_space": str(embodiment.control_mode.value),
    }


def _usual_batch(device: str) -> int:
    return 1 if device == "cpu" else BATCH_ON_GPU


def _unit(embodiment: Embodiment, joint: str) -> str:
    return "m" if joint in embodiment.limits and embodiment.limits[joint].type == "prismatic" else "rad"
