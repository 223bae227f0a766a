"""What is to be evaluated, as it is asked for. Light: the command line imports it to say what it offers."""

from __future__ import annotations

import json as json_format
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from qwen_vla.seeds import Split, require_split, split_of
from qwen_vla.suites import Shift, Suite

DEFAULT_POLICY = "tiny"  # the checkpoint in the repository


@dataclass(frozen=True)
class EvaluateOptions:
    """Episode i has seed `seed + i`, or with a task the seed of its i-th scene from there on; all are of one split."""

    suite: tyro.conf.Positional[str]
    """Task suite, e.g. widowx; there are suites for robots with a simulator only."""
    policy: str = DEFAULT_POLICY
    """Checkpoint: its folder, or the name of one in checkpoints/. Or NAME://ADDRESS of an installed policy."""
    episodes: int = 50
    """How many scenes to try."""
    seed: int = 9000
    """Scene of the first episode."""
    task: str | None = None
    """Only scenes of this task of the suite, e.g. stack_cube; default: those that the seeds mean, of several tasks."""
    shuffle_instructions: bool = False
    """Name another thing of the scene, but judge the original one."""
    blind: bool = False
    """Show black images."""
    shift: Shift | None = None
    """Scenes unlike those trained on, in one respect that the suite offers; dynamic: the target moves."""
    prompt_of: str | None = None
    """Tell the model that it is another robot: aloha, mobile_base …, or path of an embodiment YAML."""
    chaos: bool = False
    """With --over-ros: kill, freeze and restart nodes, lose and delay messages, at random times."""
    euler_steps: int = 0
    """Denoising steps per chunk; 0: as many as the checkpoint says."""
    quantize: Literal["none", "fp8"] = "none"
    """Weights of 8 bits in the action expert and the language tower (emulated on a CPU)."""
    workers: int = os.cpu_count() or 1
    """Parallel simulators (in process only)."""
    json: Path | None = None
    """Where to write the summary with one row per episode."""
    sheet: Path | None = None
    """Where to write a contact sheet (PNG): each episode in a few pictures."""
    videos: Path | None = None
    """Folder for a video (MP4) of one success and of one episode of every kind of failure."""

    def check(self) -> None:
        """ValueError when this cannot be evaluated, whatever the suite and the policy."""
        for name, least in (("episodes", 1), ("seed", 0), ("euler_steps", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.split == "training":
            raise ValueError(
                f"seeds from {self.seed} on are training scenes: success there proves nothing; choose validation "
                "seeds, e.g. --seed 9000"
            )
        if self.chaos:
            require_split("validation", range(self.seed, self.seed + self.episodes), "--chaos")

    @property
    def split(self) -> Split:
        """Of the seeds from the first on; those of a single task lie farther apart."""
        return split_of(range(self.seed, self.seed + self.episodes))

    @property
    def checkpoint(self) -> Path | None:
        """Folder of the policy's checkpoint; None of a policy of another package."""
        from qwen_vla.policies.checkpoint import checkpoint_of

        return checkpoint_of(self.policy)

    def seeds(self, suite: Suite) -> list[int]:
        """Of the episodes; ValueError for a task that the suite does not have."""
        return [suite.seed_of(number, self.seed, self.task) for number in range(self.episodes)]

    def conditions(self, over_ros: bool = False) -> dict[str, Any]:
        """What a summary says about how it was measured; `step`: of the checkpoint's training, None when unrecorded."""
        checkpoint = self.checkpoint
        return {
            "checkpoint": _from_here(checkpoint) if checkpoint else self.policy,
            "step": training_of(checkpoint).get("step") if checkpoint else None,
            "task": self.task,
            "shift": self.shift,
            "shuffle_instructions": self.shuffle_instructions,
            "blind": self.blind,
            "prompt_of": self.prompt_of,
            "euler_steps": self.euler_steps or (_own_euler_steps(checkpoint) if checkpoint else None),
            "quantize": None if self.quantize == "none" else self.quantize,
            "over_ros": over_ros,
        }


def training_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint records about its training; {} when it does not."""
    return _json(checkpoint / "training.json")


def _own_euler_steps(checkpoint: Path) -> int | None:
    return _json(checkpoint / "config.json").get("euler_steps")


def _json(path: Path) -> dict[str, Any]:
    return json_format.loads(path.read_text()) if path.exists() else {}


def _from_here(path: Path) -> str:
    """A path below the working directory without what leads there: a result need not name folders of a machine."""
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)
