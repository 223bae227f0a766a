# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla evaluate --over-ros`: the same suite and summary as in process, through the running graph.

An episode has as many control steps as in process; the time in which the robot waits for the policy does not count.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from qwen_vla.evaluation.in_process import check
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.evaluation.partial_results import PartialResults, Played
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.suites import Suite, load_suite
from qwen_vla_ros.simulation.stack import SimulatedWorld, simulated_stack
from qwen_vla_ros.simulation.task_client import Limits, TaskClient, as_episode_row

LOGS = Path("out/evaluate_over_ros/logs")
THINKING_TIME = 6.0  # [s] simulated, per chunk: usually below 0.2, two on a busy machine


def evaluate(options: EvaluateOptions) -> dict:
    """Run all episodes in order; the summary is that of the in-process evaluation.

    When interrupted, the completed episodes stay in `part_of(options.json)`, as in process; with chaos nothing stays,
    because its findings concern a whole run.

    Raises:
        KeyError: the suite is unknown.
        ValueError: an option does not work over ROS.
        StackError, TaskError, ChildEnded: the stack has failed.
    """
    options.check()
    _refuse_what_needs_the_inside(options)
    check(replace(options, chaos=False))
    suite, conditions = load_suite(options.suite), options.conditions(over_ros=True)
    world = SimulatedWorld(suite.embodiment.name, options.suite, options.shift or "", options.task or "")
    if options.chaos:
        from qwen_vla_ros.simulation.chaos import trial

        rows, findings = trial.run(options, suite, world, LOGS)
        findings |= {"chaos": True, "reference_path": suite.reference_path}
        return summarize(options.suite, options.seed, rows, **conditions, **findings)
    with PartialResults(options.json, options.suite, options.checkpoint, conditions) as kept:
        rows = _in_calm(options, suite, world, kept)
    return summarize(options.suite, options.seed, rows, **conditions, reference_path=suite.reference_path)


def _in_calm(options: EvaluateOptions, suite: Suite, world: SimulatedWorld, kept: PartialResults) -> list[EpisodeRow]:
    """Run the episodes without a stored result; returns all rows in the order of the seeds."""
    seeds = options.seeds(suite)
    missing = [seed for seed in seeds if not kept.has(seed, pictures=False)]
    if missing:
        limits = episode_limits(suite)
        policy = {"euler_steps": options.euler_steps, "quantize": options.quantize}
        with simulated_stack(options.policy, LOGS, policy, world=world) as stack:
            tasks = TaskClient(stack)
            title, done = f"evaluate {options.suite} over ROS", options.episodes - len(missing)
            for seed in (bar := tqdm(missing, title, options.episodes, initial=done, unit="episode")):
                tasks.reset(seed)
                tasks.draw_from(seed * 1000)  # as in process
                kept.add(Played(as_episode_row(tasks.execute(limits))))
                bar.set_postfix_str(f"{sum(episode.row.success for episode in kept.played.values())} succeeded")
    return [kept.played[seed].row for seed in seeds]


def episode_limits(suite: Suite) -> Limits:
    """As many control steps as in process, plus time for inference."""
    robot = suite.embodiment
    chunks = math.ceil(suite.max_steps / (robot.chunk_size // 2))
    return Limits(timeout=suite.max_steps * robot.period + chunks * THINKING_TIME, steps=suite.max_steps)


def _refuse_what_needs_the_inside(options: EvaluateOptions) -> None:
    flags = {
        "--shuffle-instructions": options.shuffle_instructions,
        "--blind": options.blind,
        "--prompt-of": options.prompt_of,
        "--sheet": options.sheet,
        "--videos": options.videos,
        "--engine": options.engine != "processes",
    }
    for flag, given in flags.items():
        if given:
            raise ValueError(f"{flag} works only in process; remove it, or --over-ros")
