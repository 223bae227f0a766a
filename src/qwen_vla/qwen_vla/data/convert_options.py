"""What is to be converted, as it is asked for. Light: the command line imports it to say what it offers."""

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
    """Recordings, the data set that is made of them, and what they do not say by themselves."""

    path: tyro.conf.Positional[Path]
    """Folder of episodes, as episode_recorder makes them, or of other recordings; or a single one."""
    out: Path
    """Folder of the data set."""
    robot: str | None = None
    """Name of a robot of the suite, or path of your embodiment YAML; episodes of episode_recorder bring theirs."""
    images: Literal["video", "png"] = "video"
    """Video is small, png keeps every pixel."""
    rate_hz: float | None = None
    """Rows per second of bags; default: the robot's rate."""
    failed: Literal["leave_out", "keep"] = "leave_out"
    """What to do with episodes that are labelled as failed."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """What to do when an episode cannot be used: make no data set, or make it without; both name it."""
    mend: bool = False
    """Finish recordings whose recorder was killed, up to their last second."""
    workers: int = os.cpu_count() or 1
    """Recordings at a time."""
    instruction: str | None = None
    """Sentence of the recordings that have none of their own."""
    instruction_topic: str | None = None
    """Topic (std_msgs/String) that says the sentence."""
    marker_topic: str | None = None
    """Topic that cuts a bag into episodes: String with the sentence, empty at the end; or Bool."""
    namespace: str = ""
    """Namespace of the robot's topics in bags that do not say it."""

    def check(self) -> None:
        """ValueError when this cannot be done, whatever is recorded."""
        if self.rate_hz is not None and not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be above 0, got {self.rate_hz}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    @property
    def source(self) -> SourceOptions:
        """What the recordings do not say by themselves."""
        from qwen_vla.data.formats.episodes import SourceOptions

        return SourceOptions(**{name: getattr(self, name) for name in SourceOptions.model_fields})

    @property
    def settings(self) -> dict[str, Any]:
        """What the content of the data set depends on."""
        own = {"robot": self.robot, "images": self.images, "rate_hz": self.rate_hz}
        return own | self.source.model_dump()
