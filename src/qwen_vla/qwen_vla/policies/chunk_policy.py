# SPDX-License-Identifier: Apache-2.0
"""The interface of every policy, used by policy_node and evaluation: observations and action chunks. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from embodiment_descriptions import ControlMode, Embodiment
from qwen_vla_control.observation.robot_streams import History


@dataclass(frozen=True)
class Observation:
    """The input of a policy at one time.

    Attributes:
        images: camera tag to uint8 RGB, H×W×3 or, as a history, T×H×W×3, oldest first.
        instruction: the task as text.
        stamp_ns: when the images were taken, in nanoseconds of the clock that stamps them; passed on unchanged.
        state: proprioception (s,) [rad | m], in the order of `ChunkPolicy.state_names`; None for a policy without.
        tip_poses: pose (4, 4) of each arm's tip in a fixed frame, by the arm's label in the channel layout
            ("" for the only one); needed to continue a chunk of end-effector deltas.
        refusals: number of the policy's latest chunks in a row that the gate refused; 0: the last one was accepted, or
            there is none. A policy that samples may then look further afield, for much the same chunk would be refused
            again.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    stamp_ns: int = 0
    state: np.ndarray | None = None
    tip_poses: Mapping[str, np.ndarray] | None = None
    refusals: int = 0


@dataclass(frozen=True)
class ActionChunk:
    """The next actions of the robot.

    Attributes:
        data: float32 [H, C] in physical units, one column per entry of channel_names, one row per `period` seconds; row
            i is due (i + 1)·period after the observation. Every row of end-effector deltas and of waypoints is relative
            to the tip or the base at the observation (see `embodiment_descriptions.ActionLayout`).
        channel_names: names of the columns, those of the embodiment in its order.
        period: time between two rows [s].
        control_mode: that of the embodiment.
        embodiment: name of the robot.
        instruction: of the observation.
        stamp_ns: of the observation.
        inference_ms: wall time by stage [ms]; `total` is the sum.
        execution_horizon: rows to execute until the next chunk is expected, 1 to H.
        tip_poses: of the observation.
        inference_delay: leading rows that repeat what the robot was expected to execute during inference; skip
            `real_time_chunking.delay_steps(inference_delay, rows executed in that time)` of them.

    Raises:
        ValueError: the fields are inconsistent.
    """

    data: np.ndarray
    channel_names: tuple[str, ...]
    period: float
    control_mode: ControlMode
    embodiment: str
    instruction: str
    stamp_ns: int
    inference_ms: Mapping[str, float]
    execution_horizon: int
    tip_poses: Mapping[str, np.ndarray] | None = None
    inference_delay: int = 0

    def __post_init__(self) -> None:
        """Check what every user of a chunk relies on; whether the robot may execute it is decided by the gate."""
        object.__setattr__(self, "channel_names", tuple(self.channel_names))
        object.__setattr__(self, "control_mode", ControlMode(self.control_mode))
        shape, columns = np.shape(self.data), len(self.channel_names)
        if len(shape) != 2 or shape[0] < 1 or shape[1] != columns:
            raise ValueError(f"the data of an action chunk must be [horizon, {columns} channels], got shape {shape}")
        if not 1 <= self.execution_horizon <= shape[0]:
            raise ValueError(f"execution_horizon {self.execution_horizon} is not in 1..{shape[0]}, the chunk's rows")
        if "total" not in self.inference_ms:
            raise ValueError("inference_ms lacks 'total', the duration of the inference [ms]")


@dataclass(frozen=True)
class PolicyOptions:
    """How a policy computes; a policy ignores what does not apply to it.

    Attributes:
        device: in torch's notation: cpu, cuda, cuda:1.
        euler_steps: integration steps of a flow-matching policy; 0: the policy's own.
        threads: of the computation on the CPU; 0 leaves the library's default.
        prompt_template: text with {instruction} that replaces the robot's own; empty: the robot's.
        accelerate, quantize: for Qwen-VLA, see `Policy.from_pretrained`.
    """

    device: str = "cpu"
    euler_steps: int = 0
    threads: int = 0
    prompt_template: str = ""
    accelerate: str = "auto"
    quantize: str = "none"


Progress = Callable[[int, int, str], None]  # steps of a preparation done, their number, and the next one


@runtime_checkable
class ChunkPolicy(Protocol):
    """A policy opened for one robot.

    Attributes:
        camera_tags: cameras of the robot that every observation must have.
        state_names: joints whose positions are the observation's state, in order; empty if it reads none.
        history: frames of each camera in an observation.
    """

    @property
    def camera_tags(self) -> Sequence[str]: ...

    @property
    def state_names(self) -> Sequence[str]: ...

    @property
    def history(self) -> History: ...

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        """Reasons why it cannot drive a robot, a phrase each; empty if it fits.

        The policy compares control mode, channels, period and chunk size; that the robot has its cameras and joints is
        checked for every policy.
        """
        ...

    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        """The next chunk; with a seed, the same observation gives the same chunk.

        Raises ValueError for an observation that it cannot use, ArithmeticError for an invalid result.
        """
        ...


@runtime_checkable
class PreparedPolicy(ChunkPolicy, Protocol):
    """A policy that can be prepared for all its inputs, so that no call is slow, and that names its limits."""

    def warm_up(self, *, continues: bool = False, progress: Progress | None = None) -> float:
        """Do all one-time computation; returns its duration [s].

        Args:
            continues: chunks will also be continued.
            progress: called before each part; may raise to abort.
        """
        ...

    def check_instruction(self, instruction: str) -> None:
        """ValueError for an instruction that it was not prepared for, such as one that is too long."""
        ...


@runtime_checkable
class ClosablePolicy(ChunkPolicy, Protocol):
    """A policy that holds something beyond memory, such as a connection."""

    def close(self) -> None:
        """Let go of it; the policy is not used afterwards."""
        ...


@runtime_checkable
class ContinuingPolicy(ChunkPolicy, Protocol):
    """A policy that can continue the chunk that is being executed (real-time chunking)."""

    def continue_chunk(
        self,
        observation: Observation,
        previous_chunk: ActionChunk,
        inference_delay: int | None = None,
        execution_horizon: int | None = None,
        *,
        consumed: int | None = None,
        schedule: str = "exponential",
        seed: int | None = None,
    ) -> ActionChunk:
        """The next chunk, which continues another one from its expected progress when this one arrives.

        Args:
            observation: with tip poses if the chunk has end-effector deltas.
            previous_chunk: as this policy predicted it.
            inference_delay: steps that will be executed before this chunk arrives; None: the policy's estimate.
            execution_horizon: steps between two chunks; None: the policy's own.
            consumed: steps of the previous chunk before the observation; None: from the stamps.
            schedule: how the weight of the previous chunk decays along the horizon: linear, exponential, ones, zeros.
            seed: as for `infer`.
        """
        ...


@runtime_checkable
class BatchingPolicy(ChunkPolicy, Protocol):
    """A policy that computes several chunks in a batch faster than one by one."""

    def warm_up(
        self, batch_sizes: Sequence[int] = (1,), *, continues: bool = False, progress: Progress | None = None
    ) -> float:
        """Like that of a `PreparedPolicy`; batch_sizes: sizes to which batches are padded."""
        ...

    def infer_batch(
        self, observations: Sequence[Observation], seeds: Sequence[int | None] | None = None
    ) -> list[ActionChunk]:
        """A chunk for each observation, equal to that of `infer` up to rounding; same errors, if any is invalid."""
        ...
