# SPDX-License-Identifier: Apache-2.0
"""Options of a conversion. Light: the command line imports it for its help."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from qwen_vla.data.formats.episodes import SourceOptions


@dataclass(frozen=True)
class ConvertOptions:
    """Recordings, the dataset to write, and what the recordings do not define themselves."""

    path: tyro.conf.Positional[Path]
    """Folder of episodes of episode_recorder, or of other recordings; or a single one."""
    out: Path
    """Folder of the dataset."""
    robot: str | None = None
    """Name of a robot of the suite, or path of an embodiment YAML; episodes of episode_recorder include theirs."""
    images: Literal["video", "png"] = "video"
    """video is small, png is lossless."""
    rate_hz: float | None = None
    """Rows per second of bags; default: the robot's rate."""
    failed: Literal["leave_out", "keep"] = "leave_out"
    """What to do with episodes labeled as failed."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """What to do if an episode cannot be used: write no dataset, or write it without; both report it."""
    mend: bool = False
    """Finish recordings whose recorder was killed, up to their last complete message."""
    workers: int = os.cpu_count() or 1
    """Recordings converted in parallel."""
    instruction: str | None = None
    """Instruction of recordings without one."""
    instruction_topic: str | None = None
    """Topic (std_msgs/String) with the instruction."""
    marker_topic: str | None = None
    """Topic that splits a bag into episodes: String with the instruction, empty at the end; or Bool."""
    namespace: str = ""
    """Namespace of the robot's topics in bags that do not define it."""

    def check(self) -> None:
        """ValueError for values that are invalid for any recording."""
        if self.rate_hz is not None and not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be above 0, got {self.rate_hz}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    @property
    def source(self) -> SourceOptions:
        """What the recordings do not define themselves."""
        from qwen_vla.data.formats.episodes import SourceOptions

        return SourceOptions(**{name: getattr(self, name) for name in SourceOptions.model_fields})

    @property
    def settings(self) -> dict[str, Any]:
        """The options on which the content of the dataset depends."""
        own = {"robot": self.robot, "images": self.images, "rate_hz": self.rate_hz}
        return own | self.source.model_dump()
