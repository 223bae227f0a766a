# SPDX-License-Identifier: Apache-2.0
"""Options of an evaluation. Light: the command line imports it for its help."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from qwen_vla.parallel import Engine
from qwen_vla.seeds import Split, require_split, split_of
from qwen_vla.suites import Shift, Suite

DEFAULT_POLICY = "tiny"  # the checkpoint in the repository


@dataclass(frozen=True)
class EvaluateOptions:
    """Episode i has seed `seed + i`, or with a task the seed of its i-th scene from there; all are of one split."""

    suite: tyro.conf.Positional[str]
    """Task suite, e.g. widowx; only robots with a simulator have suites."""
    policy: str = DEFAULT_POLICY
    """Checkpoint: its folder, or the name of one in checkpoints/. Or NAME://ADDRESS of an installed policy."""
    episodes: int = 50
    """Number of scenes."""
    seed: int = 9000
    """Seed of the first episode."""
    task: str | None = None
    """Only scenes of this task of the suite, e.g. stack_cube; default: those that the seeds select."""
    shuffle_instructions: bool = False
    """Name another target of the scene, but judge the original one."""
    blind: bool = False
    """Give the policy black images."""
    shift: Shift | None = None
    """Scenes that differ from training in one respect, of those in the suite; dynamic: the target moves."""
    prompt_of: str | None = None
    """Give the model the prompt of another robot: aloha, mobile_base …, or path of an embodiment YAML."""
    chaos: bool = False
    """With --over-ros: kill, freeze and restart nodes, drop and delay messages, at random times."""
    euler_steps: int = 0
    """Denoising steps per chunk; 0: the checkpoint's default."""
    quantize: Literal["none", "fp8"] = "none"
    """8-bit weights in the action expert and the language tower (emulated on a CPU)."""
    workers: int = os.cpu_count() or 1
    """Parallel simulators (in process only)."""
    engine: Engine = "processes"
    """Where simulators run: in processes of this machine, or on all CPUs of the Ray cluster that it belongs to."""
    json: Path | None = None
    """Where to write the summary with one row per episode."""
    sheet: Path | None = None
    """Where to write a contact sheet (PNG): a few images of each episode."""
    videos: Path | None = None
    """Folder for a video (MP4) of one success and of one episode per kind of failure."""

    def check(self) -> None:
        """ValueError for options that are invalid for any suite and policy."""
        for name, least in (("episodes", 1), ("seed", 0), ("euler_steps", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.split == "training":
            raise ValueError(
                f"seeds from {self.seed} on are training scenes: success on them proves nothing; choose validation "
                "seeds, e.g. --seed 9000"
            )
        if self.chaos:
            require_split("validation", range(self.seed, self.seed + self.episodes), "--chaos")

    @property
    def split(self) -> Split:
        """The split of the seeds from the first on; those of a single task are farther apart."""
        return split_of(range(self.seed, self.seed + self.episodes))

    @property
    def checkpoint(self) -> Path | None:
        """Folder of the policy's checkpoint; None for a policy of another package."""
        from qwen_vla.policies.checkpoint import checkpoint_of

        return checkpoint_of(self.policy)

    def seeds(self, suite: Suite) -> list[int]:
        """Seeds of the episodes; ValueError for a task that the suite does not have."""
        return [suite.seed_of(number, self.seed, self.task) for number in range(self.episodes)]

    def conditions(self, over_ros: bool = False) -> dict[str, Any]:
        """The conditions recorded in a summary; `step`: training step of the checkpoint, None if not recorded."""
        from qwen_vla.model.checkpoint.files import check_checkpoint, read_training

        checkpoint = self.checkpoint
        return {
            "checkpoint": from_here(checkpoint) if checkpoint else self.policy,
            "step": read_training(checkpoint).step if checkpoint else None,
            "task": self.task,
            "shift": self.shift,
            "shuffle_instructions": self.shuffle_instructions,
            "blind": self.blind,
            "prompt_of": self.prompt_of,
            "euler_steps": self.euler_steps or (check_checkpoint(checkpoint).euler_steps if checkpoint else None),
            "quantize": None if self.quantize == "none" else self.quantize,
            "over_ros": over_ros,
        }


def from_here(path: Path) -> str:
    """A path below the working directory, relative to it: results need not name folders of a machine."""
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)
