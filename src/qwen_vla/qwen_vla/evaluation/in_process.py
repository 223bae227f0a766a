"""Closed-loop evaluation in process: the simulator waits while the policy thinks. Episodes run in parallel."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qwen_vla.evaluation.episode import Film, run_episode
from qwen_vla.evaluation.kept_episodes import KeptEpisodes, Played
from qwen_vla.evaluation.summary import VIDEOS, EpisodeRow, summarize
from qwen_vla.output_paths import claim_folder
from qwen_vla.parallel import parallel_map
from qwen_vla.policies import ChunkPolicy, PolicyOptions, open_policy
from qwen_vla.policies.checkpoint import checkpoint_of
from qwen_vla.seeds import Split, require_split, split_of
from qwen_vla.suites import Shift, Suite, load_suite


@dataclass(frozen=True)
class EvaluateOptions:
    """Episode i has seed `seed + i`, or with a task the seed of its i-th scene from there on; all are of one split.

    Attributes:
        policy: reference of the policy, see `policies.opening`.
        task: only scenes of this task of the suite.
        shuffle_instructions: name another thing of the scene, but judge the original one.
        blind: show black images.
        chaos: disturb the nodes (over ROS only, and validation seeds only: it measures no success).
        shift: kind of scenes, other than those trained on.
        prompt_of: name of the robot whose prompt is used; None: the suite's own.
        euler_steps: denoising steps per chunk; 0: as many as the checkpoint says.
        quantize: of weights, as for `Policy.from_pretrained`.
        json: file of the summary; beside it rows are kept while the evaluation runs, so that it can go on.
        sheet: contact sheet (PNG) to write.
        videos: folder to write a video of one success and of one episode of every kind of failure to.
    """

    suite: str
    policy: str
    episodes: int
    seed: int
    shuffle_instructions: bool = False
    blind: bool = False
    euler_steps: int = 0
    quantize: str = "none"
    workers: int = os.cpu_count() or 1
    chaos: bool = False
    task: str | None = None
    shift: Shift | None = None
    prompt_of: str | None = None
    json: Path | None = None
    sheet: Path | None = None
    videos: Path | None = None

    def __post_init__(self) -> None:
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
        """Of the seeds from the first on; `check` looks at those of a single task, which lie farther apart."""
        return split_of(range(self.seed, self.seed + self.episodes))

    @property
    def checkpoint(self) -> Path | None:
        """Folder of the policy's checkpoint; None of a policy of another package."""
        return checkpoint_of(self.policy)

    def seeds(self, suite: Suite) -> list[int]:
        """Of the episodes; ValueError for a task that the suite does not have."""
        return [suite.seed_of(number, self.seed, self.task) for number in range(self.episodes)]

    def conditions(self, over_ros: bool = False) -> dict[str, Any]:
        """What a summary says about how it was measured; `step`: of the checkpoint's training, None when unrecorded."""
        checkpoint = self.checkpoint
        return {
            "checkpoint": _from_here(checkpoint) if checkpoint else self.policy,
            "step": _training(checkpoint).get("step") if checkpoint else None,
            "task": self.task,
            "shift": self.shift,
            "shuffle_instructions": self.shuffle_instructions,
            "blind": self.blind,
            "prompt_of": self.prompt_of,
            "euler_steps": self.euler_steps or (_own_euler_steps(checkpoint) if checkpoint else None),
            "quantize": None if self.quantize == "none" else self.quantize,
            "over_ros": over_ros,
        }


def evaluate(options: EvaluateOptions) -> dict:
    """Run all episodes; the summary's rows are in the order of the seeds. Writes the sheet and the videos.

    Interrupted, it leaves what was played in `part_of(options.json)`; the caller removes that when the summary is
    written.
    """
    check(options)
    with KeptEpisodes(options.json, options.suite, options.checkpoint, options.conditions()) as kept:
        episodes = _play_all(options, kept)
    rows = [episode.row for episode in episodes]
    summary = summarize(options.suite, options.seed, rows, **options.conditions())
    if options.sheet:
        from qwen_vla.evaluation.contact_sheet import write_sheet

        write_sheet(options.sheet, summary, episodes)
    if options.videos:
        _write_videos(options, rows)
    return summary


def check(options: EvaluateOptions) -> None:
    """Find out what is wrong with the options before anything is started."""
    from qwen_vla.model.checkpoint_files import check_knows

    if options.chaos:
        raise ValueError("--chaos disturbs the nodes of a running graph; add --over-ros")
    suite = load_suite(options.suite)
    robot = suite.embodiment.name
    checkpoint, seeds = options.checkpoint, options.seeds(suite)
    require_split(options.split, range(seeds[0], seeds[-1] + 1), f"task {options.task}")
    if checkpoint:
        check_knows(checkpoint, robot)
        refuse_trained_seeds(checkpoint, seeds[0], seeds[-1] - seeds[0] + 1)
    elif options.prompt_of:
        raise ValueError(f"--prompt-of changes the text that a checkpoint reads; {options.policy} is none")
    if options.shift and options.shift not in suite.shifts:
        offered = ", ".join(suite.shifts) or "none"
        raise ValueError(f"suite {options.suite!r} has no shift {options.shift!r}; it offers: {offered}")
    if options.prompt_of == robot:
        raise ValueError(f"the prompt of {robot} is the right one for suite {options.suite!r}; name another robot")
    if options.prompt_of:
        _prompt_template(options.prompt_of)


