# SPDX-License-Identifier: Apache-2.0
"""Is the model right and fast on this machine? Checks and times everything in under five minutes on a GPU.

    .venv/bin/python benchmarks/gpu_check.py --json out/gpu_check.json            # a GPU where there is one
    .venv/bin/python benchmarks/gpu_check.py --device cpu                         # the mechanisms, with tiny

On a GPU: ``tiny`` and ``4b`` with random weights, three images of 224², in bf16; then ``4b`` with 8-bit weights. On a
CPU: ``tiny`` alone, and what could not be measured is said. Errors are relative to float32 with the same weights,
images and noise.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen_vla import Observation, Policy
from qwen_vla.benchmark import (
    copy_rate,
    counted_work,
    gemm_rate,
    synthetic_observation,
    untrained_policy,
    work_floor,
)
from qwen_vla.model.acceleration.float32 import Float32
from qwen_vla.model.acceleration.quantization import quantized
from qwen_vla.model.acceleration.verified_call import relative_errors
from qwen_vla.model.linear_attention import kernels_installed
from qwen_vla.output_files import write_json

INSTRUCTIONS = 50
REPEATS = 20
STEPS = (4, 10)
STALL = 1.5  # most that the slowest call may take, in terms of the median
GOALS = {"tiny": {"chunk, 4 steps [ms]": 3.0}, "4b": {"chunk, 4 steps [ms]": 22.0, "chunk, 10 steps [ms]": 32.0}}
PREPROCESSING = 1.0  # [ms]
VERBS = ("pick up", "put away", "push", "lift", "look at", "turn over")
THINGS = ("cube", "carrot", "spoon", "towel", "eggplant", "tray", "bowl", "socket")
PLACES = ("", "on the plate", "in the basket next to the sink", "on the towel that lies at the far side of the table")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--accelerate", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; with more, they wait for other programs")
    parser.add_argument("--skip", nargs="*", default=[], choices=("tiny", "4b", "fp8"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on_gpu = torch.device(options.device).type == "cuda"
    began = time.perf_counter()
    result: dict[str, Any] = {"environment": environment(options.device)}
    print(result["environment"], flush=True)
    for preset in ("tiny", "4b"):
        if preset in options.skip:
            continue
        if preset == "4b" and not on_gpu:
            result[preset] = {"not measured": "4b takes about 20 GB and minutes per chunk on a CPU"}
        else:
            with_fp8 = "fp8" not in options.skip and (preset == "4b" or not on_gpu)
            result |= check(preset, options.device, options.accelerate, with_fp8)
    result["environment"]["took [s]"] = time.perf_counter() - began
    if options.json:
        write_json(options.json, result)
    print_result(result, judged=on_gpu)


def environment(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device,
        "torch": torch.__version__,
        "linear-attention kernels": kernels_installed(),
    }


def check(preset: str, device: str, accelerate: str, with_fp8: bool) -> dict[str, Any]:
    """The figures of one preset, and of the same weights in 8 bits."""
    began = time.perf_counter()
    policy = untrained_policy(preset, device, accelerate=accelerate)
    built = time.perf_counter() - began
    observation = synthetic_observation(policy)
    exact = packed(policy, observation, exactly=True)
    result = {preset: {"built [s]": built, **figures(policy, observation, exact), **padding(policy, observation)}}
    print_result(result, judged=policy.model.device.type == "cuda")
    if with_fp8:
        del policy.runner  # and with it the graphs
        gc.collect()
        torch.cuda.empty_cache()
        rounded = Policy(quantized(policy.model, "fp8"), policy.processor, accelerate=accelerate)
        result[f"{preset}, fp8 weights"] = figures(rounded, observation, exact)
    return result


def figures(policy: Policy, observation: Observation, exact: dict[int, torch.Tensor]) -> dict[str, Any]:
    """Preparation, errors, times, standstill and floor; exact: chunks in float32, by Euler steps."""
    found: dict[str, Any] = {}
    on_gpu = policy.model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(policy.model.device)
    plain = Policy(policy.model, policy.processor, accelerate="off")
    for steps, chunk in exact.items():
        found[f"error plain, {steps} steps"] = error(packed(plain, observation)[steps], chunk)
    for steps in STEPS:
        policy.euler_steps = steps
        found[f"prepared for {steps} steps [s]"] = policy.warm_up(progress=told)
        found |= times(policy, observation, steps)
        found[f"floor, {steps} steps [ms]"] = floor(policy, observation, steps)
    for steps, chunk in exact.items():
        found[f"error, {steps} steps"] = error(packed(policy, observation)[steps], chunk)
    policy.euler_steps = STEPS[0]
    found |= standstill(policy, observation)
    if on_gpu:
        found["peak memory [GB]"] = torch.cuda.max_memory_allocated(policy.model.device) / 1e9
    for part, decisions in policy.runner.decisions().items():
        found[part] = sorted({decision.choice for decision in decisions})
        found[f"{part} decided in [s]"] = sum(decision.seconds for decision in decisions)
    return found


def told(done: int, total: int, what: str) -> None:
    print(f"  preparing {done + 1} of {total}: {what}", flush=True)


@torch.inference_mode()
def packed(policy: Policy, observation: Observation, exactly: bool = False, length: int | None = None):
    """Chunks [1, H, K] in the model's units by number of Euler steps, with the noise of seed 0."""
    runner, mask = policy.runner, policy._mask(1)
    batch, noise = policy._batch([observation], length), policy._noise([observation], [0])
    if not exactly:
        context = runner.context(batch, mask)
        return {steps: runner.sample_actions(context, mask, steps, noise=noise).clone() for steps in STEPS}
    plain = Policy(policy.model, policy.processor, accelerate="off").runner
    with Float32():
        context = plain.context(batch, mask)
        return {steps: plain.sample_actions(context, mask, steps, noise=noise) for steps in STEPS}


