"""`kind: questions`: questions about single frames of an annotated recording, with answers and dense point labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from embodiment_descriptions import load_robot
from qwen_vla.data.frames import decoded_frames
from qwen_vla.data.lerobot import DatasetError, LeRobotReader
from qwen_vla.data.samples import Sample, SourceContext
from qwen_vla.data.spec import DataError, DataSpec, split
from qwen_vla.data.vision_language import Annotations, ask, point_labels, text_corpus

IMAGE_PREFIX = "observation.images."


class QuestionData(DataSpec):
    """Questions about a recording of `qwen-vla collect`, whose frames carry labels of what they show."""

    kind: Literal["questions"]
    path: Path = Field(description="folder of the recording")

    def open(self, context: SourceContext) -> Questions:
        return Questions(self.path, context)


class Questions:
    """One sample per frame: a random question about one of its images. Whole episodes at the end are held out."""

    statistics: dict = {}
    embodiments: dict = {}

    def __init__(self, path: Path, context: SourceContext) -> None:
        self.name = f"questions about {path.name}"
        if not context.images:
            raise DataError(f"{path}: questions are about images; leave them out of a stage without images")
        self.reader = LeRobotReader(path)
        missing = [key for key in ("colours", "cameras", "embodiment") if key not in self.reader.info]
        if missing:
            raise DatasetError(f"{path}/meta/info.json has no {', '.join(missing)}: a recording without labels")
        self.labels = Annotations.of(self.reader)
        size = context.config.image_size
        images = decoded_frames(self.reader, (size, size))
        self.images = {key.removeprefix(IMAGE_PREFIX): frames for key, frames in images.items()}
        self.camera_tags = self.labels.cameras
        embodiment = load_robot(self.reader.info["embodiment"])
        finger = self.reader.frames["observation.state"][:, -1]
        self.opening = np.array([embodiment.gripper_from_joint(position) for position in finger], np.float32)
        episodes = self.reader.episodes
        training, held_out = split(len(episodes), context.held_out_share, f"{path}: episodes")
        self.training = _frames(episodes[training])
        self.held_out = _frames(episodes[held_out])

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        camera = int(rng.integers(len(self.camera_tags)))
        question = ask(self.labels, index, camera, rng)
        tag = self.camera_tags[camera]
        labels = point_labels(self.labels, index, [camera], question.cube, self.opening[index])
        return Sample(question.text, {tag: self.images[tag][index]}, question.answer, labels=labels)

    def texts(self) -> Iterable[str]:
        return text_corpus([], self.labels.names)

    def provenance(self) -> dict:
        info = self.reader.info
        return {
            "kind": "questions",
            "path": str(self.reader.root),
            "frames": len(self.reader),
            "episodes": len(self.reader.episodes),
            "seeds": info.get("seeds"),
        }


def _frames(episodes: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(0), *(np.arange(first, end) for first, end in episodes)])
