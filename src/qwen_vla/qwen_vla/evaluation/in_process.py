"""Closed-loop evaluation in process: the simulator waits while the policy thinks. Episodes run in parallel."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from qwen_vla.evaluation.episode import Film, run_episode
from qwen_vla.evaluation.kept_episodes import KeptEpisodes, Played
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.parallel import parallel_map
from qwen_vla.suites import Shift, Suite, load_suite

if TYPE_CHECKING:
    from qwen_vla.policy import Policy


@dataclass(frozen=True)
class EvaluateOptions:
    """Episode i has seed `seed + i`.

    Attributes:
        shuffle_instructions: name another thing of the scene, but judge the original one.
        blind: show black images.
        chaos: disturb the nodes (over ROS only).
        shift: kind of scenes, other than those trained on.
        prompt_of: name of the robot whose prompt is used; None: the suite's own.
        euler_steps: denoising steps per chunk; 0: as many as the checkpoint says.
        quantize: of weights, as for `Policy.from_pretrained`.
        json: file of the summary; beside it rows are kept while the evaluation runs, so that it can go on.
        sheet: contact sheet (PNG) to write.
        videos: folder to write a video of one success and of one episode of every kind of failure to.
    """

    suite: str
    checkpoint: Path
    episodes: int
    seed: int
    shuffle_instructions: bool = False
    blind: bool = False
    euler_steps: int = 0
    quantize: str = "none"
    workers: int = os.cpu_count() or 1
    chaos: bool = False
    shift: Shift | None = None
    prompt_of: str | None = None
    json: Path | None = None
    sheet: Path | None = None
    videos: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("euler_steps", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def seeds(self) -> range:
        """Of the episodes."""
        return range(self.seed, self.seed + self.episodes)

    def conditions(self, over_ros: bool = False) -> dict[str, Any]:
        """What a summary says about how it was measured; `step`: of the checkpoint's training, None when unrecorded."""
        return {
            "checkpoint": _from_here(self.checkpoint),
            "step": _training(self.checkpoint).get("step"),
            "shift": self.shift,
            "shuffle_instructions": self.shuffle_instructions,
            "blind": self.blind,
            "prompt_of": self.prompt_of,
            "euler_steps": self.euler_steps or _json(self.checkpoint / "config.json").get("euler_steps"),
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
        try:
            episodes = _play_all(options, kept)
        except KeyboardInterrupt:
            said = f"interrupted; {kept.path} keeps what is done, the same command goes on" if kept.path else ""
            raise KeyboardInterrupt(said) from None
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
    from qwen_vla.policy import check_knows

    if options.chaos:
        raise ValueError("--chaos disturbs the nodes of a running graph; add --over-ros")
    suite = load_suite(options.suite)
    robot = suite.embodiment.name
    check_knows(options.checkpoint, robot)
    refuse_trained_seeds(options.checkpoint, options.seed, options.episodes)
    if options.shift and options.shift not in suite.shifts:
        offered = ", ".join(suite.shifts) or "none"
        raise ValueError(f"suite {options.suite!r} has no shift {options.shift!r}; it offers: {offered}")
    if options.prompt_of == robot:
        raise ValueError(f"the prompt of {robot} is the right one for suite {options.suite!r}; name another robot")
    if options.prompt_of:
        _prompt_template(options.prompt_of)


def refuse_trained_seeds(checkpoint: Path, seed: int, episodes: int) -> None:
    """ValueError when an episode's scene was in the data that the checkpoint says it was trained on."""
    for source in _training(checkpoint).get("data", []):
        first, end = source.get("seeds") or (0, 0)
        if seed < end and first < seed + episodes:
            raise ValueError(
                f"seeds {seed}…{seed + episodes - 1} overlap with the training data of {checkpoint} "
                f"({first}…{end - 1}); choose other seeds, e.g. --seed 7000"
            )


def _from_here(path: Path) -> str:
    """A path below the working directory without what leads there: a result need not name folders of a machine."""
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)


def _training(checkpoint: Path) -> dict:
    return _json(checkpoint / "training.json")


def _json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def _prompt_template(robot: str) -> str:
    from embodiment_descriptions import load_robot

    return load_robot(robot).prompt("{instruction}")


def _play_all(options: EvaluateOptions, kept: KeptEpisodes) -> list[Played]:
    """Play what is not kept yet; all episodes in the order of the seeds."""
    wanted = bool(options.sheet)
    missing = [seed for seed in options.seeds if not kept.has(seed, pictures=wanted)]
    done = [kept.played[seed].row for seed in options.seeds if seed not in missing]
    title = f"evaluate {options.suite}"
    with tqdm(total=options.episodes, initial=len(done), desc=title, unit="episode") as bar:
        successes = sum(row.success for row in done)
        for episode in parallel_map(partial(_Player, options), _Player.play, missing, options.workers):
            kept.add(episode)
            successes += episode.row.success
            bar.set_postfix(successes=successes, refresh=False)
            bar.update()
    return [kept.played[seed] for seed in options.seeds]


def _write_videos(options: EvaluateOptions, rows: Sequence[EpisodeRow]) -> None:
    """Play the first episode of every category again, filmed: what is not shown costs nothing."""
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
        import torch
        from transformers.utils import logging

        torch.set_num_threads(1)  # threads of parallel episodes would wait for each other
        logging.disable_progress_bar()  # that of loading would write into the bar of the episodes
        self.options = options
        self.suite: Suite = load_suite(options.suite)
        self.policy = self._load_policy()
        self.env = self.suite.make_env(shift=options.shift)

    def play(self, seed: int) -> Played:
        """One episode, with pictures for the contact sheet if there is to be one."""
        if not self.options.sheet:
            return Played(self._run(seed))
        from qwen_vla.evaluation.contact_sheet import strip

        film = Film()
        row = self._run(seed, film)
        return Played(row, strip(film, self.policy.camera_tags[0]))

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

    def _load_policy(self) -> Policy:
        from qwen_vla.policy import Policy

        options, robot = self.options, self.suite.embodiment.name
        policy = Policy.from_pretrained(
            options.checkpoint, euler_steps=options.euler_steps or None, embodiment=robot, quantize=options.quantize
        )
        if options.prompt_of:  # cameras, channels and statistics stay the robot's own: only the text is another
            policy.embodiment = replace(policy.embodiment, prompt_template=_prompt_template(options.prompt_of))
        return policy
