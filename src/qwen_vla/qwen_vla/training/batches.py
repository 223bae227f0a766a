"""Batches of a recipe's mixture, a function of (seed, step, process) alone, so that resuming changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from embodiment_descriptions import Embodiment
from qwen_vla.action_space import pack
from qwen_vla.configuration import QwenVLAConfig
from qwen_vla.data.chunks import eef_delta_chunks
from qwen_vla.data.frames import decoded_frames
from qwen_vla.data.lerobot import DatasetError, LeRobotReader
from qwen_vla.data.vision_language import Annotations, ask
from qwen_vla.normalization import Quantiles
from qwen_vla.processing import EmbodimentInfo, QwenVLAProcessor
from qwen_vla.training.grounding import POINTS, GroundingTargets
from qwen_vla.training.recipe import DataSource

STILL_ROTATION = 0.02  # [rad] or share of gripper travel: a channel that moves less carries only tracking noise
IMAGE_PREFIX = "observation.images."


@dataclass
class Batch:
    """Model inputs and what to learn from them; what is None is not learned."""

    inputs: dict[str, torch.Tensor]
    actions: torch.Tensor | None = None
    action_mask: torch.Tensor | None = None
    grounding: GroundingTargets | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; on the CPU nothing is copied."""

        def move(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device)

        grounding = self.grounding and GroundingTargets(*map(move, vars(self.grounding).values()))
        inputs = {name: move(tensor) for name, tensor in self.inputs.items()}
        return Batch(inputs, move(self.actions), move(self.action_mask), grounding)


class Source:
    """One data set, ready to be sampled: decoded images, action chunks, labels, and the frames held out."""

    def __init__(self, spec: DataSource, config: QwenVLAConfig, embodiment: Embodiment, held_out_share: float) -> None:
        self.reader = LeRobotReader(spec.path)
        self.weight = spec.weight
        images = decoded_frames(self.reader, (config.image_size, config.image_size))
        self.images = {key.removeprefix(IMAGE_PREFIX): frames for key, frames in images.items()}
        self.labels = Annotations.of(self.reader)
        frames = self.reader.frames
        self.has_actions = self.reader.info["kind"] == "demonstrations"
        episodes, horizon = self.reader.episodes, embodiment.chunk_size
        self.chunks = eef_delta_chunks(frames["observation.eef_pose"], frames["action"], episodes, horizon)
        finger = frames["observation.state"][:, -1]
        self.opening = np.array([embodiment.gripper_from_joint(position) for position in finger], np.float32)
        self.sentence = np.repeat(np.arange(len(episodes)), episodes[:, 1] - episodes[:, 0])
        self.training, self.held_out = self._split(held_out_share)

    def _split(self, held_out_share: float) -> tuple[np.ndarray, np.ndarray]:
        """Frames to train on and frames held out: the last episodes, whole, at least one if any are asked for."""
        episodes, frames = self.reader.episodes, np.arange(len(self.reader))
        count = max(1, round(len(episodes) * held_out_share)) if held_out_share else 0
        if count >= len(episodes):
            raise DatasetError(
                f"{self.reader.root}: {len(episodes)} episodes, {count} of them held out, none left to train on; "
                "collect more, or lower held_out_share"
            )
        first = episodes[-count][0] if count else len(frames)
        return frames[:first], frames[first:]

    def task(self, frame: int) -> str:
        return self.reader.tasks[self.sentence[frame]]


def action_statistics(sources: list[Source], channel_names: tuple[str, ...]) -> Quantiles:
    """q01/q99 over the demonstrations' chunks; rotations that stay still become degenerate: noise is not motion."""
    chunks = np.concatenate([source.chunks[source.training] for source in sources if source.has_actions])
    quantiles = Quantiles.from_data(chunks, channel_names)
    still = np.array([name.removeprefix("left_").removeprefix("right_").startswith("r") for name in channel_names])
    still &= quantiles.q99 - quantiles.q01 < STILL_ROTATION
    middle = (quantiles.q01 + quantiles.q99) / 2
    return Quantiles(np.where(still, middle, quantiles.q01), np.where(still, middle, quantiles.q99), channel_names)


