# SPDX-License-Identifier: Apache-2.0
"""Runs a recipe: one resumable loop over mixed batches, with EMA weights, held-out metrics, a log and a loss curve.

Started with `accelerate launch` or `torchrun`, the processes share every batch. Losses are sums over a process's rows
divided by the counts of the whole batch, so the update is that of one process.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate.utils import set_seed

from qwen_vla.training.batching.batch import Batch
from qwen_vla.training.batching.batches import Prefetch
from qwen_vla.training.cpu_attention import MatmulAttention
from qwen_vla.training.distributed import anyone, clip_gradients, collect_later, norm, own_part, summed
from qwen_vla.training.grounding import WEIGHTS
from qwen_vla.training.held_out import mean, validate
from qwen_vla.training.output_folder import claim
from qwen_vla.training.precision import in_bf16, told
from qwen_vla.training.progress.curve import plot_curve
from qwen_vla.training.progress.log import Log
from qwen_vla.training.recipe import Recipe
from qwen_vla.training.recipe_files import check_inputs
from qwen_vla.training.run import Device, Run, export, prepare
from qwen_vla.training.state import resume, save

WAIT_SHARE = 0.05  # of the time; more than this spent waiting for data is reported
IMPATIENCE = 3.0  # [s] after which a repeated signal ends the process, saved or not


class TrainingStopped(KeyboardInterrupt):
    """A signal ended the training early; state and model of the last step are saved."""


def train(recipe: Recipe, max_steps: int | None = None, device: Device = "auto") -> Path:
    """Train, resuming from `recipe.output` if it holds a state; returns the folder of the finished model.

    `max_steps` ends early with a saved state; the schedule stays that of the full recipe. TrainingStopped if
    SIGINT or SIGTERM ended it.
    """
    torch.set_num_threads(recipe.threads)
    set_seed(recipe.seed)
    check_inputs(recipe)
    claim(recipe)
    run = prepare(recipe, device)
    resume(run)
    last = recipe.steps if max_steps is None else min(recipe.steps, max_steps)
    main = run.is_main
    if main:
        print(_introduction(run), file=sys.stderr)
    with StopSignal() as stop:
        with Log(recipe.output, recipe.name, run.step, last, main) as log:
            _loop(run, last, stop, log)
        _write(run)
        export(run)
        run.accelerator.wait_for_everyone()
    if run.step < last:
        message = f"stopped at step {run.step} of {last}, all saved; the same command resumes"
        raise TrainingStopped(message if main else "")
    return recipe.output / "model"


def training_step(run: Run, batches: list[Batch]) -> dict[str, float]:
    """One optimization step on this process's batches; returns the losses of the whole batch."""
    recipe = run.recipe
    # Only dropout is random here; it depends only on step and process, so that resuming changes nothing.
    torch.manual_seed((recipe.seed * 1_000_003 + run.step) * 64 + run.accelerator.process_index)
    batches = [batch.to(run.accelerator.device) for batch in batches]
    counts = _counts(run, batches)
    if run.balance.due(run.step):
        _measure_balance(run, batches, counts)
    losses = _backward(run, batches, counts, _weights(run))
    size = clip_gradients(_parameters(run), recipe.optimizer.max_grad_norm)
    run.optimizer.step()
    run.schedule.step()
    run.optimizer.zero_grad(set_to_none=True)
    decay = min(recipe.optimizer.ema_decay, (1 + run.step) / (10 + run.step))
    if run.average:
        torch._foreach_lerp_(run.average, [own_part(p.detach()) for p in run.trained], 1 - decay)
    result = losses | {"gradient_norm": size}
    if not all(map(math.isfinite, result.values())):
        raise FloatingPointError(f"step {run.step}: {result}; the last saved state is intact, lower the learning rate")
    return result


def _introduction(run: Run) -> str:
    """One line on what will be trained, on which data and device."""
    parameters = sum(p.numel() for p in run.model.parameters()) / 1e6
    trained = sum(p.numel() for p in run.trained) / 1e6
    frames = sum(len(source.training) for source in run.sources)
    held_out = sum(len(source.held_out) for source in run.sources)
    part = "" if trained == parameters else f", {trained:.1f} M of them trained"
    device = run.accelerator.device
    return (
        f"{run.recipe.name}: {parameters:.1f} M parameters{part}, {frames} samples to train on, {held_out} held out, "
        f"{run.accelerator.num_processes} process(es) on {device.type}{told(run.recipe, device)}, from step "
        f"{run.step}; {run.placement}; log and loss curve in {run.recipe.output}{_clipping(run)}"
    )


def _clipping(run: Run) -> str:
    """A line per source and statistics on the labels outside the range, by channel."""
    lines = []
    for source, clipped in zip(run.sources, run.clipped, strict=True):
        for name, shares in clipped.items():
            told = ", ".join(f"{channel} {share:.1%}" for channel, share in shares.items() if share)
            lines.append(f"\n{source.name}, statistics {name}: labels clipped: {told or 'none'}")
    return "".join(lines)


