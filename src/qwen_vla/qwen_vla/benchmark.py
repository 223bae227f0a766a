# SPDX-License-Identifier: Apache-2.0
"""Latency of an action chunk, stage by stage, beside a lower bound for the same arithmetic.

The floor of a stage is the larger of two bounds, both measured in the same run, so that a busy or slow machine affects
measurement and bound alike: its matrix operations (counted by PyTorch) over the rate of a large matrix product, and the
bytes of its weights over the memory bandwidth of a copy.
"""

from __future__ import annotations

import contextlib
import functools
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionPatchEmbed

from embodiment_descriptions import ControlMode
from qwen_vla.benchmark_options import CAMERA_TAGS, BenchmarkOptions
from qwen_vla.model.acceleration.quantization import quantized
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.devices import usable_device
from qwen_vla.model.flow_matching import tau_grid
from qwen_vla.model.linear_attention import kernels_installed
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.policies.chunk_policy import Observation
from qwen_vla.policies.policy import Policy

STEPS = (4, 10)
WARM_UP = 3
NAIVE_SHARE = 0.2  # of the repeats: the naive computation is slow, and a median of a few runs suffices
GEMM_SIDE = 1024
COPY_MB = 64
CAMERA_SHAPE = (240, 320, 3)
CHANNELS = ("x", "y", "z", "rx", "ry", "rz", "gripper")
PROMPT = (
    "The robot is WidowX with single arm. The control frequency is 5 Hz. Please predict the next 16 control actions to "
    "execute the following task: {instruction}."
)
INSTRUCTION = "pick up the red cube"
IMAGE_SIZES = {"4b": 224}  # presets measured at an image size other than their default
IMAGES = {"tiny": 2, "4b": 3}
DATA_SHEET = {"device": "H200 (data sheet: 4.8 TB/s, 989 TFLOP/s dense bf16)", "bandwidth": 4.8e12, "rate": 989e12}


@dataclass(frozen=True)
class Part:
    """A computation and the weights that it must read. repeats: per chunk."""

    name: str
    run: Callable[[], Any]
    weights: list[nn.Module] = field(default_factory=list)
    repeats: int = 1

    def bytes(self) -> int:
        """Bytes of the weights read by one run, repeats included."""
        tensors = {id(t): t for module in self.weights for t in (*module.parameters(), *module.buffers())}
        return self.repeats * sum(t.numel() * t.element_size() for t in tensors.values())

    def operations(self) -> int:
        """Floating-point operations of its matrix products, convolutions and attention, repeats included."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.run()
        return counter.get_total_flops()


def run_benchmark(options: BenchmarkOptions) -> dict[str, Any]:
    """Measure ``Policy.infer`` on synthetic camera images of 240×320.

    All times are in milliseconds. ``steps.N`` has for N Euler steps p50_ms and p99_ms of a whole chunk; the medians
    preprocess_ms, backbone_ms, expert_ms; floor_ms; the stages; naive_ms: transformers' own backbone, unchanged, in
    every Euler step, without caching; recomputed_ms: the same with this library's faster modules (both without the one
    token of a robot's state). ``4b`` needs a GPU: on a CPU the result gives the reason, the parameter table, and its
    operations and bytes.
    """
    options.check()
    device = usable_device(options.device)
    if options.preset == "4b" and device.type == "cpu" and options.checkpoint is None:
        return {
            "preset": options.preset,
            "device": options.device,
            "not_measured": "4b needs about 20 GB and minutes per chunk on a CPU; use --device cuda",
            "parameters": parameter_table(options.preset),
            "analytic": analytic_floor(options.preset, options.images),
        }
    earlier = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        policy = _policy_of(options)
        return {
            "preset": options.preset if options.checkpoint is None else None,
            "checkpoint": None if options.checkpoint is None else str(options.checkpoint),
            "robot": None if options.checkpoint is None else policy.embodiment.name,
            "device": _device_name(options.device),
            "threads": options.threads,
            "repeats": options.repeats,
            "images": len(policy.camera_tags),
            "image_size": policy.model.config.image_size,
            "dtype": str(policy.model.dtype).removeprefix("torch."),
            "quantize": options.quantize,
            "linear_attention_kernels": kernels_installed(),
            "parameters": sum(p.numel() for p in policy.model.parameters()),
            "load_average": _load_average(),
            **_measure(policy, options.repeats),
            **_peaks(policy.model.device),
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


def analytic_floor(preset: str = "4b", images: int | None = None, steps: int = STEPS[-1]) -> dict[str, Any]:
    """Operations and bytes of one bf16 chunk, counted on the meta device, and the floor from a GPU's data sheet."""
    policy = untrained_policy(preset, "meta", images)
    rows = [
        row | work_floor(row, DATA_SHEET["rate"], DATA_SHEET["bandwidth"])
        for row in counted_work(policy, synthetic_observation(policy), steps)
    ]
    total = {key: sum(row[key] for row in rows) for key in ("operations", "bytes", "floor_ms")}
    return {
        "images": len(policy.camera_tags),
        "image_size": policy.model.config.image_size,
        "steps": steps,
        "device": DATA_SHEET["device"],
        "stages": rows,
        **total,
    }


