"""`qwen-vla evaluate --over-ros`: the same suite and the same summary as in process, through the running graph.

An episode has as many control steps as in process; the time in which the robot waits for the policy is not counted.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from qwen_vla.evaluation.in_process import EvaluateOptions, check
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.suites import Suite, load_suite
from qwen_vla_ros.stack import SimulatedWorld, simulated_stack
from qwen_vla_ros.task_client import Limits, TaskClient, TaskRow

LOGS = Path("out/evaluate_over_ros/logs")
THINKING_TIME = 6.0  # [s] simulated, per chunk: a chunk takes less than 0.2, on a busy machine two


def evaluate(options: EvaluateOptions) -> dict:
    """Run all episodes, one after the other; the summary is that of the in-process evaluation.

    Raises KeyError for an unknown suite, ValueError for what cannot be done over ROS, StackError, TaskError or
    ChildEnded when the stack fails.
    """
    _refuse_what_needs_the_inside(options)
    check(replace(options, chaos=False))
    suite, conditions = load_suite(options.suite), options.conditions(over_ros=True)
    world = SimulatedWorld(suite.embodiment.name, options.suite, options.shift or "")
    if options.chaos:
        from qwen_vla_ros.chaos import trial

        rows, findings = trial.run(options, suite, world, LOGS)
        return summarize(options.suite, options.seed, rows, **conditions, chaos=True, **findings)
    return summarize(options.suite, options.seed, _in_calm(options, suite, world), **conditions)


def _in_calm(options: EvaluateOptions, suite: Suite, world: SimulatedWorld) -> list[EpisodeRow]:
    limits = episode_limits(suite)
    seeds = range(options.seed, options.seed + options.episodes)
    policy = {"euler_steps": options.euler_steps, "quantize": options.quantize}
    with simulated_stack(options.checkpoint, LOGS, policy, world=world) as stack:
        tasks, rows = TaskClient(stack), []
        for seed in (bar := tqdm(seeds, desc=f"evaluate {options.suite} over ROS", unit="episode")):
            tasks.reset(seed)
            tasks.draw_from(seed * 1000)  # as in process
            rows.append(as_episode_row(tasks.execute(limits)))
            bar.set_postfix_str(f"{sum(row.success for row in rows)} done")
    return rows


def episode_limits(suite: Suite) -> Limits:
    """As many control steps as in process, and time to think between them."""
    robot = suite.embodiment
    chunks = math.ceil(suite.max_steps / (robot.chunk_size // 2))
    return Limits(timeout=suite.max_steps * robot.period + chunks * THINKING_TIME, steps=suite.max_steps)


def as_episode_row(row: TaskRow) -> EpisodeRow:
    """The fields of the in-process evaluation; chunks are those that the policy gave, refused ones included."""
    return EpisodeRow(
        seed=row.seed,
        instruction=row.instruction,
        target=row.target,
        success=row.success,
        chunks=row.chunks + row.refused,
        refused=row.refused,
        seconds=row.seconds,
        distance=row.distance,
        ended=row.ended,
        latency_ms_p50=row.latency_ms_p50 or 0.0,
        task=row.task,
        failure=row.failure,
        metrics=row.metrics,
    )


def _refuse_what_needs_the_inside(options: EvaluateOptions) -> None:
    flags = {
        "--shuffle-instructions": options.shuffle_instructions,
        "--blind": options.blind,
        "--prompt-of": options.prompt_of,
        "--sheet": options.sheet,
        "--videos": options.videos,
    }
    for flag, given in flags.items():
        if given:
            raise ValueError(f"{flag} works in process only; drop it, or --over-ros")