def refuse_trained_seeds(checkpoint: Path, seed: int, count: int) -> None:
    """ValueError when one of `count` seeds from `seed` on was in the data that a checkpoint says it was trained on."""
    for source in _training(checkpoint).get("data", []):
        first, end = source.get("seeds") or (0, 0)
        if seed < end and first < seed + count:
            raise ValueError(
                f"seeds {seed}…{seed + count - 1} overlap with the training data of {checkpoint} "
                f"({first}…{end - 1}); choose other seeds, e.g. --seed 7000"
            )


def _from_here(path: Path) -> str:
    """A path below the working directory without what leads there: a result need not name folders of a machine."""
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)


def _training(checkpoint: Path) -> dict:
    return _json(checkpoint / "training.json")


def _own_euler_steps(checkpoint: Path) -> int | None:
    return _json(checkpoint / "config.json").get("euler_steps")


def _json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def _prompt_template(robot: str) -> str:
    from embodiment_descriptions import load_robot

    return load_robot(robot).prompt("{instruction}")


def _play_all(options: EvaluateOptions, kept: KeptEpisodes) -> list[Played]:
    """Play what is not kept yet; all episodes in the order of the seeds."""
    wanted = bool(options.sheet)
    seeds = options.seeds(load_suite(options.suite))
    missing = [seed for seed in seeds if not kept.has(seed, pictures=wanted)]
    done = [kept.played[seed].row for seed in seeds if seed not in missing]
    title = f"evaluate {options.suite}"
    with tqdm(total=options.episodes, initial=len(done), desc=title, unit="episode") as bar:
        successes = sum(row.success for row in done)
        for episode in parallel_map(partial(_Player, options), _Player.play, missing, options.workers):
            kept.add(episode)
            successes += episode.row.success
            bar.set_postfix(successes=successes, refresh=False)
            bar.update()
    return [kept.played[seed] for seed in seeds]


def _write_videos(options: EvaluateOptions, rows: Sequence[EpisodeRow]) -> None:
    """Play the first episode of every category again, filmed: what is not shown costs nothing."""
    claim_folder(options.videos, VIDEOS)
    first: dict[str, EpisodeRow] = {}
    for row in rows:
        first.setdefault(row.category, row)
    with tqdm(total=len(first), desc="videos", unit="video") as bar:
        seeds = [row.seed for row in first.values()]
        for shown in parallel_map(partial(_Player, options), _Player.film, seeds, options.workers):
            bar.update()
            counted = next(row.category for row in first.values() if row.seed == shown.seed)
            if shown.category != counted:
                print(f"seed {shown.seed}: {counted}, but {shown.category} when it was filmed", file=sys.stderr)


class _Player:
    """Simulator and policy of one process."""

    def __init__(self, options: EvaluateOptions) -> None:
        os.environ["LP_NUM_THREADS"] = "1"  # the software rasteriser would start a thread per core in every process
        from transformers.utils import logging

        logging.disable_progress_bar()  # that of loading would write into the bar of the episodes
        self.options = options
        self.suite: Suite = load_suite(options.suite)
        self.policy = self._open_policy()
        self.env = self.suite.make_env(shift=options.shift, task=options.task)

    def play(self, seed: int) -> Played:
        """One episode, with pictures for the contact sheet if there is to be one."""
        if not self.options.sheet:
            return Played(self._run(seed))
        from qwen_vla.evaluation.contact_sheet import strip

        film = Film()
        row = self._run(seed, film)
        shown = next(iter(self.policy.camera_tags), self.suite.embodiment.cameras[0].tag)
        return Played(row, strip(film, shown))

    def film(self, seed: int) -> EpisodeRow:
        """One episode as a video, named by its category."""
        from qwen_vla.evaluation.videos import frame_step, write_video

        film = Film(every=frame_step(self.env.period))
        row = self._run(seed, film)
        write_video(self.options.videos, film, row, self.env.period)
        return row

    def _run(self, seed: int, film: Film | None = None) -> EpisodeRow:
        options = self.options
        return run_episode(self.suite, self.env, self.policy, seed, options.shuffle_instructions, options.blind, film)

    def _open_policy(self) -> ChunkPolicy:
        options, robot = self.options, self.suite.embodiment
        prompt = _prompt_template(options.prompt_of) if options.prompt_of else ""  # cameras and channels stay its own
        how = PolicyOptions(
            euler_steps=options.euler_steps, threads=1, prompt_template=prompt, quantize=options.quantize
        )
        return open_policy(options.policy, robot, how)  # threads of parallel episodes would wait for each other