# --- measuring --------------------------------------------------------------------------------------------------------


def _measure(policy: Policy, repeats: int) -> dict[str, Any]:
    observation = synthetic_observation(policy)
    warm_up = 0.0
    rates, bandwidths = [gemm_rate(policy.model)], [copy_rate(policy.model)]
    steps: dict[str, dict[str, Any]] = {}
    for count in STEPS:
        policy.euler_steps = count
        warm_up += policy.warm_up()
        steps[str(count)] = _measure_chunks(policy, observation, repeats)
        steps[str(count)]["stages"] = _measure_stages(policy, observation, count, repeats)
        rates.append(gemm_rate(policy.model))
        bandwidths.append(copy_rate(policy.model))
    # The fastest run is the best bound: other programs can only slow it down.
    rate, bandwidth = max(rates), max(bandwidths)
    for row in steps.values():
        _add_floors(row, rate, bandwidth)
    return {
        "steps": steps,
        "gemm_gflops": rate / 1e9,
        "bandwidth_gb_s": bandwidth / 1e9,
        "warm_up_s": warm_up,
        "acceleration": {
            part: [asdict(decision) for decision in decisions] for part, decisions in policy.runner.decisions().items()
        },
    }


def _measure_chunks(policy: Policy, observation: Observation, repeats: int) -> dict[str, float]:
    """Whole chunks, interleaved with the two slower computations, so that a busy machine slows all three."""
    for _ in range(WARM_UP):
        policy.infer(observation, seed=0)
    times, others = [], {"naive_ms": [], "recomputed_ms": []}
    every = round(1 / NAIVE_SHARE)
    with _plain_vision(policy.model) as use_plain:
        backbone_in_every_step(policy, observation)  # one-time costs
        for index in range(repeats):
            times.append(policy.infer(observation, seed=0).inference_ms)
            if index % every == 0:
                for name, plain in (("naive_ms", True), ("recomputed_ms", False)):
                    use_plain(plain)
                    run = functools.partial(backbone_in_every_step, policy, observation, plain)
                    others[name].append(_milliseconds(run, policy))
    row = {f"{part}_ms": float(np.median([t[part] for t in times])) for part in ("preprocess", "backbone", "expert")}
    row["p50_ms"], row["p99_ms"] = (float(np.percentile([t["total"] for t in times], q)) for q in (50, 99))
    row |= {name: float(np.median(found)) for name, found in others.items()}
    return row | {"naive_share": row["p50_ms"] / row["naive_ms"]}


