# SPDX-License-Identifier: Apache-2.0
"""The definition of a dataset of a suite's scenes, by `qwen-vla collect` or by a recipe that trains on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from qwen_vla.option_ranges import Count, Range
from qwen_vla.seeds import FIRST_TRAINING_SEED, require_split

EPISODES_PER_SHARD = 10  # progress is told by the file, and an interruption loses one in each worker
Kind = Literal["demonstrations", "snapshots"]


@dataclass(frozen=True)
class Collection:
    """What to record: scenes with consecutive seeds from `seed` on; failed demonstrations are dropped and counted.

    All are training seeds: evaluation scenes are never trained on.
    """

    __pydantic_config__ = {"extra": "forbid"}  # an unknown field in a file is an error

    suite: tyro.conf.Positional[str]
    """Task suite, e.g. widowx."""
    out: Path
    """Folder of the dataset."""
    episodes: Count = 100
    """Number of scenes; failed demonstrations are dropped and counted."""
    seed: Annotated[int, Range(0)] = FIRST_TRAINING_SEED
    """Seed of the first scene; seeds below a million are validation and test scenes, and refused."""
    kind: Kind = "demonstrations"
    """Whole demonstrations, or single labeled frames for vision-language pretraining."""
    task: str | None = None
    """Only scenes of this task of the suite, e.g. stack_cube; default: those that the seeds select."""
    takeover_from: Path | None = None
    """A checkpoint that drives first, for a random time; only the expert's intervention is recorded (DAgger)."""
    episodes_per_shard: tyro.conf.Suppress[int] = EPISODES_PER_SHARD
    """Scenes per file; an interruption loses at most one file."""

    def check(self) -> None:
        """ValueError for values that are invalid for any suite."""
        for name, least in (("episodes", 1), ("seed", 0), ("episodes_per_shard", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        require_split("training", range(self.seed, self.seed + self.episodes), "collect")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be {' or '.join(get_args(Kind))}, got {self.kind!r}")
        if self.takeover_from and self.kind != "demonstrations":
            raise ValueError("takeover_from requires kind demonstrations: no policy drives before a snapshot")

    @property
    def content(self) -> dict[str, Any]:
        """The description written beside the data, by which a folder is recognized as this collection."""
        content = {
            "suite": self.suite,
            "kind": self.kind,
            "seed": self.seed,
            "episodes": self.episodes,
            "episodes_per_shard": self.episodes_per_shard,
        }
        if self.takeover_from:
            content["takeover_from"] = str(self.takeover_from)
        if self.task:
            content["task"] = self.task
        return content

    def continues(self, present: Mapping[str, Any]) -> bool:
        """Whether the files of a collection, by its content, are the first of this one; cut ones cannot grow."""
        if {**present, "episodes": self.episodes} != self.content:
            return False
        uncut = present["episodes"] < self.episodes and present["episodes"] % self.episodes_per_shard == 0
        return uncut or present["episodes"] == self.episodes

    @property
    def shards(self) -> int:
        """Number of files of episodes."""
        return -(-self.episodes // self.episodes_per_shard)

    def scenes(self, shard: int) -> range:
        """Numbers of the scenes in shard `shard`."""
        first = shard * self.episodes_per_shard
        return range(first, min(first + self.episodes_per_shard, self.episodes))
