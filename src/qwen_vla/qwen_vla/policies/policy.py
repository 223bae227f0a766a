# SPDX-License-Identifier: Apache-2.0
"""Policy: a Qwen-VLA as a `ChunkPolicy`, from camera images and an instruction to a chunk in physical units.

A checkpoint directory is all it needs: it contains weights, tokenizer, statistics and embodiments.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embodiment_descriptions import ControlMode, Embodiment
from qwen_vla.model.acceleration import ChunkRunner
from qwen_vla.model.acceleration.prompt_lengths import LONGEST_INSTRUCTION
from qwen_vla.model.acceleration.quantization import quantized
from qwen_vla.model.action_space import action_mask, pack, unpack
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.checkpoint.files import check_checkpoint
from qwen_vla.model.checkpoint.loading import load_model
from qwen_vla.model.joint_chunks import smoothed, within_limits
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.model.real_time_chunking import (
    MAX_GUIDANCE_WEIGHT,
    Continuation,
    anchor_motion,
    consumed_steps,
    reanchored,
    remainder,
)
from qwen_vla.model.sample import Sample
from qwen_vla.policies.chunk_policy import ActionChunk, Observation, Progress
from qwen_vla.policies.fit import statistics_misfit, training_misfits
from qwen_vla.policies.input_shapes import InputShapes
from qwen_vla.policies.latency import LatencyEstimate
from qwen_vla_control.observation.robot_streams import History

TRAINING_TEMPERATURE = 1.0  # flow matching learns from standard normal noise


class Policy:
    """A loaded Qwen-VLA for one embodiment."""

    def __init__(
        self,
        model: QwenVLAModel,
        processor: QwenVLAProcessor,
        embodiment: str | None = None,
        euler_steps: int | None = None,
        accelerate: str = "auto",
    ):
        """euler_steps: integration steps; None: as in the model's configuration."""
        if euler_steps is not None and euler_steps < 1:
            raise ValueError(f"euler_steps must be at least 1, got {euler_steps}")
        self.model = model.eval()
        self.runner = ChunkRunner(self.model, accelerate, processor.image_transform)
        self.processor = processor
        self.euler_steps = euler_steps or model.config.euler_steps
        self.batch_sizes: tuple[int, ...] = (1,)
        self._shapes: InputShapes | None = None
        self._masks: dict[int, torch.Tensor] = {}
        self.embodiment = _choose(processor, embodiment)
        statistics = processor.normalization.get(self.embodiment.dataset)
        channels = len(self.embodiment.channel_names)
        if statistics is None:
            raise ValueError(
                f"no normalization statistics for dataset {self.embodiment.dataset!r} of embodiment "
                f"{self.embodiment.name!r}; available: {sorted(processor.normalization)}"
            )
        if wrong := statistics_misfit(statistics, self.embodiment):
            raise ValueError(wrong)
        self.statistics = statistics
        self.state_statistics = processor.normalization.get(self.embodiment.state_dataset)
        if self.embodiment.relative_actions and self.state_statistics is None:
            raise ValueError(
                f"actions are relative to the state, but its statistics {self.embodiment.state_dataset!r} are missing; "
                f"available: {sorted(processor.normalization)}"
            )
        if self.state_statistics is not None and not self.state_statistics.channel_names:
            raise ValueError(f"the statistics {self.embodiment.state_dataset!r} do not name the entries of the state")
        mask = action_mask(self.embodiment.horizon, channels, model.config.horizon, model.config.channels)
        self.action_mask = torch.from_numpy(mask)[None]  # on the host, where the model may read it
        self.latency = LatencyEstimate()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "cpu",
        euler_steps: int | None = None,
        embodiment: str | None = None,
        dtype: torch.dtype | None = None,
        accelerate: str = "auto",
        quantize: str = "none",
    ) -> Policy:
        """Load a checkpoint directory. Without ``dtype``: float32 on a CPU and bfloat16 elsewhere.

        accelerate: ``auto``, ``graphs``, ``compile`` or ``off``, see ``acceleration.ChunkRunner``. quantize: ``none``
        or ``fp8``, see ``acceleration.quantization``.

        Raises FileNotFoundError or ValueError naming a missing or corrupt file.
        """
        path = Path(path)
        if dtype is None:
            dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
        check_checkpoint(path)
        processor = QwenVLAProcessor.from_pretrained(path)
        model = load_model(path, dtype)
        processor.check_fits(model.config, path)
        model = model.to(device)  # pyright: ignore[reportArgumentType]  # transformers' hint takes it for the model
        return cls(quantized(model, quantize), processor, embodiment, euler_steps, accelerate)

    @property
    def camera_tags(self) -> tuple[str, ...]:
        """Cameras that every observation must have."""
        return self.embodiment.camera_tags

    @property
    def state_names(self) -> tuple[str, ...]:
        """Entries of an observation's state, in order; empty if none is needed: the embodiment was trained without, or
        the model has no proprioception and absolute actions.
        """
        needed = self.embodiment.relative_actions or self.model.config.proprioception != "off"
        return self.state_statistics.channel_names if needed and self.state_statistics else ()

    @property
    def history(self) -> History:
        """Frames of each camera in the model's input."""
        return History(self.model.config.history_frames, self.model.config.history_rate)

    def misfits(self, embodiment: Embodiment) -> list[str]:
        """Differences between the robot that the model was trained for and another one, a phrase each."""
        return training_misfits(self.embodiment, embodiment)

    def prompt(self, instruction: str) -> str:
        """The text that the model reads for one task."""
        return self.embodiment.prompt(instruction.strip())

    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        """The next chunk. With ``seed`` the same observation gives the same chunk.

        On a CPU it is bit-identical, also after the policy was saved, loaded or restarted, as long as machine, library
        versions and number of threads stay the same and ``accelerate`` is not ``compile``, which selects kernels by
        speed. Anything else, GPUs included, rounds differently: by about 1e-6 of a channel's range in float32.

        Raises ValueError for an instruction that is empty or too long, a missing or unknown camera or a malformed
        image, and FloatingPointError if the model's output is not finite.
        """
        return self._chunk(observation, seed, None)

    @torch.inference_mode()
    def infer_batch(
        self, observations: Sequence[Observation], seeds: Sequence[int | None] | None = None
    ) -> list[ActionChunk]:
        """Chunks of several observations, computed in a batch; each equals that of ``infer`` up to rounding.

        The batch is padded to the next of the ``batch_sizes`` that ``warm_up`` prepared.
        """
        seeds = [None] * len(observations) if seeds is None else list(seeds)
        if not observations or len(seeds) != len(observations):
            raise ValueError(
                f"{len(observations)} observations with {len(seeds)} seeds; give one seed for each, and at least one"
            )
        fitting = [size for size in self.batch_sizes if size >= len(observations)]
        added = min(fitting, default=len(observations)) - len(observations)
        every, seeds = [*observations, *[observations[-1]] * added], [*seeds, *[seeds[-1]] * added]
        return self._inferred(every, seeds, None)[: len(observations)]

    def check_instruction(self, instruction: str) -> None:
        """ValueError for an instruction that is empty, longer than any prepared prompt, or contains a special token."""
        if not instruction.strip():
            raise ValueError("the instruction is empty; describe what the robot should do")
        tokens = self.processor.text_tokens(instruction.strip())
        if tokens > LONGEST_INSTRUCTION:
            raise ValueError(
                f"the instruction has {tokens} tokens (limit {LONGEST_INSTRUCTION}): {instruction.strip()[:60]!r}…; "
                "use fewer words"
            )

    def warm_up(
        self, batch_sizes: Sequence[int] = (1,), continues: bool = False, progress: Progress | None = None
    ) -> float:
        """Infer once in every shape that can occur, so that compilation, capture and tuning are done.

        Shapes are all combinations of prompt length, number of frames from the cameras, and batch size.
        continues: chunks will also be continued (``continue_chunk``). progress: called before each shape; it may
        raise to abort. Returns seconds.
        """
        began = time.perf_counter()
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        shapes = [
            (size, shown, length)
            for size in self.batch_sizes
            for shown in self.shapes.possible()
            for length in self.shapes.lengths(shown).lengths
        ]
        with torch.inference_mode():
            for done, (size, shown, length) in enumerate(shapes):
                if progress is not None:
                    progress(done, len(shapes), f"{length} tokens, {shown}" + f", batch of {size}" * (size > 1))
                self._inferred([self.shapes.example(shown)] * size, list(range(size)), None, length)
        if continues:
            self._continue_once()
        self.latency = LatencyEstimate()  # of a robot's chunks, not of these
        # A compiler leaves many objects; garbage collection of all of them would stall later chunks.
        gc.collect()
        gc.freeze()
        return time.perf_counter() - began

    def _continue_once(self) -> None:
        seen = self.shapes.example(self.shapes.possible()[0])
        motion = dict.fromkeys(self.embodiment.layout.arms, np.eye(4))
        self.continue_chunk(seen, self.infer(seen, seed=0), 0, consumed=0, motion=motion, seed=0)

    @property
    def shapes(self) -> InputShapes:
        """The shapes of the observations of the present embodiment."""
        if self._shapes is None or self._shapes.embodiment is not self.embodiment:
            self._shapes = InputShapes(self.processor, self.model.config, self.embodiment, self.state_names)
        return self._shapes

    def _views(self, observation: Observation) -> dict[str, np.ndarray]:
        return {tag: observation.images[tag] for tag in self.camera_tags}

    def continue_chunk(
        self,
        observation: Observation,
        previous_chunk: ActionChunk,
        inference_delay: int | None = None,
        execution_horizon: int | None = None,
        *,
        schedule: str = "exponential",
        variant: str = "guided",
        consumed: int | None = None,
        motion: Mapping[str, np.ndarray] | None = None,
        max_guidance_weight: float = MAX_GUIDANCE_WEIGHT,
        seed: int | None = None,
    ) -> ActionChunk:
        """`infer`, continuing the chunk that the robot is executing; see `ContinuingPolicy`.

        inference_delay: None: estimated from earlier calls, or the most that fits. variant: ``guided``, or
        ``prefix`` for a model trained with it. motion: T_new⁻¹·T_old (4, 4) of each arm's tip, by arm, between the
        two observations; None: from the tip poses in both. Only chunks of ``eef_delta`` need it, because they are
        relative to the first frame.

        Nothing is continued if nothing of the previous chunk is left. Further ValueErrors: a chunk of another
        embodiment, an unknown motion, inconsistent delay and horizons, a prefix longer than trained.
        """
        self._check_fits(previous_chunk)
        info, data = self.embodiment, self.embodiment.from_chunk(previous_chunk.data)
        if consumed is None:
            consumed = consumed_steps(previous_chunk.stamp_ns, observation.stamp_ns, info.period)
        rest = remainder(data, consumed)
        if info.control_mode is ControlMode.EEF_DELTA:
            rest = reanchored(rest, info.layout, self._motion(previous_chunk, observation, motion))
        rest = self.statistics.normalize(self._relative(rest, observation))
        packed, _ = pack(rest, self.model.config.horizon, self.model.config.channels)
        every = info.execution_horizon if execution_horizon is None else execution_horizon
        if inference_delay is None:
            inference_delay = min(self.latency.steps(info.period), every, info.horizon - every)
        if variant == "prefix":
            self._check_prefix(inference_delay)
        continuation = Continuation(
            torch.from_numpy(packed)[None],
            inference_delay,
            every,
            info.horizon,
            max(0, len(data) - consumed),
            schedule,
            variant,
            max_guidance_weight,
        )
        return self._chunk(observation, seed, continuation if consumed < len(data) else None)

    def _check_prefix(self, steps: int) -> None:
        trained = self.model.config.prefix_steps
        if steps > trained:
            raise ValueError(
                f"the model cannot continue a chunk by a prefix of {steps} steps: it was trained for "
                f"{trained or 'none'} (prefix_steps of its configuration); use variant 'guided', or fine-tune it with "
                f"`model: {{prefix_steps: {steps}}}`"
            )

    def _check_fits(self, chunk: ActionChunk) -> None:
        info = self.embodiment
        shape = info.horizon, len(info.channel_names)
        if chunk.embodiment != info.name or chunk.channel_names != info.channel_names or chunk.data.shape != shape:
            raise ValueError(
                f"a chunk of {chunk.embodiment!r} with {chunk.data.shape} {list(chunk.channel_names)} cannot be "
                f"continued as one of {info.name!r} with {shape} {list(info.channel_names)}"
            )
        if chunk.control_mode != info.control_mode:
            raise ValueError(f"a chunk in '{chunk.control_mode}' cannot be continued in '{info.control_mode}'")

    @staticmethod
    def _motion(
        chunk: ActionChunk, observation: Observation, motion: Mapping[str, np.ndarray] | None
    ) -> Mapping[str, np.ndarray]:
        if motion is not None:
            return motion
        if chunk.tip_poses is None or observation.tip_poses is None:
            raise ValueError(
                "a chunk of eef_delta is relative to the tip pose at its own observation and must be re-anchored to be "
                "continued: give tip_poses in both observations, or the motion between them"
            )
        return anchor_motion(chunk.tip_poses, observation.tip_poses)

    def _chunk(self, observation: Observation, seed: int | None, continuation: Continuation | None) -> ActionChunk:
        # Guidance needs gradients of the actions, which inference mode forbids.
        with torch.inference_mode() if continuation is None else torch.no_grad():
            (chunk,) = self._inferred([observation], [seed], continuation)
        self.latency.add(1e-3 * chunk.inference_ms["total"])
        return chunk

    def _inferred(
        self,
        observations: Sequence[Observation],
        seeds: Sequence[int | None],
        continuation: Continuation | None,
        length: int | None = None,
    ) -> list[ActionChunk]:
        """One chunk per observation; ``length``: to which prompts are padded, None: chosen by `_batch`."""
        times = [time.perf_counter()]
        batch = self._batch(observations, length)
        times.append(time.perf_counter())
        mask = self._mask(len(observations))
        context = self.runner.context(batch, mask)
        self._synchronize()
        times.append(time.perf_counter())
        noise = self._noise(observations, seeds)
        packed = self.runner.sample_actions(context, mask, self.euler_steps, None, noise, continuation)
        normalized = packed.float().cpu().numpy()
        times.append(time.perf_counter())
        executing = 0 if continuation is None else continuation.inference_delay
        return [
            self._chunk_of(row, observation, executing, times)
            for row, observation in zip(normalized, observations, strict=True)
        ]

    def _batch(self, observations: Sequence[Observation], length: int | None) -> dict[str, torch.Tensor]:
        """The model's inputs. If new shapes cost time, prompts are padded to one of a few lengths."""
        samples = self._samples(observations)
        if length is None:
            length = max(self.processor.prompt_tokens(sample) for sample in samples)
            if self.runner.fixed_shapes:
                shapes = self.shapes
                length = max(shapes.lengths(shapes.shown(self._views(o))).fit(length) for o in observations)
        return self.processor.collate(samples, length=length, device=self.runner.device)

    def _samples(self, observations: Sequence[Observation]) -> list[Sample]:
        rate = self.model.config.history_rate
        return [
            Sample(self.prompt(self._checked(o)), self._views(o), state=self.read_state(o.state), frame_rate=rate)
            for o in observations
        ]

    def _noise(self, observations: Sequence[Observation], seeds: Sequence[int | None]) -> torch.Tensor:
        """Noise [B, H, K], drawn on the CPU: a seed gives the same noise on any device."""
        generators = (None if seed is None else torch.Generator().manual_seed(seed) for seed in seeds)
        drawn = [torch.randn(self.action_mask.shape, generator=generator) for generator in generators]
        return torch.cat([self._temperature(o) * noise for o, noise in zip(observations, drawn, strict=True)])

    def _temperature(self, observation: Observation) -> float:
        """The model's own, or after a refused chunk at least that of training, so that the next one differs."""
        own = self.model.config.noise_temperature
        return max(own, TRAINING_TEMPERATURE) if observation.refusals else own

    def _mask(self, batch: int) -> torch.Tensor:
        """The action mask [B, H, K] on the model's device."""
        if batch not in self._masks:
            self._masks[batch] = self.action_mask.expand(batch, -1, -1).to(self.runner.device)
        return self._masks[batch]

    def _chunk_of(
        self, packed: np.ndarray, observation: Observation, executing: int, times: Sequence[float]
    ) -> ActionChunk:
        """The chunk of normalized actions [H, K]; times: of start, batch, context and actions [s]."""
        instruction = observation.instruction.strip()
        normalized = unpack(packed, self.action_mask[0].numpy())
        if not np.isfinite(normalized).all():
            raise FloatingPointError(
                f"the model returned non-finite actions for {instruction!r}; check the images and the checkpoint"
            )
        data = self.physical(normalized, observation.state, executing)
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
                "preprocess": 1e3 * (times[1] - times[0]),
                "backbone": 1e3 * (times[2] - times[1]),
                "expert": 1e3 * (finished - times[2]),
                "total": 1e3 * (finished - times[0]),
            },
            execution_horizon=self.embodiment.execution_horizon,
            tip_poses=observation.tip_poses,
            inference_delay=executing,
        )

    def physical(self, normalized: np.ndarray, state: np.ndarray | None, executing: int = 0) -> np.ndarray:
        """A chunk [H, C] from the model's units to float32 in the robot's: what is executed, and judged in training.

        state: that of the observation, for relative actions. executing: leading rows that are under way.
        """
        info = self.embodiment
        data = self.statistics.unnormalize(normalized)
        if info.control_mode is ControlMode.JOINT_POSITION:
            data = info.layout.unwrap(data, data[0])
            data = smoothed(data, info.layout, info.period, executing) + self._origin(state)
            data = within_limits(data, info.channel_names, info.joint_limits)
        return info.to_chunk(data).astype(np.float32)

    def _relative(self, rows: np.ndarray, observation: Observation) -> np.ndarray:
        """Rows [H, C] in the robot's units relative to their origin; continuous joints as in the statistics."""
        middle = (self.statistics.q01 + self.statistics.q99) / 2
        return middle + self.embodiment.layout.difference(rows, middle + self._origin(observation.state))

    def _origin(self, state: np.ndarray | None) -> np.ndarray | float:
        """The origin of the embodiment's relative actions [C], in physical units."""
        if not self.embodiment.relative_actions:
            return 0.0
        return self.embodiment.layout.of_joints(self.state_names, self._checked_state(state))

    def read_state(self, state: np.ndarray | None) -> np.ndarray | None:
        """The normalized state for a model that reads it."""
        if self.model.config.proprioception == "off" or self.state_statistics is None:
            return None
        return self.state_statistics.normalize(self._checked_state(state))

    def _checked(self, observation: Observation) -> str:
        """The instruction, after the observation was validated."""
        self.check_instruction(observation.instruction)
        missing = [tag for tag in self.camera_tags if observation.images.get(tag) is None]
        if missing:
            raise ValueError(
                f"observation lacks camera {', '.join(map(repr, missing))}; {self.embodiment.name!r} needs "
                f"{list(self.camera_tags)}, got {sorted(observation.images)}"
            )
        unknown = sorted(set(observation.images) - set(self.camera_tags))
        if unknown:
            raise ValueError(f"unknown cameras {unknown}; {self.embodiment.name!r} has {list(self.camera_tags)}")
        self._checked_state(observation.state)
        most = self.model.config.history_frames
        for tag in self.camera_tags:
            if np.ndim(observation.images[tag]) == 4 and len(observation.images[tag]) > most:
                raise ValueError(f"camera {tag!r} has {len(observation.images[tag])} frames; the model accepts {most}")
        return observation.instruction.strip()

    def _checked_state(self, state: np.ndarray | None) -> np.ndarray:
        """The state [s], after it was validated; empty if none is needed."""
        names = self.state_names
        if not names:
            return np.zeros(0)
        if state is None:
            raise ValueError(f"the observation lacks the state of {self.embodiment.name!r}: {', '.join(names)}")
        if np.shape(state) != (len(names),) or not np.isfinite(state).all():
            raise ValueError(f"the state must be {len(names)} finite numbers ({', '.join(names)}), got {state!r}")
        return state

    def _synchronize(self) -> None:
        if self.runner.device.type == "cuda":
            torch.cuda.synchronize(self.runner.device)


def _choose(processor: QwenVLAProcessor, name: str | None) -> EmbodimentInfo:
    known: dict[str, Any] = processor.embodiments
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        wanted = "no embodiment was given" if name is None else f"embodiment {name!r} is unknown"
        raise ValueError(f"{wanted}; this checkpoint has {sorted(known)}")
    return known[name]