@torch.inference_mode()
def backbone_in_every_step(policy: Policy, observation: Observation, plain: bool = True, seed: int = 0) -> torch.Tensor:
    """A chunk [1, H, K] by the reference algorithm: every Euler step runs the whole model, nothing is cached.

    plain: positions and image features computed by transformers; otherwise by this library's ``encode``.
    """
    model = policy.model
    views = {tag: observation.images[tag] for tag in policy.camera_tags}
    inputs = policy.processor([policy.prompt(observation.instruction)], [views] if views else None)
    # Any: transformers names types of tensors that no tensor has.
    batch: dict[str, Any] = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    mask = policy.action_mask.to(model.device).bool()
    y = model._noise(mask, model.dtype, torch.Generator().manual_seed(seed))
    times = tau_grid(policy.euler_steps).tolist()
    for now, then in zip(times[:-1], times[1:], strict=True):
        if plain:
            hidden = model.vlm.model(**batch, use_cache=False).last_hidden_state
            positions, _ = model.vlm.model.get_rope_index(
                batch["input_ids"],
                batch["mm_token_type_ids"],
                batch.get("image_grid_thw"),
                None,
                batch["attention_mask"],
            )
        else:
            encoding = model.encode(**batch)
            hidden, positions = encoding.hidden, encoding.position_ids
        tau = torch.tensor([now], device=model.device)
        v = model.action_expert(hidden, batch["attention_mask"], positions, y, tau, mask.any(dim=-1))
        y = y + (then - now) * torch.where(mask, v, 0.0)
    return y


@contextlib.contextmanager
def _plain_vision(model: QwenVLAModel) -> Iterator[Callable[[bool], None]]:
    """Yields a switch between transformers' patch embedding and image attention and ours; restored at the end."""
    visual = model.vlm.model.visual
    ours = visual.patch_embed
    with torch.device("meta"):
        own = Qwen3_5VisionPatchEmbed(visual.config)
    own.load_state_dict(visual.patch_embed.state_dict(), assign=True)

    def use(plain: bool) -> None:
        visual.patch_embed = own if plain else ours

    try:
        yield use
    finally:
        use(False)


def _measure_stages(policy: Policy, observation: Observation, steps: int, repeats: int) -> list[dict[str, Any]]:
    """The stages of a chunk one by one: their times, and the parts whose floors sum to theirs."""
    work = {row["name"]: row for row in counted_work(policy, observation, steps)}
    euler = work.pop(f"{steps} Euler steps")
    rows = []
    with torch.inference_mode():
        for name, run in _stages(policy, observation, steps).items():
            for _ in range(WARM_UP):
                run()
            rows.append({"name": name, "ms": float(np.median([_milliseconds(run, policy) for _ in range(repeats)]))})
    rows[1]["parts"], rows[2]["parts"] = list(work.values()), [euler]
    return rows


def _stages(policy: Policy, observation: Observation, steps: int) -> dict[str, Callable[[], Any]]:
    """The stages of a chunk, as in `Policy.infer`."""
    batch, mask = policy._batch([observation], None), policy._mask(1)
    context, noise = policy.runner.context(batch, mask), policy._noise([observation], [0])
    packed = policy.runner.sample_actions(context, mask, steps, noise=noise)[0].float().cpu().numpy()
    return {
        "preprocess": lambda: policy._batch([observation], None),
        "backbone": lambda: policy.runner.context(batch, mask),
        f"{steps} Euler steps": lambda: policy.runner.sample_actions(context, mask, steps, noise=noise),
        "postprocess": lambda: policy._chunk_of(packed, observation, 0, (0.0, 0.0, 0.0)),
    }


def counted_work(policy: Policy, observation: Observation, steps: int) -> list[dict[str, Any]]:
    """Name, operations and bytes of each part of a chunk.

    Operations are counted on a copy of the model on the meta device, where they take no time and attention consists of
    matrix products that the counter knows; bytes are those of the policy's own weights.
    """
    with torch.device("meta"):
        twin = Policy(QwenVLAModel(policy.model.config), policy.processor, policy.embodiment.name)
    counted, own = _parts(twin, observation, steps), _parts(policy, observation, steps)
    return [
        {"name": part.name, "operations": there.operations(), "bytes": part.bytes()}
        for part, there in zip(own, counted, strict=True)
    ]


