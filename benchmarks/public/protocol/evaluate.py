# SPDX-License-Identifier: Apache-2.0
"""Measures a policy on a public benchmark: resumable, in parallel, with sheet, videos and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.episode import run_episode
from benchmarks.public.protocol.evaluate_options import EvaluateOptions
from benchmarks.public.protocol.result import summarize, trained_on
from benchmarks.public.protocol.served import LOOPBACK, served
from benchmarks.public.protocol.trials import Trial
from benchmarks.public.protocol.world_process import WorldProcess
from embodiment_descriptions import load_robot
from qwen_vla.evaluation.contact_sheet import strip, write_sheet
from qwen_vla.evaluation.episode import Film
from qwen_vla.evaluation.in_process import refuse_trained_seeds
from qwen_vla.evaluation.partial_results import PartialResults, Played, forget
from qwen_vla.evaluation.summary import EpisodeRow, rate_as_text
from qwen_vla.evaluation.videos import write_video
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import check_files, check_folder, claim_folder, plain_marker, with_maker
from qwen_vla.parallel import parallel_map
from qwen_vla.parallel.cluster import own_address
from qwen_vla.policies import open_policy
from qwen_vla.policies.checkpoint import checkpoint_of

MAKER = "benchmarks/public"  # as in `output_paths`
VIDEOS = plain_marker(MAKER)


def evaluate(benchmark: Benchmark, options: EvaluateOptions) -> dict[str, Any]:
    """Run all episodes and write what is asked for; returns the result.

    If interrupted, the finished episodes stay beside the result, and the same call resumes.
    """
    options = replace(options, policy=options.policy or benchmark.name)
    json, checkpoint = options.result_file(benchmark), checkpoint_of(options.policy)
    check_files(MAKER, options.overwrite, {"--json": json, "--sheet": options.sheet})
    states = benchmark.expert_trials if options.validation else benchmark.trials
    trials = states(benchmark.selected(options.tasks), options.episodes or benchmark.episodes)
    if options.videos:
        check_folder(options.videos, VIDEOS)
    if checkpoint:
        refuse_trained_seeds(checkpoint, trials[0].start, trials[-1].start - trials[0].start + 1)
    conditions = options.conditions()
    host = own_address() if options.engine == "ray" else LOOPBACK
    with served(options.policy, benchmark.robot, len(trials) + 1, options.device, host=host) as policy:
        played = play_all(benchmark, options, policy, trials, json, conditions)
        rows = [episode.row for episode in played]
        result = summarize(benchmark, rows, **conditions, trained_on=trained_on(checkpoint))
        write_json(json, with_maker(MAKER, result))
        forget(json)
        if options.sheet:
            write_sheet(options.sheet, f"{benchmark.name}: {rate_as_text(result)}", played, MAKER)
        if options.videos:
            _write_videos(benchmark, options, policy, rows)
    return result


def play_all(
    benchmark: Benchmark,
    options: EvaluateOptions,
    policy: str,
    trials: Sequence[Trial],
    json: Path,
    conditions: Mapping[str, Any],
) -> list[Played]:
    """Run the remaining trials; returns all in their order. The bar tells rate and remaining time."""
    with PartialResults(json, benchmark.name, checkpoint_of(options.policy), conditions) as kept:
        wanted = bool(options.sheet)
        left = [trial for trial in trials if not kept.has(trial.start, wanted)]
        with tqdm(total=len(trials), initial=len(trials) - len(left), desc=benchmark.name, unit="episode") as bar:
            prepare = partial(Player, benchmark, policy, options.rows, wanted)
            for episode in parallel_map(prepare, Player.play, left, options.workers, options.engine):
                kept.add(episode)
                successes = sum(done.row.success for done in kept.played.values())
                bar.set_postfix(successes=successes, refresh=False)
                bar.update()
        return [kept.played[trial.start] for trial in trials]


class Player:
    """Simulator and connection of one worker process."""

    def __init__(self, benchmark: Benchmark, policy: str, rows: int, pictures: bool) -> None:
        self._rows, self._pictures = rows, pictures
        self.robot = load_robot(str(benchmark.robot))
        self._policy = open_policy(policy, self.robot)
        self._world = WorldProcess(benchmark.environment.python, benchmark.module)

    def play(self, trial: Trial) -> Played:
        """One episode, with images for the contact sheet if it is requested."""
        film = Film()
        row = run_episode(self._world, self._policy, trial, self._rows, film)
        return Played(row, strip(film, self.robot.cameras[0].tag) if self._pictures else ())

    def film(self, trial: Trial) -> tuple[EpisodeRow, Film]:
        """One episode with an image of every row."""
        film = Film(every=1)
        return run_episode(self._world, self._policy, trial, self._rows, film), film

    def close(self) -> None:
        """End the simulator."""
        self._world.close()


def _write_videos(benchmark: Benchmark, options: EvaluateOptions, policy: str, rows: Sequence[EpisodeRow]) -> None:
    """Rerun the first episode of every category, so that filming costs no time elsewhere."""
    claim_folder(options.videos, VIDEOS)
    first: dict[str, EpisodeRow] = {}
    for row in rows:
        first.setdefault(row.category, row)
    player = Player(benchmark, policy, options.rows, pictures=False)
    for row in tqdm(first.values(), desc="videos", unit="video"):
        again, film = player.film(Trial(row.task, row.seed))
        write_video(options.videos, film, again, 1 / player.robot.rate_hz, MAKER)
    player.close()
