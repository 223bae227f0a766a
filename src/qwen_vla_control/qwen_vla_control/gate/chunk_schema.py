# SPDX-License-Identifier: Apache-2.0
"""Checks of what a chunk declares: embodiment, control mode, channels, sizes, finiteness, age and instruction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.reasons import Reason, Violation


@dataclass(frozen=True)
class ChunkSchema:
    """What a chunk for this robot must declare."""

    embodiment: str
    control_mode: str
    channel_names: tuple[str, ...]
    period: float
    max_horizon: int
    base_frame: str

    @classmethod
    def of(cls, embodiment: Embodiment) -> ChunkSchema:
        """Derive the schema from an embodiment."""
        return cls(
            embodiment=embodiment.name,
            control_mode=embodiment.control_mode,
            channel_names=tuple(embodiment.channel_names),
            period=embodiment.period,
            max_horizon=embodiment.chunk_size,
            base_frame=embodiment.base_frame,
        )


def check_schema(chunk: Chunk, rules: ChunkSchema) -> list[Violation]:
    """Check names, sizes and finiteness; if nothing is found, `chunk.rows` is safe to use."""
    found = []

    def expect(holds: bool, reason: Reason, message: str) -> None:
        if not holds:
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
                f"the observation is {-age:.2f} s in the future (limit {max_future:.2f} s); "
                "are the clocks synchronized and is use_sim_time the same everywhere?",
            )
        ]
    return []


def check_instruction(chunk: Chunk, current: str | None) -> list[Violation]:
    """Check that the chunk executes the current instruction.

    Args:
        chunk: as received.
        current: the instruction that the policy reports, empty while it executes none; None before its first report.
    """
    if not chunk.instruction.strip():
        return [Violation(Reason.WRONG_INSTRUCTION, "the chunk names no instruction")]
    if current is not None and chunk.instruction != current:
        now = f"is '{current}'" if current else "has ended"
        text = f"the chunk executes '{chunk.instruction}', but the instruction of the policy {now}"
        return [Violation(Reason.WRONG_INSTRUCTION, text)]
    return []