@torch.no_grad()
def _parts(policy: Policy, observation: Observation, steps: int) -> list[Part]:
    """The arithmetic of a chunk with an unpadded prompt, run by the plain model."""
    model, device = policy.model, policy.model.device
    backbone, expert = model.vlm.model, model.action_expert
    images = [{tag: observation.images[tag] for tag in policy.camera_tags}] if policy.camera_tags else None
    batch = policy.processor([policy.prompt(observation.instruction)], images)
    positions = model.positions(batch["input_ids"], None, batch.get("image_grid_thw")).to(device)
    length = batch["input_ids"].shape[1]
    hidden = torch.empty(1, length, model.config.text.hidden_size, device=device, dtype=model.dtype)
    mask = policy.action_mask.to(device).bool()
    noise = torch.empty(mask.shape, device=device, dtype=model.dtype)
    valid, all_steps = torch.ones(1, length, device=device), torch.ones(mask.shape[:2], dtype=torch.bool)

    def prepare():
        return expert.prepare_context(hidden, valid, positions, all_steps, padded=False)

    tables, context = expert.modulations(tau_grid(1, device)[:-1]), prepare()

    def euler():
        for _ in range(steps):
            expert.velocity(context, noise, tables)

    def language():
        return backbone.language_model(
            inputs_embeds=hidden, position_ids=positions, attention_mask=None, use_cache=False
        )

    parts = []
    if images:
        pixels, grid = batch["pixel_values"].to(device, model.dtype), batch["image_grid_thw"]
        _prime_vision(model, grid)
        parts.append(Part("vision tower", lambda: model._encode_images(pixels, grid), [backbone.visual]))
    layers = [*backbone.language_model.layers, backbone.language_model.norm]
    parts.append(Part("language tower", language, layers))
    parts.append(Part("context", prepare, [expert.context_projection]))
    step = [part for block in expert.blocks for part in (block.qkv, block.out, block.gate_up, block.down)]
    parts.append(Part(f"{steps} Euler steps", euler, [*step, expert.action_in, expert.action_out], steps))
    return parts


def _prime_vision(model: QwenVLAModel, grid: torch.Tensor) -> None:
    """Compute the vision tower's position tables on the CPU; the meta device cannot."""
    if model.device.type == "meta":
        shape, cpu = tuple(grid[0].tolist()), torch.device("cpu")
        model._uniform_vision_constants(grid, shape, len(grid), cpu)
        tables = model._vision_constants[(*shape, cpu)]
        model._vision_constants[(*shape, model.device)] = {name: table.to("meta") for name, table in tables.items()}


def _add_floors(row: dict[str, Any], rate: float, bandwidth: float) -> None:
    """Floor and ratio of every stage and of the chunk, and the time between the stages."""
    for stage in row["stages"]:
        if "parts" in stage:
            stage["parts"] = [part | work_floor(part, rate, bandwidth) for part in stage["parts"]]
            stage |= {key: sum(part[key] for part in stage["parts"]) for key in ("operations", "bytes", "floor_ms")}
            stage["ratio"] = stage["ms"] / stage["floor_ms"]
    row["operations"] = sum(stage.get("operations", 0) for stage in row["stages"])
    row["bytes"] = sum(stage.get("bytes", 0) for stage in row["stages"])
    row["floor_ms"] = sum(stage.get("floor_ms", 0.0) for stage in row["stages"])
    row["ratio"] = row["p50_ms"] / row["floor_ms"]
    between = row["p50_ms"] - sum(stage["ms"] for stage in row["stages"])
    row["stages"].append({"name": "between the stages", "ms": between})


def work_floor(row: dict[str, Any], rate: float, bandwidth: float) -> dict[str, Any]:
    """The shortest time for a part at the given rates [operations/s] and [bytes/s], and which of them is the bound."""
    arithmetic, memory = row["operations"] / rate, row["bytes"] / bandwidth
    return {"floor_ms": 1e3 * max(arithmetic, memory), "bound": "arithmetic" if arithmetic > memory else "memory"}


