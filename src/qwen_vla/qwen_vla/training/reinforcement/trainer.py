# SPDX-License-Identifier: Apache-2.0
"""Runs a reinforcement recipe: roll out, update, log; a resumable loop over updates."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from gymnasium.vector import VectorEnv
from tqdm import tqdm

from qwen_vla.parallel import Engine
from qwen_vla.training.distributed import gathered
from qwen_vla.training.output_folder import claim
from qwen_vla.training.precision import told
from qwen_vla.training.progress.log import Log
from qwen_vla.training.reinforcement.actor import Sampling
from qwen_vla.training.reinforcement.chunk_env import parallel_envs
from qwen_vla.training.reinforcement.curve import plot_curve
from qwen_vla.training.reinforcement.ppo import update
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe
from qwen_vla.training.reinforcement.rollout import Episode, roll_out
from qwen_vla.training.reinforcement.run import Run, export, prepare
from qwen_vla.training.state import resume, save
from qwen_vla.training.trainer import StopSignal, TrainingStopped


def train(recipe: ReinforcementRecipe, max_steps: int | None = None, engine: Engine = "processes") -> Path:
    """Improve a checkpoint, resuming from `recipe.output` if it holds a state; returns the folder of the model.

    `max_steps` ends early with a saved state; `engine`: where the simulators run. TrainingStopped if SIGINT or SIGTERM
    ended it: the roll-out of the unfinished update is lost, everything before it is saved.
    """
    torch.set_num_threads(recipe.threads)
    claim(recipe)
    run = prepare(recipe)
    resume(run)
    last = recipe.steps if max_steps is None else min(recipe.steps, max_steps)
    if run.is_main:
        print(_introduction(run), file=sys.stderr)
    with StopSignal() as stop:
        if run.step < last:
            with _simulators(run, engine) as envs, Log(recipe.output, recipe.name, run.step, last, run.is_main) as log:
                _loop(run, last, envs, log, lambda: stop.asked)
            _write(run)
        export(run)
        run.actor.accelerator.wait_for_everyone()
    if run.step < last:
        message = f"stopped at step {run.step} of {last}, all saved; the same command resumes"
        raise TrainingStopped(message if run.is_main else "")
    return recipe.output / "model"


def _introduction(run: Run) -> str:
    recipe, device = run.recipe, run.actor.device
    trained = sum(p.numel() for group in run.optimizer.param_groups for p in group["params"]) / 1e6
    return (
        f"{recipe.name}: {trained:.1f} M parameters to train by "
        f"{run.actor.accelerator.num_processes} process(es) on {device.type}{told(recipe, device)}, {recipe.episodes} "
        f"episodes of {recipe.suite} per update in {recipe.environments} simulators, from step {run.step}; log and "
        f"curve in {recipe.output}"
    )


@contextlib.contextmanager
def _simulators(run: Run, engine: Engine) -> Iterator[VectorEnv]:
    recipe, robot = run.recipe, run.actor.embodiment
    shape = (robot.horizon, len(robot.channel_names))
    count = len(run.own(range(recipe.environments)))
    envs = parallel_envs(recipe.suite, count, recipe.workers, shape, robot.execution_horizon, engine)
    try:
        yield envs
    finally:
        envs.close(terminate=True)


def _loop(run: Run, last: int, envs: VectorEnv, log: Log, stop: Callable[[], bool]) -> None:
    if run.step == 0 and not _validated(run, envs, log, stop):
        return
    while run.step < last:
        row = _update(run, envs, log.bar, stop)
        if row is None:
            return
        run.step += 1
        log.write({"step": run.step, **row})
        log.bar.update()
        if run.step % run.recipe.save_every == 0:
            _write(run)
        if not _validated(run, envs, log, stop):
            return


def _write(run: Run) -> None:
    save(run)
    if run.is_main:
        plot_curve(run.recipe.output)


def _update(run: Run, envs: VectorEnv, bar: tqdm, stop: Callable[[], bool]) -> dict[str, float] | None:
    """One roll-out and its update; None if asked to stop before the update."""
    recipe, began = run.recipe, time.monotonic()
    scenes = run.scenes
    episodes = roll_out(run.actor, envs, scenes, run.actor.sampling, recipe.seed, _Tally(bar, len(scenes)), stop)
    if episodes is None:
        return None
    rolled_out = time.monotonic()
    rng = np.random.default_rng([recipe.seed, run.step])
    learned = update(run.actor, run.value_head, run.optimizer, episodes, recipe.ppo, rng)
    seconds = {"seconds/roll_out": rolled_out - began, "seconds/update": time.monotonic() - rolled_out}
    return {**_outcome(episodes, run.actor.accelerator), **learned, **seconds}


def _validated(run: Run, envs: VectorEnv, log: Log, stop: Callable[[], bool]) -> bool:
    """Validate the policy without exploration if due; False if asked to stop."""
    options = run.recipe.validation
    if options is None or run.step % options.every:
        return True
    scenes = run.own(range(options.seed, options.seed + options.episodes))
    sampling = Sampling(options.temperature, noise_level=0.0)
    episodes = roll_out(run.actor, envs, scenes, sampling, run.recipe.seed, _Tally(log.bar, len(scenes)), stop)
    if episodes is not None:
        measured = _outcome(episodes, run.actor.accelerator)
        log.write({"step": run.step, **{f"held_out/{name}": value for name, value in measured.items()}})
    return episodes is not None


def _outcome(episodes: list[Episode], accelerator: Accelerator) -> dict[str, float]:
    """Of all processes: success rate, decisions per episode, the share of refused chunks, in total and by reason."""
    own = [(episode.success, len(episode.decisions), episode.refused, episode.refusals) for episode in episodes]
    successes, counts, refused, reasons = zip(*itertools.chain(*gathered(own, accelerator)), strict=True)
    decisions, refusals = sum(counts), sum(reasons, Counter())
    return {
        "success": float(np.mean(successes)),
        "chunks": decisions / len(counts),
        "refused": sum(refused) / decisions,
        **{f"refused/{reason}": count / decisions for reason, count in sorted(refusals.items())},
    }


class _Tally:
    """Shows the count of a roll-out's episodes in the progress bar."""

    def __init__(self, bar: tqdm, total: int) -> None:
        self.bar, self.total, self.ended, self.succeeded = bar, total, 0, 0

    def __call__(self, episode: Episode) -> None:
        self.ended += 1
        self.succeeded += episode.success
        self.bar.set_postfix_str(f"episode {self.ended} of {self.total}, {self.succeeded} succeeded")
