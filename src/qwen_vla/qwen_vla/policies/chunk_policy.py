"""What every policy offers to policy_node and to evaluation, and what goes in and comes out. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from embodiment_descriptions import ControlMode, Embodiment
from qwen_vla_control.observation.robot_streams import History


@dataclass(frozen=True)
class Observation:
    """What a policy is given at one moment.

    Attributes:
        images: camera tag to uint8 RGB, H×W×3 or, as a history, T×H×W×3, oldest first.
        instruction: the task as text.
        stamp_ns: when the images were taken, in nanoseconds of the clock that stamps them; it is handed on untouched.
        state: proprioception (s,) [rad | m], in the order of `ChunkPolicy.state_names`; None for a policy without.
        tip_poses: pose (4, 4) of each arm's tip in a fixed frame, by the arm as the layout of the channels calls it
            ("" for the only one); needed to continue a chunk of end-effector deltas.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    stamp_ns: int = 0
    state: np.ndarray | None = None
    tip_poses: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class ActionChunk:
    """What the robot should do next.

    Attributes:
        data: float32 [H, C] in physical units, one column per entry of channel_names, one row per `period` seconds; row
            i is due (i + 1)·period after the observation. Every row of end-effector deltas and of waypoints is relative
            to the tip or the base at the observation (see `embodiment_descriptions.ActionLayout`).
        channel_names: of the columns, those of the embodiment in its order.
        period: between two rows [s].
        control_mode: that of the embodiment.
        embodiment: name of the robot.
        instruction: of the observation.
        stamp_ns: of the observation.
        inference_ms: wall time by stage [ms]; the whole is `total`.
        execution_horizon: rows to execute before the next chunk is expected, 1 to H.
        tip_poses: of the observation.
        inference_delay: leading rows that repeat what the robot was expected to execute meanwhile; skip
            `real_time_chunking.delay_steps(inference_delay, executed meanwhile)` of them.

    Raises:
        ValueError: the parts do not fit each other.
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
        """Check what every user of a chunk relies on; what it asks of the robot is for the gate to judge."""
        object.__setattr__(self, "channel_names", tuple(self.channel_names))
        object.__setattr__(self, "control_mode", ControlMode(self.control_mode))
        shape, columns = np.shape(self.data), len(self.channel_names)
        if len(shape) != 2 or shape[0] < 1 or shape[1] != columns:
            raise ValueError(f"the data of an action chunk must be [horizon, {columns} channels], got shape {shape}")
        if not 1 <= self.execution_horizon <= shape[0]:
            raise ValueError(f"execution_horizon {self.execution_horizon} is not in 1..{shape[0]}, the chunk's rows")
        if "total" not in self.inference_ms:
            raise ValueError("inference_ms lacks 'total', how long the inference took [ms]")


@dataclass(frozen=True)
class PolicyOptions:
    """How a policy is to compute, as far as it applies to it.

    Attributes:
        device: as torch names it: cpu, cuda, cuda:1.
        euler_steps: integration steps of a flow-matching policy; 0: the policy's own.
        threads: of the computation on the CPU; 0 leaves the library's default.
        prompt_template: text with {instruction} that the policy reads in place of the robot's own; empty: the robot's.
        accelerate, quantize: of a Qwen-VLA, see `Policy.from_pretrained`.
    """

    device: str = "cpu"
    euler_steps: int = 0
    threads: int = 0
    prompt_template: str = ""
    accelerate: str = "auto"
    quantize: str = "none"


Progress = Callable[[int, int, str], None]  # how much of a preparation is done, of how much, and what comes next


@runtime_checkable
class ChunkPolicy(Protocol):
    """A policy that was opened for one robot.

    Attributes:
        camera_tags: cameras of the robot that every observation shows to it.
        state_names: joints whose positions are the observation's state, in order; empty when it reads none.
        history: how many frames of each camera it is shown.
    """

    @property
    def camera_tags(self) -> Sequence[str]: ...

    @property
    def state_names(self) -> Sequence[str]: ...

    @property
    def history(self) -> History: ...

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        """What keeps it from driving a robot, a phrase each; empty when it fits.

        Control mode, channels, period and chunk size are for the policy to compare; that the robot has its cameras and
        joints is checked for every policy.
        """
        ...

    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        """The next chunk; with a seed, the same observation gives the same chunk.

        Raises ValueError for an observation that it cannot use, ArithmeticError when the result makes no sense.
        """
        ...


@runtime_checkable
class PreparedPolicy(ChunkPolicy, Protocol):
    """A policy that can be prepared for all that it will be asked, so that no call is slow, and says what it takes."""

    def warm_up(self, *, continues: bool = False, progress: Progress | None = None) -> float:
        """Compute once whatever is slow only the first time; returns seconds.

        Args:
            continues: chunks will be continued, too.
            progress: is told before each part; may raise to give up.
        """
        ...

    def check_instruction(self, instruction: str) -> None:
        """ValueError for an instruction that it was not prepared for: too long, say."""
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
        """The next chunk, which goes on from what will have been executed of another one when it arrives.

        Args:
            observation: with tip poses where the chunk holds end-effector deltas.
            previous_chunk: as this policy predicted it.
            inference_delay: steps that will be executed before this chunk arrives; None: as the policy estimates.
            execution_horizon: steps between two chunks; None: the policy's own.
            consumed: steps of the previous chunk that lie behind the observation; None: by the stamps.
            schedule: how the bond with the previous chunk falls along the horizon: linear, exponential, ones, zeros.
            seed: as for `infer`.
        """
        ...


@runtime_checkable
class BatchingPolicy(ChunkPolicy, Protocol):
    """A policy that computes several chunks together faster than one after the other."""

    def warm_up(
        self, batch_sizes: Sequence[int] = (1,), *, continues: bool = False, progress: Progress | None = None
    ) -> float:
        """As a `PreparedPolicy` does; batch_sizes: to which batches will be filled up."""
        ...

    def infer_batch(
        self, observations: Sequence[Observation], seeds: Sequence[int | None] | None = None
    ) -> list[ActionChunk]:
        """A chunk for each observation, but for rounding that of `infer`; errors as there, if any is wrong."""
        ...