def _milliseconds(function: Callable[[], Any], policy: Policy) -> float:
    started = time.perf_counter()
    function()
    _wait(policy.model.device)
    return 1e3 * (time.perf_counter() - started)


def gemm_rate(model: QwenVLAModel) -> float:
    """Operations per second of a large square matrix product in the model's type on its device; best of several."""
    side = GEMM_SIDE if model.device.type == "cpu" else 8 * GEMM_SIDE
    a, b = torch.randn(2, side, side, device=model.device, dtype=model.dtype).unbind(0)
    return 2 * side**3 / _best(lambda: a @ b, model.device)


def copy_rate(model: QwenVLAModel) -> float:
    """Bytes per second, read and written, of a copy too large for any cache; best of several."""
    size = (COPY_MB if model.device.type == "cpu" else 8 * COPY_MB) * 2**20
    source = torch.zeros(size, dtype=torch.uint8, device=model.device)
    target = torch.zeros_like(source)
    return 2 * size / _best(lambda: target.copy_(source), model.device)


def _best(function: Callable[[], Any], device: torch.device) -> float:
    best = float("inf")
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        function()
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peaks(device: torch.device) -> dict[str, float]:
    peaks = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        peaks["peak_gpu_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peaks


# --- what is measured -------------------------------------------------------------------------------------------------


def _policy_of(options: BenchmarkOptions) -> Policy:
    o = options
    if o.checkpoint is None:
        return untrained_policy(o.preset, o.device, o.images, o.accelerate, o.quantize)
    return Policy.from_pretrained(
        o.checkpoint, device=o.device, embodiment=o.robot, accelerate=o.accelerate, quantize=o.quantize
    )


def synthetic_observation(policy: Policy, instruction: str = INSTRUCTION) -> Observation:
    """An observation of 240×320 noise from each camera."""
    rng = np.random.default_rng(0)
    images = {tag: rng.integers(0, 256, CAMERA_SHAPE, dtype=np.uint8) for tag in policy.camera_tags}
    return Observation(images, instruction, state=np.zeros(len(policy.state_names)) if policy.state_names else None)


def untrained_policy(
    preset: str, device: str, images: int | None = None, accelerate: str = "auto", quantize: str = "none"
) -> Policy:
    """A policy of the preset's geometry with random weights, as if for a WidowX."""
    sizes = {"image_size": IMAGE_SIZES[preset]} if preset in IMAGE_SIZES else {}
    config = QwenVLAConfig.preset(preset, **sizes)
    tags = CAMERA_TAGS[: IMAGES[preset] if images is None else images]
    processor = QwenVLAProcessor.from_scratch([PROMPT, INSTRUCTION], config, tags)
    processor.normalization["widowx"] = Quantiles(-np.ones(7), np.ones(7), CHANNELS)
    processor.embodiments["widowx"] = EmbodimentInfo(
        name="widowx",
        channel_names=CHANNELS,
        control_mode=ControlMode.EEF_DELTA,
        period=0.2,
        horizon=config.horizon,
        execution_horizon=config.horizon // 2,
        prompt_template=PROMPT,
        camera_tags=tags,
        dataset="widowx",
    )
    earlier = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
    try:
        with torch.device(device):
            model = QwenVLAModel(config)
    finally:
        torch.set_default_dtype(earlier)
    _fill_zeros(model)
    return Policy(quantized(model, quantize), processor, accelerate=accelerate)


@torch.no_grad()
def _fill_zeros(model: QwenVLAModel) -> None:
    """Replace zero weights: a new expert's velocity is zero for any input, so computations could not be compared."""
    expert = model.action_expert
    for layer in (expert.out_modulation, expert.action_out[-1], *(block.modulation for block in expert.blocks)):
        nn.init.normal_(layer.get_parameter("weight"), std=0.02)


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    return models[0] if models else "cpu"


def _load_average() -> float | None:
    """Load average of the last minute, this program included; None where the system does not provide it."""
    path = Path("/proc/loadavg")
    return float(path.read_text().split()[0]) if path.is_file() else None


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