def error(chunk: torch.Tensor, exact: torch.Tensor) -> float:
    return relative_errors([chunk], [exact])[0]


def times(policy: Policy, observation: Observation, steps: int) -> dict[str, float]:
    """Medians [ms] of a chunk and of its stages."""
    chunks = [policy.infer(observation, seed=0).inference_ms for _ in range(REPEATS)]
    median = {stage: float(np.median([chunk[stage] for chunk in chunks])) for stage in chunks[0]}
    return {
        f"chunk, {steps} steps [ms]": median["total"],
        f"expert, {steps} steps [ms]": median["expert"],
        "backbone [ms]": median["backbone"],
        "preprocessing [ms]": median["preprocess"],
    }


def standstill(policy: Policy, observation: Observation) -> dict[str, Any]:
    """Fifty instructions one after the other, none of them said before: the slowest call against the median.

    Some chunks come first: a processor that has slept for a second is slower, whatever is said. Processor time, which
    other programs on the machine hardly change, tells whether a slow call was this program's doing.
    """
    for _ in range(REPEATS):
        policy.infer(observation, seed=0)
    said = itertools.cycle(itertools.product(VERBS, THINGS, PLACES))
    tokens, taken, worked = set(), [], []
    for index, (verb, thing, place) in zip(range(INSTRUCTIONS), itertools.islice(said, 0, None, 3), strict=False):
        instruction = f"{verb} the {thing} number {index} {place}".strip()
        tokens.add(policy.processor.text_tokens(instruction))
        seen = Observation(observation.images, instruction, state=observation.state)
        began = time.process_time()
        taken.append(policy.infer(seen, seed=index).inference_ms)
        worked.append(time.process_time() - began)
    totals = [one["total"] for one in taken]
    slowest = max(taken, key=lambda one: one["total"])
    ratio = slowest["total"] / float(np.median(totals))
    return {
        "instructions": len(taken),
        "instruction lengths [tokens]": f"{min(tokens)}–{max(tokens)}",
        "slowest / median": ratio,
        "slowest / median, processor time": max(worked) / float(np.median(worked)),
        "no standstill": ratio <= STALL,
        "slowest [ms]": ", ".join(f"{stage} {ms:.1f}" for stage, ms in slowest.items()),
        "slowest was number": taken.index(slowest) + 1,
    }


def padding(policy: Policy, observation: Observation) -> dict[str, Any]:
    """A prompt padded to each length against the same prompt without padding, and how far that is from float32."""
    plain = Policy(policy.model, policy.processor, accelerate="off")
    batch = policy.processor.collate(policy._samples([observation]), device=policy.model.device)
    with torch.inference_mode():
        context = plain.runner.context(batch, policy._mask(1))
        bare = plain.runner.sample_actions(context, policy._mask(1), STEPS[0], noise=policy._noise([observation], [0]))
    exact = packed(policy, observation, exactly=True)[STEPS[0]]
    lengths = policy.shapes.lengths(policy.shapes.shown(observation.images)).lengths
    differences = [error(packed(policy, observation, length=length)[STEPS[0]], exact) for length in lengths]
    return {"error unpadded": error(bare, exact), "error padded, worst length": max(differences)}


def floor(policy: Policy, observation: Observation, steps: int) -> float:
    """The shortest time [ms] for the operations and bytes of a chunk, at rates measured now."""
    rate, bandwidth = gemm_rate(policy.model), copy_rate(policy.model)
    return sum(work_floor(row, rate, bandwidth)["floor_ms"] for row in counted_work(policy, observation, steps))


def print_result(result: dict[str, Any], judged: bool) -> None:
    """All figures in one table, and whether the goals are met, which are those of a GPU."""
    for part, values in result.items():
        table = Table("figure", "value", "goal", title=part)
        goals = GOALS.get(part, {}) | {"preprocessing [ms]": PREPROCESSING} if judged else {}
        for name, value in values.items():
            shown = f"{value:.3g}" if isinstance(value, float) else str(value)
            goal = goals.get(name)
            table.add_row(
                escape(name),
                escape(shown),
                "" if goal is None else f"≤ {goal:g} {'met' if value <= goal else 'MISSED'}",
            )
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
