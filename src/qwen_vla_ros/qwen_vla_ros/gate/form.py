"""What a chunk says about itself: embodiment, control mode, channels, sizes, finiteness, age and instruction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_ros.gate.verdict import Reason, Violation


@dataclass(frozen=True)
class Chunk:
    """A policy's prediction as it arrived; `data` is still the flat list of the message.

    Attributes:
        stamp_ns: ROS time of the observation [ns].
        frame_id: base frame of the robot.
        period: time between two rows [s].
        data: horizon * len(channel_names) values, row by row, physical units.
        publisher: identity of who sent it; empty where nobody tells.
    """

    chunk_id: int
    stamp_ns: int
    frame_id: str
    embodiment: str
    control_mode: str
    channel_names: tuple[str, ...]
    instruction: str
    horizon: int
    execution_horizon: int
    period: float
    data: np.ndarray
    publisher: bytes = b""

    @property
    def rows(self) -> np.ndarray:
        """(horizon, channels); only after check_form found nothing."""
        return self.data.reshape(self.horizon, len(self.channel_names))


@dataclass(frozen=True)
class ChunkRules:
    """What a chunk for this robot must say about itself."""

    embodiment: str
    control_mode: str
    channel_names: tuple[str, ...]
    period: float
    max_horizon: int
    base_frame: str

    @classmethod
    def of(cls, embodiment: Embodiment) -> ChunkRules:
        """The rules for the chunks of a robot."""
        return cls(
            embodiment=embodiment.name,
            control_mode=embodiment.control_mode,
            channel_names=tuple(embodiment.channel_names),
            period=embodiment.period,
            max_horizon=embodiment.chunk_size,
            base_frame=embodiment.base_frame,
        )


def check_form(chunk: Chunk, rules: ChunkRules) -> list[Violation]:
    """Check names, sizes and finiteness; with an empty answer `chunk.rows` is safe to use."""
    found = []

    def expect(good: bool, reason: Reason, message: str) -> None:
        if not good:
            found.append(Violation(reason, message))

    expect(
        chunk.embodiment == rules.embodiment,
        Reason.WRONG_EMBODIMENT,
        f"chunk is for embodiment '{chunk.embodiment}', this robot is '{rules.embodiment}'",
    )
    expect(
        chunk.control_mode == rules.control_mode,
        Reason.WRONG_CONTROL_MODE,
        f"control mode '{chunk.control_mode}', expected '{rules.control_mode}'",
    )
    expect(
        chunk.frame_id == rules.base_frame,
        Reason.WRONG_EMBODIMENT,
        f"chunk is in frame '{chunk.frame_id}', the base frame is '{rules.base_frame}'",
    )
    expect(
        chunk.channel_names == rules.channel_names,
        Reason.WRONG_JOINTS,
        f"channels are {list(chunk.channel_names)}, expected {list(rules.channel_names)} in this order",
    )
    expect(
        1 <= chunk.horizon <= rules.max_horizon,
        Reason.WRONG_SHAPE,
        f"horizon {chunk.horizon} is not in 1..{rules.max_horizon}",
    )
    expect(
        1 <= chunk.execution_horizon <= chunk.horizon,
        Reason.WRONG_SHAPE,
        f"execution_horizon {chunk.execution_horizon} is not in 1..{chunk.horizon} (horizon)",
    )
    expect(
        bool(np.isclose(chunk.period, rules.period, rtol=1e-6)),  # False for NaN
        Reason.WRONG_SHAPE,
        f"period {chunk.period} s, expected {rules.period} s",
    )
    expect(
        chunk.data.ndim == 1 and chunk.data.size == chunk.horizon * len(rules.channel_names),
        Reason.WRONG_SHAPE,
        f"{chunk.data.size} values, expected {chunk.horizon} steps x {len(rules.channel_names)} channels",
    )
    bad = np.flatnonzero(~np.isfinite(chunk.data))
    expect(bad.size == 0, Reason.NON_FINITE, f"{bad.size} values are NaN or infinite, the first at index {bad[:1]}")
    return found


def check_age(stamp_ns: int, now_ns: int, max_age: float, max_future: float) -> list[Violation]:
    """Check the age of the observation against ROS time; limits in seconds."""
    if stamp_ns <= 0:
        return [Violation(Reason.STALE, "the stamp of the observation is unset")]
    age = (now_ns - stamp_ns) / 1e9
    if age > max_age:
        return [Violation(Reason.STALE, f"the observation is {age:.2f} s old (limit {max_age:.2f} s)")]
    if age < -max_future:
        return [
            Violation(
                Reason.STALE,
                f"the observation lies {-age:.2f} s in the future (limit {max_future:.2f} s); "
                "are the clocks synchronised and is use_sim_time the same everywhere?",
            )
        ]
    return []


def check_instruction(chunk: Chunk, current: str | None) -> list[Violation]:
    """Check that the chunk obeys the sentence of the hour.

    Args:
        chunk: as it arrived.
        current: the sentence that the policy says it obeys, empty when it obeys none; None when it has not said so.
    """
    if not chunk.instruction.strip():
        return [Violation(Reason.WRONG_INSTRUCTION, "the chunk names no instruction")]
    if current is not None and chunk.instruction != current:
        now = f"is '{current}'" if current else "has ended"
        text = f"the chunk obeys '{chunk.instruction}', but the instruction of the policy {now}"
        return [Violation(Reason.WRONG_INSTRUCTION, text)]
    return []
