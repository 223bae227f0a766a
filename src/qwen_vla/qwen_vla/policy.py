"""Policy: camera images and a sentence in, a chunk of actions in physical units out.

A checkpoint directory is all it needs: weights, tokenizer, statistics and embodiments are read from there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .acceleration import ChunkRunner
from .action_space import action_mask, unpack
from .configuration import QwenVLAConfig
from .modeling import QwenVLAModel
from .processing import EmbodimentInfo, QwenVLAProcessor, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"


@dataclass(frozen=True)
class Observation:
    """One look at the world.

    images: camera tag to H×W×3 uint8 RGB. instruction: the task in words. stamp_ns: when the images were taken, in
    nanoseconds of the clock that stamps them; it is handed on untouched.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    stamp_ns: int = 0


@dataclass(frozen=True)
class ActionChunk:
    """What the robot should do next.

    data: float32 [H, C] in physical units, one column per entry of channel_names, one row per ``period`` seconds; row i
    is due (i + 1)·period after the observation. inference_ms: wall time of ``preprocess``, ``backbone``, ``expert`` and
    ``total``. execution_horizon: rows to execute before the next chunk is expected.
    """

    data: np.ndarray
    channel_names: tuple[str, ...]
    period: float
    control_mode: str
    embodiment: str
    instruction: str
    stamp_ns: int
    inference_ms: dict[str, float] = field(default_factory=dict)
    execution_horizon: int = 0


class Policy:
    """A loaded Qwen-VLA that answers one observation at a time for one embodiment."""

    def __init__(
        self,
        model: QwenVLAModel,
        processor: QwenVLAProcessor,
        embodiment: str | None = None,
        euler_steps: int = 4,
        accelerate: str = "auto",
    ):
        if euler_steps < 1:
            raise ValueError(f"euler_steps must be at least 1, got {euler_steps}")
        self.model = model.eval()
        self.runner = ChunkRunner(self.model, accelerate)
        self.processor = processor
        self.euler_steps = euler_steps
        self.embodiment = _choose(processor, embodiment)
        self.statistics = processor.normalization.get(self.embodiment.dataset)
        channels = len(self.embodiment.channel_names)
        if self.statistics is None:
            raise ValueError(
                f"no normalisation statistics for data set {self.embodiment.dataset!r} of embodiment "
                f"{self.embodiment.name!r}; available: {sorted(processor.normalization)}"
            )
        if len(self.statistics.q01) != channels:
            raise ValueError(
                f"statistics of {self.embodiment.dataset!r} have {len(self.statistics.q01)} channels, embodiment "
                f"{self.embodiment.name!r} has {channels}"
            )
        mask = action_mask(self.embodiment.horizon, channels, model.config.horizon, model.config.channels)
        self.action_mask = torch.from_numpy(mask)[None].to(model.device)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "cpu",
        euler_steps: int = 4,
        embodiment: str | None = None,
        dtype: torch.dtype | None = None,
        accelerate: str = "auto",
    ) -> Policy:
        """Load a checkpoint directory. float32 on CPU and bfloat16 elsewhere unless ``dtype`` says otherwise.

        accelerate: ``auto``, ``compile`` or ``off``, see ``acceleration.ChunkRunner``.

        Raises FileNotFoundError or ValueError naming the file when one is missing or damaged.
        """
        path = Path(path)
        check_checkpoint(path)
        processor = QwenVLAProcessor.from_pretrained(path)
        if dtype is None:
            dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
        config = QwenVLAConfig.from_pretrained(path)
        model, report = QwenVLAModel.from_pretrained(path, config=config, dtype=dtype, output_loading_info=True)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if report.get(kind):
                names = sorted(map(str, report[kind]))
                raise ValueError(f"weights in {path} do not fit {path / CONFIG_FILE}: {kind} {names[:5]}")
        return cls(model.to(device), processor, embodiment, euler_steps, accelerate)

    @property
    def camera_tags(self) -> tuple[str, ...]:
        """Cameras that every observation must show."""
        return self.embodiment.camera_tags

    def prompt(self, instruction: str) -> str:
        """The text that the model reads for one task."""
        return self.embodiment.prompt(instruction.strip())

    @torch.inference_mode()
    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        """The next chunk. With ``seed`` the same observation gives the same chunk, bit for bit on one machine.

        Raises ValueError for an empty instruction, a missing or unknown camera or a malformed image, and
        FloatingPointError if the model's output is not finite.
        """
        started = time.perf_counter()
        instruction = self._checked(observation)
        views = {tag: observation.images[tag] for tag in self.camera_tags}
        batch = self.processor([self.prompt(instruction)], [views] if views else None)
        batch = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
        preprocessed = time.perf_counter()
        encoding = self.runner.encode(batch)
        self._synchronize()
        encoded = time.perf_counter()
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        packed = self.runner.sample_actions(encoding, self.action_mask, self.euler_steps, generator)
        normalised = unpack(packed[0].float().cpu().numpy(), self.action_mask[0].cpu().numpy())
        if not np.isfinite(normalised).all():
            raise FloatingPointError(
                f"the model returned non-finite actions for {instruction!r}; check the images and the checkpoint"
            )
        data = self.statistics.unnormalize(normalised)
        finished = time.perf_counter()
        return ActionChunk(
            data=data,
            channel_names=self.embodiment.channel_names,
            period=self.embodiment.period,
            control_mode=self.embodiment.control_mode,
            embodiment=self.embodiment.name,
            instruction=instruction,
            stamp_ns=observation.stamp_ns,
            inference_ms={
                "preprocess": 1e3 * (preprocessed - started),
                "backbone": 1e3 * (encoded - preprocessed),
                "expert": 1e3 * (finished - encoded),
                "total": 1e3 * (finished - started),
            },
            execution_horizon=self.embodiment.execution_horizon,
        )

    def _checked(self, observation: Observation) -> str:
        instruction = observation.instruction.strip()
        if not instruction:
            raise ValueError("the instruction is empty; say what the robot should do")
        missing = [tag for tag in self.camera_tags if observation.images.get(tag) is None]
        if missing:
            raise ValueError(
                f"observation lacks camera {', '.join(map(repr, missing))}; {self.embodiment.name!r} needs "
                f"{list(self.camera_tags)}, got {sorted(observation.images)}"
            )
        unknown = sorted(set(observation.images) - set(self.camera_tags))
        if unknown:
            raise ValueError(f"unknown cameras {unknown}; {self.embodiment.name!r} has {list(self.camera_tags)}")
        return instruction

    def _synchronize(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)


def check_checkpoint(path: Path) -> None:
    """Open every weight file's header, so that a missing or cut file is named before anything is built."""
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint directory at {path}")
    read_json(path / CONFIG_FILE)
    index = path / WEIGHTS_INDEX_FILE
    files = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else [WEIGHTS_FILE]
    for name in files:
        file = path / name
        if not file.is_file():
            raise FileNotFoundError(f"checkpoint file {file} is missing; download or copy the checkpoint again")
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(
                f"checkpoint file {file} is damaged or cut short ({file.stat().st_size} bytes): {error}"
            ) from error


def _choose(processor: QwenVLAProcessor, name: str | None) -> EmbodimentInfo:
    known: dict[str, Any] = processor.embodiments
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        wanted = "no embodiment was named" if name is None else f"embodiment {name!r} is unknown"
        raise ValueError(f"{wanted}; this checkpoint has {sorted(known)}")
    return known[name]
