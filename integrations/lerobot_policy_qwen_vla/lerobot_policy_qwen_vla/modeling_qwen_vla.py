# SPDX-License-Identifier: Apache-2.0
"""The policy: each chunk is requested from the server, in the units of its robot (rad, m, gripper open = 1)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from lerobot_policy_qwen_vla.configuration_qwen_vla import NOT_TRAINED, QwenVLAConfig
from lerobot_policy_qwen_vla.server import Server

KEY = "QWEN_VLA_API_KEY"
TASK = "task"


class QwenVLAPolicy(PreTrainedPolicy):
    """Connects when it is made, and compares what the server needs with the features of the robot or dataset."""

    config_class = QwenVLAConfig
    name = "qwen_vla"

    def __init__(self, config: QwenVLAConfig, dataset_meta: Any = None, **_: Any) -> None:
        """dataset_meta: of a dataset; the names of its state and action must be the server's.

        Raises:
            ConnectionError: no server responds.
            ValueError: the server needs other inputs, or sends other actions; every difference is named.
        """
        super().__init__(config)
        config.validate_features()
        self._server = Server(config.server, os.environ.get(KEY, ""), config.answer_seconds)
        about = self._server.metadata
        self._cameras = {tag: config.cameras.get(tag, f"{OBS_IMAGES}.{tag}") for tag in about["cameras"]}
        features = {} if dataset_meta is None else dataset_meta.features
        wrong = [*_missing(self._cameras, about, config), *_misnamed(about, features)]
        if wrong:
            self._server.close()
            raise ValueError(f"the policy at {config.server} drives {about['embodiment']!r}: {'; '.join(wrong)}")
        self._steps = config.n_action_steps or about["execution_horizon"]
        self._rows: deque[Tensor] = deque()
        self._asked = 0

    def reset(self) -> None:
        """Forget the current chunk, at the start of an episode."""
        self._rows.clear()
        self._asked = 0

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """The next action (batch, channels); after `n_action_steps` of a chunk, the first of a new one."""
        if not self._rows:
            self._rows.extend(self.predict_action_chunk(batch)[:, : self._steps].transpose(0, 1))
        return self._rows.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """Chunks (batch, horizon, channels), each requested on its own."""
        size = len(next(batch[key] for key in self._cameras.values()))
        answers = [self._server.ask(self._fields(batch, index)) for index in range(size)]
        chunks = np.stack([answer["actions"] for answer in answers])
        if not np.isfinite(chunks).all():
            raise FloatingPointError(f"the policy at {self.config.server} sent actions that are not finite")
        return torch.from_numpy(chunks).to(self.config.device)

    def _fields(self, batch: Mapping[str, Any], index: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"images": {tag: _image(batch[key][index]) for tag, key in self._cameras.items()}}
        if self._server.metadata["state"]:
            fields["state"] = batch[OBS_STATE][index].to("cpu", torch.float32).numpy()
        if self.config.seed is not None:
            fields["seed"] = self.config.seed + self._asked
        self._asked += 1
        task = batch[TASK]
        return fields | {"prompt": task if isinstance(task, str) else task[index]}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """Not available."""
        raise NotImplementedError(NOT_TRAINED)

    def get_optim_params(self) -> dict:
        """Not available."""
        raise NotImplementedError(NOT_TRAINED)


def _image(image: Tensor) -> np.ndarray:
    """H×W×3 uint8, of C×H×W in 0 … 1."""
    return (image.to("cpu", torch.float32) * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _missing(cameras: Mapping[str, str], about: Mapping[str, Any], config: QwenVLAConfig) -> list[str]:
    """Inputs that the server needs and LeRobot lacks, and an action of another width."""
    absent = [key for key in cameras.values() if key not in config.image_features]
    found = [f"it needs {', '.join(absent)}, there is {', '.join(config.image_features)}"] if absent else []
    for what, needed, feature in (
        ("state", len(about["state"]), config.robot_state_feature),
        (ACTION, len(about["actions"]), config.action_feature),
    ):
        width = 0 if feature is None else feature.shape[0]
        if needed and width != needed:
            found.append(f"{what}: it has {needed} numbers, there are {width}")
    return found


def _misnamed(about: Mapping[str, Any], features: Mapping[str, Mapping]) -> list[str]:
    """Names of a dataset's state and action that differ from the server's."""
    found = []
    for what, key in (("state", OBS_STATE), ("actions", ACTION)):
        names, served = features.get(key, {}).get("names"), [each["name"] for each in about[what]]
        if isinstance(names, list) and served and names != served:
            found.append(f"{what}: it has {' '.join(served)}, the dataset {' '.join(names)}")
    return found
