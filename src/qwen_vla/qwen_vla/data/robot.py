"""`kind: robot`: a LeRobotDataset of one robot as samples: prompt, camera images, action chunk, labels if any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla.data.chunks import eef_delta_chunks
from qwen_vla.data.frames import decoded_frames
from qwen_vla.data.lerobot import DatasetError, LeRobotReader
from qwen_vla.data.samples import Sample, SourceContext
from qwen_vla.data.spec import DataSpec, split
from qwen_vla.data.vision_language import Annotations, point_labels
from qwen_vla.normalization import Quantiles
from qwen_vla.processing import EmbodimentInfo

EXECUTION_SHARE = 0.5  # share of a chunk that is executed before the next one is asked for
STILL_ROTATION = 0.02  # [rad] or share of gripper travel: a channel that moves less carries only tracking noise
IMAGE_PREFIX = "observation.images."


class RobotData(DataSpec):
    """Demonstrations, or single labelled frames without actions, of one robot."""

    kind: Literal["robot"]
    path: Path = Field(description="folder of a LeRobotDataset v3.0")
    robot: str | None = Field(None, description="robot of the suite; default: the one that the data set names")
    statistics: str | None = Field(None, description="name of its normalisation statistics; default: the robot's name")

    def open(self, context: SourceContext) -> RobotSource:
        return RobotSource(self, context)


class RobotSource:
    """One data set, ready to be sampled: decoded images, action chunks, labels, and the episodes held out.

    An index is a frame: what the cameras saw and the chunk that begins there. With `context.trajectory_steps` it is the
    first frame of a trajectory that goes on for up to that many steps, cut at the end of its episode.
    """

    def __init__(self, spec: RobotData, context: SourceContext) -> None:
        self.reader = LeRobotReader(spec.path)
        self.name = spec.path.name
        self.embodiment = embodiment = load_robot(spec.robot or self.reader.info["robot_type"])
        self.steps = context.trajectory_steps
        dataset = spec.statistics or embodiment.name
        # Relative to its first pose a trajectory goes further than a chunk: its statistics are others.
        self.info = embodiment_info(embodiment, f"{dataset}/trajectories" if self.steps else dataset)
        self.camera_tags = self.info.camera_tags
        self.has_actions = self.reader.info.get("kind", "demonstrations") == "demonstrations"
        self._split(context)
        self.images = self._images(context)
        self.labels = Annotations.of(self.reader) if "annotation.points" in self.reader.features else None
        finger = self.reader.frames["observation.state"][:, -1]
        self.opening = np.array([embodiment.gripper_from_joint(position) for position in finger], np.float32)
        self.statistics: Mapping[str, Quantiles] = {}
        self.embodiments = {self.info.name: self.info}
        if self.has_actions:
            self.chunks = self._cut()
            known = context.normalization.get(self.info.dataset)
            self.statistics = {self.info.dataset: known or self._quantiles()}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The frame's sample; nothing about it is random."""
        tags = self.camera_tags if self.images else ()
        return Sample(
            text=self._prompt(index),
            images={tag: self.images[tag][index] for tag in tags},
            labels=self._labels(index, tags),
            **self._actions(index),
        )

    @property
    def tasks(self) -> np.ndarray:
        """The sentence of every training index, for balanced sampling."""
        return np.array(self.reader.tasks, dtype=object)[self._episode[self.training]]

    def texts(self) -> Iterable[str]:
        return [self.info.prompt(task) for task in sorted(set(self.reader.tasks))]

    def provenance(self) -> dict:
        keys = ("suite", "kind", "seeds", "total_episodes", "total_frames")
        return {key: self.reader.info.get(key) for key in keys}

    def _split(self, context: SourceContext) -> None:
        episodes = self.reader.episodes
        self._episode = np.repeat(np.arange(len(episodes)), episodes[:, 1] - episodes[:, 0])
        training, held_out = split(len(episodes), context.held_out_share, f"{self.reader.root}: episodes")
        self.training, self.held_out = (self._indices(episodes[chosen]) for chosen in (training, held_out))

    def _indices(self, episodes: np.ndarray) -> np.ndarray:
        """Every frame; of whole trajectories only where one begins, so that together they cover the episodes."""
        stride = self.steps or 1
        return np.concatenate([np.arange(0), *(np.arange(first, end, stride) for first, end in episodes)])

    def _images(self, context: SourceContext) -> dict[str, np.ndarray]:
        if not context.images:
            return {}
        size = context.config.image_size
        images = decoded_frames(self.reader, (size, size))
        found = {key.removeprefix(IMAGE_PREFIX): frames for key, frames in images.items()}
        missing = [tag for tag in self.camera_tags if tag not in found]
        if missing:
            raise DatasetError(f"{self.reader.root} has no camera {', '.join(missing)}; it has {', '.join(found)}")
        return found

    def _cut(self) -> Mapping[int, np.ndarray] | np.ndarray:
        """By index the actions that follow, (steps, channels) in physical units; chunks hold an episode's last one."""
        poses, actions = self.reader.frames["observation.eef_pose"], self.reader.frames["action"]
        if self.steps is None:
            return eef_delta_chunks(poses, actions, self.reader.episodes, self.info.horizon)
        chunks = {}
        for index in map(int, np.concatenate([self.training, self.held_out])):
            count = self._length(index)
            rest = actions[index : index + count]
            chunks[index] = eef_delta_chunks(poses[index : index + 1], rest, np.array([[0, count]]), count)[0]
        return chunks

    def _quantiles(self) -> Quantiles:
        """q01/q99 over the training chunks; rotations that stay still become degenerate: noise is not motion."""
        names = self.info.channel_names
        quantiles = Quantiles.from_data(np.concatenate([self.chunks[index] for index in self.training]), names)
        still = np.array([name.removeprefix("left_").removeprefix("right_").startswith("r") for name in names])
        still &= quantiles.q99 - quantiles.q01 < STILL_ROTATION
        middle = (quantiles.q01 + quantiles.q99) / 2
        return Quantiles(np.where(still, middle, quantiles.q01), np.where(still, middle, quantiles.q99), names)

    def _prompt(self, index: int) -> str:
        """The prompt names the number of steps that follow: the robot's own horizon, or the trajectory's length."""
        task = self.reader.tasks[self._episode[index]]
        if self.steps is None:
            return self.info.prompt(task)
        return self.embodiment.model_copy(update={"chunk_size": self._length(index)}).prompt(task)

    def _length(self, index: int) -> int:
        left = int(self.reader.episodes[self._episode[index], 1]) - int(index)
        return min(self.steps, left) if self.steps else self.info.horizon

    def _actions(self, index: int) -> dict[str, np.ndarray]:
        if not self.has_actions:
            return {}
        return {"actions": self.statistics[self.info.dataset].normalize(self.chunks[index])}

    def _labels(self, index: int, tags: Iterable[str]):
        if self.labels is None or not tags:
            return None
        cameras = [self.labels.cameras.index(tag) for tag in tags]
        return point_labels(self.labels, index, cameras, int(self.labels.target[index]), self.opening[index])


def embodiment_info(embodiment: Embodiment, statistics: str | None = None) -> EmbodimentInfo:
    """What a checkpoint keeps of an `Embodiment`; `statistics`: name of its normalisation statistics."""
    return EmbodimentInfo(
        name=embodiment.name,
        channel_names=tuple(embodiment.channel_names),
        control_mode=embodiment.control_mode,
        period=embodiment.period,
        horizon=embodiment.chunk_size,
        execution_horizon=max(1, round(embodiment.chunk_size * EXECUTION_SHARE)),
        prompt_template=embodiment.prompt("{instruction}"),
        camera_tags=tuple(camera.tag for camera in embodiment.cameras),
        dataset=statistics or embodiment.name,
    )
