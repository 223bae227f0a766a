"""`qwen-vla evaluate --over-ros`: the same suite and the same summary as in process, through the running graph.

An episode has as many control steps as in process; the time in which the arm waits for the policy is not counted.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from qwen_vla.evaluation.in_process import EvaluateOptions, refuse_trained_seeds
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.suites import Suite, load_suite
from qwen_vla_ros.stack import simulated_stack
from qwen_vla_ros.task_client import Limits, TaskClient, TaskRow

SUITES = ("widowx_pick",)  # those whose world the simulator node shows
LOGS = Path("out/evaluate_over_ros/logs")
INFERENCE_ALLOWANCE = 60.0  # [s] simulated, of an episode: ten chunks take less than two, on a busy machine twenty


def evaluate(options: EvaluateOptions) -> dict:
    """Run all episodes, one after the other; the summary is that of the in-process evaluation.

    Raises ValueError for what cannot be done over ROS, StackError, TaskError or ChildEnded when the stack fails.
    """
    _refuse_what_needs_the_inside(options)
    refuse_trained_seeds(options.checkpoint, options.seed, options.episodes)
    conditions = options.conditions(over_ros=True)
    if options.chaos:
        from qwen_vla_ros.chaos import trial

        rows, findings = trial.run(options, LOGS)
        return summarize(options.suite, options.seed, rows, **conditions, chaos=True, **findings)
    return summarize(options.suite, options.seed, _in_calm(options), **conditions)


def _in_calm(options: EvaluateOptions) -> list[EpisodeRow]:
    limits = episode_limits(load_suite(options.suite))
    seeds = range(options.seed, options.seed + options.episodes)
    with simulated_stack(options.checkpoint, LOGS, {"euler_steps": options.euler_steps}) as stack:
        tasks, rows = TaskClient(stack), []
        for seed in (bar := tqdm(seeds, desc=f"evaluate {options.suite} over ROS", unit="episode")):
            tasks.reset(seed)
            tasks.draw_from(seed * 1000)  # as in process
            rows.append(as_episode_row(tasks.execute(limits)))
            bar.set_postfix_str(f"{sum(row.success for row in rows)} picked")
    return rows


def episode_limits(suite: Suite) -> Limits:
    """As many control steps as in process, and time to think between them."""
    return Limits(timeout=suite.max_steps * suite.embodiment.period + INFERENCE_ALLOWANCE, steps=suite.max_steps)


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
    )


def _refuse_what_needs_the_inside(options: EvaluateOptions) -> None:
    if options.suite not in SUITES:
        raise ValueError(f"suite {options.suite!r} has no simulator node; over ROS there are: {', '.join(SUITES)}")
    for flag, given in (("--shuffle-instructions", options.shuffle_instructions), ("--blind", options.blind)):
        if given:
            raise ValueError(
                f"{flag} changes what the policy is told or shown, which works in process only; drop --over-ros"
            )
