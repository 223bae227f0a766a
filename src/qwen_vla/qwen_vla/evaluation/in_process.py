# SPDX-License-Identifier: Apache-2.0
"""Closed-loop evaluation in process: the simulator waits for inference. Episodes run in parallel."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from qwen_vla.evaluation.episode import Film, run_episode
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.evaluation.partial_results import PartialResults, Played
from qwen_vla.evaluation.summary import VIDEOS, EpisodeRow, summarize
from qwen_vla.output_paths import claim_folder
from qwen_vla.parallel import parallel_map
from qwen_vla.policies import ChunkPolicy, PolicyOptions, open_policy
from qwen_vla.seeds import require_split
from qwen_vla.suites import Suite, load_suite


def evaluate(options: EvaluateOptions) -> dict:
    """Run all episodes; the summary's rows are in the order of the seeds. Writes the sheet and the videos.

    If interrupted, the finished episodes stay in `part_of(options.json)`; the caller removes that file once the summary
    is written.
    """
    check(options)
    with PartialResults(options.json, options.suite, options.checkpoint, options.conditions()) as kept:
        episodes = _play_all(options, kept)
    rows = [episode.row for episode in episodes]
    reference = load_suite(options.suite).reference_path
    summary = summarize(options.suite, options.seed, rows, **options.conditions(), reference_path=reference)
    if options.sheet:
        from qwen_vla.evaluation.contact_sheet import title_of, write_sheet

        write_sheet(options.sheet, title_of(summary), episodes)
    if options.videos:
        _write_videos(options.videos, options, rows)
    return summary


def check(options: EvaluateOptions) -> None:
    """Check the options before anything is started."""
    from qwen_vla.model.checkpoint.files import check_knows

    options.check()
    if options.chaos:
        raise ValueError("--chaos injects faults into the nodes of a running graph; add --over-ros")
    suite = load_suite(options.suite)
    robot = suite.embodiment.name
    checkpoint, seeds = options.checkpoint, options.seeds(suite)
    require_split(options.split, range(seeds[0], seeds[-1] + 1), f"task {options.task}")
    if checkpoint:
        check_knows(checkpoint, robot)
        refuse_trained_seeds(checkpoint, seeds[0], seeds[-1] - seeds[0] + 1)
    elif options.prompt_of:
        raise ValueError(f"--prompt-of changes the prompt of a checkpoint; {options.policy} is none")
    if options.shift and options.shift not in suite.shifts:
        offered = ", ".join(suite.shifts) or "none"
        raise ValueError(f"suite {options.suite!r} has no shift {options.shift!r}; it offers: {offered}")
    if options.prompt_of == robot:
        raise ValueError(f"the prompt of {robot} is that of suite {options.suite!r}; name another robot")
    if options.prompt_of:
        _prompt_template(options.prompt_of)


def refuse_trained_seeds(checkpoint: Path, seed: int, count: int) -> None:
    """ValueError if one of `count` seeds from `seed` on is in a checkpoint's recorded training data."""
    from qwen_vla.model.checkpoint.files import read_training

    for source in read_training(checkpoint).data:
        first, end = source.seeds or (0, 0)
        if seed < end and first < seed + count:
            raise ValueError(
                f"seeds {seed}…{seed + count - 1} overlap with the training data of {checkpoint} "
                f"({first}…{end - 1}); choose other seeds, e.g. --seed 7000"
            )


def _prompt_template(robot: str) -> str:
    from embodiment_descriptions import load_robot

    return load_robot(robot).prompt("{instruction}")


def _play_all(options: EvaluateOptions, kept: PartialResults) -> list[Played]:
    """Run the remaining episodes; returns all in the order of the seeds."""
    wanted = bool(options.sheet)
    seeds = options.seeds(load_suite(options.suite))
    missing = [seed for seed in seeds if not kept.has(seed, pictures=wanted)]
    done = [kept.played[seed].row for seed in seeds if seed not in missing]
    title = f"evaluate {options.suite}"
    with tqdm(total=options.episodes, initial=len(done), desc=title, unit="episode") as bar:
        successes = sum(row.success for row in done)
        for episode in parallel_map(partial(_Player, options), _Player.play, missing, options.workers, options.engine):
            kept.add(episode)
            successes += episode.row.success
            bar.set_postfix(successes=successes, refresh=False)
            bar.update()
    return [kept.played[seed] for seed in seeds]


def _write_videos(folder: Path, options: EvaluateOptions, rows: Sequence[EpisodeRow]) -> None:
    """Rerun and record the first episode of every category, so that recording costs no time elsewhere."""
    claim_folder(folder, VIDEOS)
    first: dict[str, EpisodeRow] = {}
    for row in rows:
        first.setdefault(row.category, row)
    with tqdm(total=len(first), desc="videos", unit="video") as bar:
        seeds = [row.seed for row in first.values()]
        for shown in parallel_map(partial(_Player, options), _Player.film, seeds, options.workers):
            bar.update()
            counted = next(row.category for row in first.values() if row.seed == shown.seed)
            if shown.category != counted:
                print(f"seed {shown.seed}: {counted}, but {shown.category} when rerun for its video", file=sys.stderr)


class _Player:
    """Simulator and policy of one process."""

    def __init__(self, options: EvaluateOptions) -> None:
        os.environ["LP_NUM_THREADS"] = "1"  # the software rasterizer would start a thread per core in every process
        from transformers.utils import logging

        logging.disable_progress_bar()  # that of loading would overwrite that of the episodes
        self.options = options
        self.suite: Suite = load_suite(options.suite)
        self.policy = self._open_policy()
        self.env = self.suite.make_env(shift=options.shift, task=options.task)

    def play(self, seed: int) -> Played:
        """One episode, with images for the contact sheet if it is requested."""
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

        if self.options.videos is None:
            raise ValueError("there is no folder for videos; give one with --videos")
        film = Film(every=frame_step(self.env.period))
        row = self._run(seed, film)
        write_video(self.options.videos, film, row, self.env.period)
        return row

    def _run(self, seed: int, film: Film | None = None) -> EpisodeRow:
        options = self.options
        return run_episode(self.suite, self.env, self.policy, seed, options.shuffle_instructions, options.blind, film)

    def _open_policy(self) -> ChunkPolicy:
        options, robot = self.options, self.suite.embodiment
        prompt = _prompt_template(options.prompt_of) if options.prompt_of else ""  # cameras and channels stay
        how = PolicyOptions(
            euler_steps=options.euler_steps, threads=1, prompt_template=prompt, quantize=options.quantize
        )
        return open_policy(options.policy, robot, how)  # threads of parallel episodes would wait for each other
