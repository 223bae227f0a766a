"""Runs a recipe: one resumable loop over mixed batches, with EMA weights, held-out measures, a log and a loss curve.

Started with `accelerate launch` or `torchrun`, every process draws its own batch and the gradients are averaged.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

import torch
from accelerate.utils import set_seed
from tqdm import tqdm

from qwen_vla.training.batches import Batch
from qwen_vla.training.cpu_attention import MatmulAttention
from qwen_vla.training.curve import LOG_FILE, plot_curve
from qwen_vla.training.held_out import image_tokens, mean, validate
from qwen_vla.training.recipe import Recipe, check_inputs
from qwen_vla.training.run import Run, prepare
from qwen_vla.training.state import claim, export, resume, save


class TrainingStopped(KeyboardInterrupt):
    """A signal ended the training early; state and model of the last step are saved."""


def train(recipe: Recipe, max_steps: int | None = None) -> Path:
    """Train, resuming from `recipe.output` if it holds a state; returns the folder of the finished model.

    `max_steps` ends early (with a saved state); the schedule stays that of the full recipe. TrainingStopped when
    SIGINT or SIGTERM ended it.
    """
    torch.set_num_threads(recipe.threads)
    set_seed(recipe.seed)
    check_inputs(recipe)
    claim(recipe)
    run = prepare(recipe)
    resume(run)
    last = recipe.steps if max_steps is None else min(recipe.steps, max_steps)
    main = run.accelerator.is_main_process
    if main:
        print(_introduction(run), file=sys.stderr)
    with _StopSignal() as stop:
        with open(recipe.output / LOG_FILE if main else os.devnull, "a", buffering=1) as log:
            _loop(run, last, stop, log)
        if main:
            save(run)
            plot_curve(recipe.output)
            export(run)
        run.accelerator.wait_for_everyone()
    if run.step < last:
        message = f"stopped at step {run.step} of {last}, all saved; the same command goes on from there"
        raise TrainingStopped(message if main else "")
    return recipe.output / "model"


def _introduction(run: Run) -> str:
    """One line that says what is about to be trained, on what and where."""
    parameters = sum(p.numel() for p in run.model.parameters()) / 1e6
    frames = sum(len(source.training) for source in run.batches.sources)
    held_out = sum(len(source.held_out) for source in run.batches.sources)
    return (
        f"{run.recipe.name}: {parameters:.1f} M parameters, {frames} frames to train on, {held_out} held out, "
        f"{run.accelerator.num_processes} process(es) on {run.accelerator.device.type}, from step {run.step}; "
        f"log and loss curve in {run.recipe.output}"
    )


def _loop(run: Run, last: int, stop: _StopSignal, log: TextIO) -> None:
    recipe, main = run.recipe, run.accelerator.is_main_process
    bar = tqdm(total=last, initial=run.step, desc=recipe.name, unit="step", mininterval=2.0, disable=not main)
    window: list[dict] = []
    began = time.monotonic()
    while run.step < last and not _anyone(run, stop.asked):
        window.append(_training_step(run, run.batches[run.step].to(run.accelerator.device)))
        run.step += 1
        bar.update()
        if run.step % recipe.log_every == 0:
            row = mean(window) | {"step": run.step, "lr": run.schedule.get_last_lr()[0]}
            samples = len(window) * recipe.batch_size * run.accelerator.num_processes
            row["samples_per_s"] = samples / (time.monotonic() - began)
            _write_row(log, row, bar)
            window, began = [], time.monotonic()
        if main and run.step % recipe.validate_every == 0:
            _write_row(log, {"step": run.step, **validate(run)}, bar)
        if main and run.step % recipe.save_every == 0:
            save(run)
            plot_curve(recipe.output)
    bar.close()


def _training_step(run: Run, batch: Batch) -> dict[str, float]:
    recipe = run.recipe
    # Noise and τ depend on step and process alone, so that resuming changes nothing.
    torch.manual_seed((recipe.seed * 1_000_003 + run.step) * 64 + run.accelerator.process_index)
    with run.accelerator.autocast(), _fast_attention(run):
        losses = _losses(run, batch)
        total = sum(getattr(recipe.losses, name) * value for name, value in losses.items())
    run.accelerator.backward(total)
    _average_gradients(run)
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = run.accelerator.clip_grad_norm_(parameters, recipe.optimizer.max_grad_norm)
    run.optimizer.step()
    run.schedule.step()
    run.optimizer.zero_grad(set_to_none=True)
    decay = min(recipe.optimizer.ema_decay, (1 + run.step) / (10 + run.step))
    torch._foreach_lerp_(run.average, [p.detach() for p in run.model.parameters()], 1 - decay)
    result = {name: value.item() for name, value in losses.items()} | {"gradient_norm": float(norm)}
    if not all(map(math.isfinite, result.values())):
        raise FloatingPointError(f"step {run.step}: {result}; the last saved state is intact, lower the learning rate")
    return result


def _losses(run: Run, batch: Batch) -> dict[str, torch.Tensor]:
    encoding = run.model.encode(**batch.inputs)
    losses = {}
    if batch.actions is not None and run.recipe.losses.action:
        losses["action"] = run.model.action_loss(
            encoding, batch.actions, batch.action_mask, noise_draws=run.recipe.noise_draws
        )
    if "labels" in batch.inputs and run.recipe.losses.language:
        losses["language"] = run.model.language_loss(encoding, batch.inputs["labels"])
    if batch.grounding is not None and run.recipe.losses.grounding:
        losses["grounding"] = run.head.loss(image_tokens(encoding, batch), batch.grounding)
    return losses


def _average_gradients(run: Run) -> None:
    """The mean of all processes' gradients, in every process; they have gradients for the same parameters."""
    if run.accelerator.num_processes == 1:
        return
    gradients = [p.grad for group in run.optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = run.accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "mean")
    for gradient, average in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(average.view_as(gradient))


def _fast_attention(run: Run) -> contextlib.AbstractContextManager:
    cpu_bf16 = run.recipe.autocast == "bf16" and run.accelerator.device.type == "cpu"
    return MatmulAttention() if cpu_bf16 else contextlib.nullcontext()


def _anyone(run: Run, asked: bool) -> bool:
    """Whether any process was asked to stop; all leave the loop at the same step."""
    if run.accelerator.num_processes == 1:
        return asked
    return bool(run.accelerator.reduce(torch.tensor(float(asked), device=run.accelerator.device), "sum"))


class _StopSignal:
    """While active, SIGINT and SIGTERM only ask to stop after the running step; the same one again ends the process.

    The same one, because torchrun, interrupted itself, sends its processes a SIGTERM on top of their SIGINT.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _StopSignal:
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_exc) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number, _frame) -> None:
        self.asked = True
        signal.signal(number, self._previous[number])


def _write_row(log: TextIO, row: dict, bar: tqdm) -> None:
    log.write(json.dumps(row) + "\n")
    shown = {key.removeprefix("held_out/"): f"{value:.3g}" for key, value in row.items() if key != "step"}
    bar.set_postfix(shown, refresh=False)