class Batches:
    """Draws batches from sources in the ratio of their weights.

    At a step all processes of a run draw the same kind of batch from the same source, with frames of their own, so that
    they have gradients for the same parameters.
    """

    def __init__(
        self,
        sources: list[Source],
        processor: QwenVLAProcessor,
        embodiment: EmbodimentInfo,
        config: QwenVLAConfig,
        batch_size: int,
        question_share: float,
        seed: int,
        process: int = 0,
    ) -> None:
        self.sources, self.processor, self.embodiment, self.config = sources, processor, embodiment, config
        self.batch_size, self.question_share, self.seed = batch_size, question_share, seed
        self.process = process
        weights = np.array([source.weight for source in sources])
        self._shares = weights / weights.sum()

    def __getitem__(self, step: int) -> Batch:
        shared, own = np.random.default_rng([self.seed, step]), np.random.default_rng([self.seed, step, self.process])
        source = self.sources[shared.choice(len(self.sources), p=self._shares)]
        if shared.random() < self.question_share:
            return self._questions(source, own)
        return self.prompts(source, own.choice(source.training, self.batch_size))

    def held_out(self, source: Source, count: int) -> Batch:
        """The same `count` held-out frames at every call, evenly spread."""
        frames = source.held_out[np.linspace(0, len(source.held_out) - 1, count).astype(int)]
        return self.prompts(source, frames)

    def prompts(self, source: Source, frames: np.ndarray) -> Batch:
        """Embodiment prompts with all cameras; with action chunks where the source has demonstrations."""
        tags = self.embodiment.camera_tags
        inputs = self.processor(
            [self.embodiment.prompt(source.task(frame)) for frame in frames],
            [{tag: source.images[tag][frame] for tag in tags} for frame in frames],
        )
        cameras = [source.labels.cameras.index(tag) for tag in tags]
        targets = [self._targets(source, frame, cameras, int(source.labels.target[frame])) for frame in frames]
        batch = Batch(inputs, grounding=_stack(targets, source.opening[frames]))
        if source.has_actions:
            chunks = self.processor.normalization[self.embodiment.dataset].normalize(source.chunks[frames])
            actions, mask = pack(chunks, self.config.horizon, self.config.channels)
            batch.actions, batch.action_mask = torch.from_numpy(actions), torch.from_numpy(mask)
        return batch

    def _questions(self, source: Source, rng: np.random.Generator) -> Batch:
        """Questions about one image each, with answers."""
        texts, images, answers, targets = [], [], [], []
        frames = rng.choice(source.training, self.batch_size)
        for frame in frames:
            tag = str(rng.choice(self.embodiment.camera_tags))
            camera = source.labels.cameras.index(tag)
            question = ask(source.labels, frame, camera, rng)
            texts.append(question.text)
            answers.append(question.answer)
            images.append({tag: source.images[tag][frame]})
            targets.append(self._targets(source, frame, [camera], question.cube))
        return Batch(self.processor(texts, images, answers), grounding=_stack(targets, source.opening[frames]))

    @staticmethod
    def _targets(source: Source, frame: int, cameras: list[int], cube: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Points (images, 2, 3) and visibility (images, 2) of the named cube (if any) and the tip."""
        points = np.zeros((len(cameras), len(POINTS), 3), np.float32)
        visible = np.zeros((len(cameras), len(POINTS)), bool)
        for row, camera in enumerate(cameras):
            seen = source.labels.visible(frame, camera)
            for column, point in enumerate((cube, len(seen) - 1)):
                if point is not None:
                    points[row, column] = source.labels.points[frame, camera, point]
                    visible[row, column] = seen[point]
        return points, visible


def _stack(targets: list[tuple[np.ndarray, np.ndarray]], opening: np.ndarray) -> GroundingTargets:
    points, visible = zip(*targets, strict=True)
    return GroundingTargets(*map(torch.from_numpy, (np.stack(points), np.stack(visible), opening)))
