# SPDX-License-Identifier: Apache-2.0
"""Configuration of the policy: where the server is, and its names for LeRobot's cameras."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import PreTrainedConfig
from lerobot.optim import OptimizerConfig

NOT_TRAINED = "qwen_vla is a client and has nothing to train; train with `qwen-vla train`, and serve the result"


@PreTrainedConfig.register_subclass("qwen_vla")
@dataclass
class QwenVLAConfig(PreTrainedConfig):
    """A running server.

    Attributes:
        server: HOST:PORT of `qwen-vla serve`. Its API key, if any, is read from the environment, QWEN_VLA_API_KEY.
        cameras: the server's camera tag -> LeRobot's key; where it is missing, observation.images.TAG.
        n_action_steps: rows of a chunk to execute before the next; None: as the server says.
        seed: chunk k since the last reset is sampled with seed + k; None: a random one.
        answer_seconds: timeout of a response [s].
    """

    server: str = "127.0.0.1:8000"
    cameras: dict[str, str] = field(default_factory=dict)
    n_action_steps: int | None = None
    seed: int | None = None
    answer_seconds: float = 10.0

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> OptimizerConfig:
        raise NotImplementedError(NOT_TRAINED)

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        """ValueError without an image or an action."""
        if not self.image_features or self.action_feature is None:
            raise ValueError("qwen_vla needs at least one image in the observation, and an action")
