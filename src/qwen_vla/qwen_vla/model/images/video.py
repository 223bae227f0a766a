# SPDX-License-Identifier: Apache-2.0
"""A camera's history as Qwen3.5 reads a video: steps of several frames, each preceded by its time as text.

A step is `merged` consecutive frames (the backbone's `temporal_patch_size`), read by the vision tower like one image,
with the same number of tokens and positions of its own. Its time is the mean of those of its first and last frame,
counted from the first frame of the video. The last frame is repeated where the last step lacks frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Frame = TypeVar("Frame")


def step_count(frames: int, merged: int) -> int:
    """Number of steps of a video."""
    return -(-frames // merged)


def steps_of(frames: Sequence[Frame], merged: int) -> list[tuple[Frame, ...]]:
    """The frames of each step."""
    filled = [*frames, *[frames[-1]] * (-len(frames) % merged)]
    return [tuple(filled[first : first + merged]) for first in range(0, len(filled), merged)]


def time_texts(frames: int, rate: float, merged: int) -> list[str]:
    """What precedes each step of a video with this rate [Hz]."""
    ends = ((step[0], step[-1]) for step in steps_of(range(frames), merged))
    return [f"<{(first / rate + last / rate) / 2:.1f} seconds>" for first, last in ends]
