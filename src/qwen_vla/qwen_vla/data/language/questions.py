# SPDX-License-Identifier: Apache-2.0
"""`kind: questions`: questions about single frames of an annotated recording, with answers and dense point labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from embodiment_descriptions import known_robot
from qwen_vla.data.formats.frames import decoded_frames
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.formats.spec import DataError, DataSpec, split
from qwen_vla.data.language.vision_language import ask, text_corpus
from qwen_vla.data.robot.annotations import NONE, Annotations, fresh_frames, gripper_openings, point_labels
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.sample import Sample

IMAGE_PREFIX = "observation.images."
SHOWING = 0.9  # share of the questions about a camera that sees an object of the scene, if any does


class QuestionData(DataSpec):
    """Questions about a recording of `qwen-vla collect`, whose frames have labels of their content."""

    kind: Literal["questions"]
    path: Path = Field(description="folder of the recording")

    def open(self, context: SourceContext) -> Questions:
        return Questions(self.path, context)


class Questions:
    """One sample per frame with new images: a random question about one of them. The last episodes are held out."""

    statistics: dict = {}
    embodiments: dict = {}

    def __init__(self, path: Path, context: SourceContext) -> None:
        self.name = f"questions about {path.name}"
        if not context.images:
            raise DataError(f"{path}: questions are about images; remove them from a stage without images")
        self.reader = LeRobotReader(path)
        self.labels = Annotations.of(self.reader)
        size, fresh = context.config.image_size, fresh_frames(self.reader)
        images = decoded_frames(self.reader, (size, size), fresh)
        self.images = {key.removeprefix(IMAGE_PREFIX): frames for key, frames in images.items()}
        self.camera_tags = self.labels.cameras
        self.openings = gripper_openings(self.reader, known_robot(self.reader.info["embodiment"]))
        episodes = self.reader.episodes
        training, held_out = split(len(episodes), context.held_out_share, f"{path}: episodes")
        self.training, self.held_out = (_frames(episodes[part], fresh) for part in (training, held_out))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        camera = self._camera(index, rng)
        question = ask(self.labels, index, camera, rng)
        tag = self.camera_tags[camera]
        labels = point_labels(self.labels, index, [camera], question.object, NONE, self.openings[index])
        return Sample(question.text, {tag: self.images[tag][index]}, question.answer, labels=labels)

    def texts(self) -> Iterable[str]:
        return text_corpus(self.labels)

    def provenance(self) -> dict:
        info = self.reader.info
        return {
            "kind": "questions",
            "path": str(self.reader.root),
            "frames": len(self.reader),
            "episodes": len(self.reader.episodes),
            "seeds": info.get("seeds"),
        }

    def _camera(self, index: int, rng: np.random.Generator) -> int:
        """Mostly a camera that sees an object; sometimes any, so that "nothing" is also learned."""
        count = self.labels.objects.shape[1]
        showing = np.flatnonzero(self.labels.visible[index, :, :count].any(axis=1))
        if len(showing) and rng.random() < SHOWING:
            return int(rng.choice(showing))
        return int(rng.integers(len(self.camera_tags)))


def _frames(episodes: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    rows = np.concatenate([np.arange(0), *(np.arange(first, end) for first, end in episodes)])
    return rows[fresh[rows]]
