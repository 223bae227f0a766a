"""How long one action chunk takes, stage by stage, beside the shortest time the same arithmetic could take.

The floor is the number of matrix operations of one chunk (counted by PyTorch) divided by the rate of a large matrix
product measured in the same run, so that a busy or slow machine moves both alike.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from .configuration import QwenVLAConfig
from .modeling import QwenVLAModel
from .normalization import Quantiles
from .policy import Observation, Policy
from .processing import EmbodimentInfo, QwenVLAProcessor

STEPS = (4, 10)
WARM_UP = 5
GEMM_SIDE = 1024
CAMERA_TAGS = ("ego", "cam_wrist")
CAMERA_SHAPE = (240, 320, 3)
CHANNELS = ("x", "y", "z", "rx", "ry", "rz", "gripper")
PROMPT = (
    "The robot is WidowX with single arm. The control frequency is 5 Hz. Please predict the next 16 control actions to "
    "execute the following task: {instruction}."
)
INSTRUCTION = "pick up the red cube"


def run_benchmark(
    preset: str = "tiny",
    device: str = "cpu",
    threads: int = 2,
    repeats: int = 50,
    checkpoint: str | Path | None = None,
) -> dict[str, Any]:
    """Measure ``Policy.infer`` on two synthetic camera images.

    Without ``checkpoint`` the preset's geometry runs with random weights, which changes no timing. All times are in
    milliseconds; ``steps.N`` holds p50_ms and p99_ms of a whole chunk, the medians preprocess_ms, backbone_ms and
    expert_ms, and floor_ms. ``4b`` needs a GPU: on a CPU the result names the reason and holds its parameter table.
    """
    if repeats < 1 or threads < 1:
        raise ValueError(f"repeats ({repeats}) and threads ({threads}) must be at least 1")
    if preset == "4b" and torch.device(device).type == "cpu" and checkpoint is None:
        return {
            "preset": preset,
            "device": device,
            "not_measured": "4b takes about 20 GB and minutes per chunk on a CPU; use --device cuda",
            "parameters": parameter_table(preset),
        }
    earlier = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        policy = _policy(preset, device) if checkpoint is None else Policy.from_pretrained(checkpoint, device=device)
        return {
            "preset": preset if checkpoint is None else None,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "device": _device_name(device),
            "threads": threads,
            "repeats": repeats,
            "dtype": str(policy.model.dtype).removeprefix("torch."),
            "parameters": sum(p.numel() for p in policy.model.parameters()),
            **_measure(policy, repeats),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    finally:
        torch.set_num_threads(earlier)


def parameter_table(preset: str) -> dict[str, float]:
    """Millions of parameters per component, counted on the meta device (no memory is used)."""
    with torch.device("meta"):
        model = QwenVLAModel(QwenVLAConfig.preset(preset))
    expert = model.action_expert
    parts = {
        "vision": [model.vlm.model.visual],
        "language": [model.vlm.model.language_model],
        "expert block": [expert.blocks[0]],
        "expert blocks": [expert.blocks],
        "context projection": [expert.context_projection],
        "timestep embedding": [expert.timestep_embedding],
        "output AdaLN": [expert.out_modulation],
        "action MLPs": [expert.action_in, expert.action_out],
        "expert": [expert],
        "total": [model],
    }
    return {
        name: round(sum(p.numel() for module in modules for p in module.parameters()) / 1e6, 2)
        for name, modules in parts.items()
    }


def _measure(policy: Policy, repeats: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = {tag: rng.integers(0, 256, CAMERA_SHAPE, dtype=np.uint8) for tag in policy.camera_tags}
    observation = Observation(images, INSTRUCTION)
    rates = [_gemm_rate(policy.model)]
    steps: dict[str, dict[str, float]] = {}
    for count in STEPS:
        policy.euler_steps = count
        for _ in range(WARM_UP):
            policy.infer(observation, seed=0)
        times = [policy.infer(observation, seed=0).inference_ms for _ in range(repeats)]
        total = [t["total"] for t in times]
        steps[str(count)] = {
            "p50_ms": float(np.percentile(total, 50)),
            "p99_ms": float(np.percentile(total, 99)),
            **{
                f"{part}_ms": float(np.median([t[part] for t in times]))
                for part in ("preprocess", "backbone", "expert")
            },
            "operations": _operations(policy, observation),
        }
        rates.append(_gemm_rate(policy.model))
    # The fastest product seen is the fairest bound: other programs can only slow it down.
    rate = max(rates)
    for row in steps.values():
        row["floor_ms"] = 1e3 * row["operations"] / rate
    return {"steps": steps, "gemm_gflops": rate / 1e9}


def _operations(policy: Policy, observation: Observation) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions of one chunk."""
    prompt = policy.prompt(observation.instruction)
    batch = policy.processor([prompt], [observation.images] if observation.images else None)
    batch = {name: tensor.to(policy.model.device) for name, tensor in batch.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy.model.sample_actions(policy.model.encode(**batch), policy.action_mask, policy.euler_steps)
    return counter.get_total_flops()


def _gemm_rate(model: QwenVLAModel) -> float:
    """Operations per second of a large square matrix product in the model's type on its device; best of several."""
    side = GEMM_SIDE if model.device.type == "cpu" else 8 * GEMM_SIDE
    a, b = torch.randn(2, side, side, device=model.device, dtype=model.dtype).unbind(0)
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _policy(preset: str, device: str) -> Policy:
    """A policy of the preset's geometry with random weights, as if for a WidowX."""
    config = QwenVLAConfig.preset(preset)
    processor = QwenVLAProcessor.from_scratch([PROMPT, INSTRUCTION], config, CAMERA_TAGS)
    processor.normalization["widowx"] = Quantiles(-np.ones(7), np.ones(7), CHANNELS)
    processor.embodiments["widowx"] = EmbodimentInfo(
        name="widowx",
        channel_names=CHANNELS,
        control_mode="eef_delta",
        period=0.2,
        horizon=config.horizon,
        execution_horizon=config.horizon // 2,
        prompt_template=PROMPT,
        camera_tags=CAMERA_TAGS,
        dataset="widowx",
    )
    earlier = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
    try:
        with torch.device(device):
            model = QwenVLAModel(config)
    finally:
        torch.set_default_dtype(earlier)
    return Policy(model, processor)


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    return models[0] if models else "cpu"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