def _loop(run: Run, last: int, stop: StopSignal, log: Log) -> None:
    recipe = run.recipe
    window = _Window()
    with Prefetch(run.batches, run.step, last) as prefetch:
        while run.step < last and not anyone(stop.asked, run.accelerator):  # all end at the same step
            window.rows.append(training_step(run, prefetch.take(run.step)))
            run.step += 1
            log.bar.update()
            if run.step % recipe.log_every == 0:
                log.write({"step": run.step, "lr": run.schedule.get_last_lr()[0]} | window.close(run, prefetch))
            if run.step % recipe.validate_every == 0:
                log.write({"step": run.step, **validate(run)})
            if run.step % recipe.save_every == 0:
                _write(run)
            if recipe.keep_every and run.step % recipe.keep_every == 0:
                export(run, f"step_{run.step}")


class _Window:
    """The steps since the last row of the log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._began, self._waited, self._warned = time.monotonic(), 0.0, False

    def close(self, run: Run, prefetch: Prefetch) -> dict[str, float]:
        """Means of the losses, speed, and the share of the time spent waiting for data; starts the next window."""
        elapsed = time.monotonic() - self._began
        share = (prefetch.waited - self._waited) / elapsed
        row = mean(self.rows)
        row |= {"samples_per_s": len(self.rows) * run.recipe.batch_size / elapsed, "data_wait_share": share}
        if run.balance.losses.balance != "fixed":
            row["language_weight"] = run.balance.language
        if self._waited and share > WAIT_SHARE and not self._warned:
            self._warned = True
            warnings.warn(
                f"{share:.0%} of the time was spent waiting for data; store images at the model's size, or lower the "
                "cost of a sample",
                stacklevel=2,
            )
        self.rows, self._began, self._waited = [], time.monotonic(), prefetch.waited
        return row


def _write(run: Run) -> None:
    save(run)
    if run.is_main:
        plot_curve(run.recipe.output)


def _counts(run: Run, batches: list[Batch]) -> dict[str, float]:
    """Number of terms of each loss in the whole batch, over all processes."""
    tokens = run.model.config.tokens_per_image
    counts = dict.fromkeys(("action", "language", *WEIGHTS), 0)
    for batch in batches:
        for name, count in batch.counts(tokens).items():
            counts[name] += count
    return summed(counts, run.accelerator)


def _weights(run: Run) -> dict[str, float]:
    """Weight of every sum that the learner returns."""
    losses = run.recipe.losses
    grounding = {name: losses.grounding * weight for name, weight in WEIGHTS.items()}
    return {"action": losses.action, "language": run.balance.language, **grounding}


def _backward(
    run: Run, batches: list[Batch], counts: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, float]:
    """Gradients of Σ weight · sum / count over all rows of all processes; returns the unweighted losses."""
    totals = dict.fromkeys((name for name, count in counts.items() if count), 0.0)
    for number, batch in enumerate(batches):
        collect_later(run.wrapped, last=number == len(batches) - 1)
        with _precision(run), _fast_attention(run):
            sums = run.wrapped(batch)
        parts = {name: value / max(1.0, counts[name]) for name, value in sums.items()}
        # DDP and FSDP average over the processes; these parts must be summed.
        total = sum(weights[name] * value for name, value in parts.items()) * run.accelerator.num_processes
        total.backward()
        for name, value in parts.items():
            if counts[name]:
                totals[name] += value.item()
    return _named(summed(totals, run.accelerator), run.learner.losses)


def _named(totals: Mapping[str, float], learned: tuple[str, ...]) -> dict[str, float]:
    """The trained losses, with the parts of grounding summed."""
    losses = {name: totals[name] for name in ("action", "language") if name in totals and name in learned}
    parts = [weight * totals[name] for name, weight in WEIGHTS.items() if name in totals]
    return losses | ({"grounding": sum(parts)} if parts and "grounding" in learned else {})


def _measure_balance(run: Run, batches: list[Batch], counts: Mapping[str, float]) -> None:
    """Measure each loss's separate effect on the backbone, and update the weight of language."""
    if not (counts["action"] and counts["language"]):
        return
    norms = {}
    backbone = [p for p in run.model.vlm.parameters() if p.requires_grad]
    for name in ("action", "language"):
        _backward(run, batches, counts, {other: float(other == name) for other in counts})
        norms[name] = norm([p.grad for p in backbone if p.grad is not None])
        run.optimizer.zero_grad(set_to_none=True)
    run.balance.update(norms["action"], norms["language"])


def _parameters(run: Run) -> list[torch.nn.Parameter]:
    return [p for group in run.optimizer.param_groups for p in group["params"]]


def _precision(run: Run) -> torch.autocast:
    device = run.accelerator.device
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bf16(run.recipe, device))


def _fast_attention(run: Run) -> contextlib.AbstractContextManager:
    device = run.accelerator.device
    slow = device.type == "cpu" and in_bf16(run.recipe, device)
    return MatmulAttention() if slow else contextlib.nullcontext()


class StopSignal:
    """While active, SIGINT and SIGTERM only ask to stop after the running step; the same one, later, ends the process.

    Later, because a scheduler that ends a job sends SIGTERM to every process, and torchrun, which also gets one, sends
    another to its processes.
    """

    def __init__(self) -> None:
        self.asked = False
        self._first: dict[int, float] = {}

    def __enter__(self) -> StopSignal:
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_exc) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number, _frame) -> None:
        self.asked = True
        now = time.monotonic()
        if now - self._first.setdefault(number, now) > IMPATIENCE:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
