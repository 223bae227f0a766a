# SPDX-License-Identifier: Apache-2.0
"""The few shapes of a policy's inputs, so that all can be prepared before a robot moves: images, and prompt lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qwen_vla.model.acceleration import PromptLengths
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.images.video import step_count
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.model.sample import Sample
from qwen_vla.policies.chunk_policy import Observation

SYNTHETIC_IMAGE, SYNTHETIC_INSTRUCTION = (240, 320, 3), "."  # an instruction that fits any length


@dataclass(frozen=True)
class Shown:
    """What the cameras show together.

    steps: number of images and of steps of videos (`model.images.video`). video: whether any camera shows a video.
    """

    steps: int
    video: bool

    def __str__(self) -> str:
        return f"{self.steps} {'images and steps of video' if self.video else 'images'}"


@dataclass(frozen=True)
class InputShapes:
    """Shapes of the observations of one embodiment. state_names: entries of the state that the model needs."""

    processor: QwenVLAProcessor
    config: QwenVLAConfig
    embodiment: EmbodimentInfo
    state_names: tuple[str, ...]
    _lengths: dict[Shown, PromptLengths] = field(default_factory=dict)

    def possible(self) -> list[Shown]:
        """All that can be shown: an image of each camera, and videos up to the whole history."""
        cameras, history = len(self.embodiment.camera_tags), self.config.history_frames
        fewest = cameras + (self._merged == 1)  # the shortest video has two frames
        longest = cameras * step_count(history, self._merged) if history > 1 else 0
        return [Shown(cameras, video=False), *(Shown(steps, video=True) for steps in range(fewest, longest + 1))]

    def shown(self, images: Mapping[str, np.ndarray]) -> Shown:
        """What these images show."""
        video = any(np.ndim(image) == 4 and len(image) > 1 for image in images.values())
        return Shown(Sample("", images).image_count(self._merged), video)

    def example(self, shown: Shown) -> Observation:
        """An observation of noise that shows this, distributed over the cameras."""
        rng, tags, images = np.random.default_rng(shown.steps), self.embodiment.camera_tags, {}
        for index, tag in enumerate(tags):
            steps = shown.steps // len(tags) + (index < shown.steps % len(tags))
            frames = min(steps * self._merged, self.config.history_frames) if shown.video else steps
            images[tag] = rng.integers(0, 256, (frames, *SYNTHETIC_IMAGE), dtype=np.uint8)
        state = np.zeros(len(self.state_names)) if self.state_names else None
        return Observation(images, SYNTHETIC_INSTRUCTION, state=state)

    def lengths(self, shown: Shown) -> PromptLengths:
        """The lengths to which prompts that show this are padded."""
        if shown not in self._lengths:
            images = dict.fromkeys(self.embodiment.camera_tags, np.zeros(SYNTHETIC_IMAGE, np.uint8))
            # As text, a state is longest if each of its numbers has three digits.
            state = np.ones(len(self.state_names)) if self.state_names else None
            bare = self.processor.prompt_tokens(Sample(self.embodiment.prompt(""), images, state=state))
            step, time = self.processor.step_tokens(self.config.history_frames, self.config.history_rate)
            bare += step * (shown.steps - len(images)) + time * shown.steps * shown.video
            self._lengths[shown] = PromptLengths(bare)
        return self._lengths[shown]

    @property
    def _merged(self) -> int:
        return self.processor.image_transform.temporal_patch_size
