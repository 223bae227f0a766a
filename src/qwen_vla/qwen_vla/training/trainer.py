"""Runs a recipe: one resumable loop over mixed batches, with EMA weights, held-out measures, a log and a loss curve.

Started with `accelerate launch`, every process draws its own batch and the gradients are averaged.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from embodiment_descriptions import load_robot
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from qwen_vla.configuration import QwenVLAConfig
from qwen_vla.data.lerobot import LeRobotReader, write_json
from qwen_vla.data.vision_language import text_corpus
from qwen_vla.modeling import Encoding, QwenVLAModel
from qwen_vla.processing import EmbodimentInfo, QwenVLAProcessor
from qwen_vla.training.batches import Batch, Batches, Source, action_statistics
from qwen_vla.training.cpu_attention import MatmulAttention
from qwen_vla.training.curve import plot_curve
from qwen_vla.training.grounding import GroundingHead
from qwen_vla.training.recipe import Recipe

STATE_FILE = "state.pt"
HEAD_FILE = "grounding_head.safetensors"
RESUMABLE = {"threads", "save_every", "log_every", "validate_every"}  # may differ between the parts of one run
EXECUTION_SHARE = 0.5  # share of a chunk that is executed before the next one is asked for
HELD_OUT_FRAMES = 96


@dataclass
class _Run:
    """Everything that a training step touches."""

    recipe: Recipe
    model: QwenVLAModel
    head: GroundingHead
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    average: list[torch.Tensor]
    batches: Batches
    accelerator: Accelerator
    step: int = 0


def train(recipe: Recipe, max_steps: int | None = None) -> Path:
    """Train, resuming from `recipe.output` if it holds a state; returns the folder of the finished model.

    `max_steps` ends early (with a saved state); the schedule stays that of the full recipe.
    """
    torch.set_num_threads(recipe.threads)
    set_seed(recipe.seed)
    run = _prepare(recipe)
    last = min(recipe.steps, max_steps or recipe.steps)
    stop = _StopSignal()
    main = run.accelerator.is_main_process
    bar = tqdm(total=last, initial=run.step, desc=recipe.name, unit="step", mininterval=2.0, disable=not main)
    with open(recipe.output / "log.jsonl" if main else os.devnull, "a", buffering=1) as log:
        window: list[dict] = []
        began = time.monotonic()
        while run.step < last and not _anyone(run, stop.asked):
            window.append(_training_step(run, run.batches[run.step].to(run.accelerator.device)))
            run.step += 1
            bar.update()
            if run.step % recipe.log_every == 0:
                row = _mean(window) | {"step": run.step, "lr": run.schedule.get_last_lr()[0]}
                samples = len(window) * recipe.batch_size * run.accelerator.num_processes
                row["samples_per_s"] = samples / (time.monotonic() - began)
                _write_row(log, row, bar)
                window, began = [], time.monotonic()
            if main and run.step % recipe.validate_every == 0:
                _write_row(log, {"step": run.step, **_validate(run)}, bar)
            if main and run.step % recipe.save_every == 0:
                _save(run)
                plot_curve(recipe.output)
    bar.close()
    if main:
        _save(run)
        plot_curve(recipe.output)
        _export(run)
    run.accelerator.wait_for_everyone()
    return recipe.output / "model"


def _training_step(run: _Run, batch: Batch) -> dict[str, float]:
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


def _average_gradients(run: _Run) -> None:
    """The mean of all processes' gradients, in every process; they have gradients for the same parameters."""
    if run.accelerator.num_processes == 1:
        return
    gradients = [p.grad for group in run.optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = run.accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "mean")
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(mean.view_as(gradient))


def _fast_attention(run: _Run) -> contextlib.AbstractContextManager:
    cpu_bf16 = run.recipe.autocast == "bf16" and run.accelerator.device.type == "cpu"
    return MatmulAttention() if cpu_bf16 else contextlib.nullcontext()


def _losses(run: _Run, batch: Batch) -> dict[str, torch.Tensor]:
    encoding = run.model.encode(**batch.inputs)
    losses = {}
    if batch.actions is not None and run.recipe.losses.action:
        losses["action"] = run.model.action_loss(
            encoding, batch.actions, batch.action_mask, noise_draws=run.recipe.noise_draws
        )
    if "labels" in batch.inputs and run.recipe.losses.language:
        losses["language"] = run.model.language_loss(encoding, batch.inputs["labels"])
    if batch.grounding is not None and run.recipe.losses.grounding:
        losses["grounding"] = run.head.loss(_image_tokens(encoding, batch), batch.grounding)
    return losses


def _image_tokens(encoding: Encoding, batch: Batch) -> torch.Tensor:
    """Hidden states of image tokens as (B, images, N, D); every row of a batch has the same number of images."""
    count, images = encoding.hidden.shape[0], batch.grounding.points.shape[1]
    return encoding.hidden[encoding.image_token_mask].view(count, images, -1, encoding.hidden.shape[-1])


@torch.no_grad()
def _validate(run: _Run) -> dict[str, float]:
    """Held-out measures of the averaged weights: errors of sampled actions [mm], of the gripper, of grounding [share]."""
    rows: list[dict] = []
    with _averaged(run), torch.random.fork_rng():
        torch.manual_seed(0)
        for source in run.batches.sources:
            if len(source.held_out):
                rows.append(_held_out_errors(run, run.batches.held_out(source, HELD_OUT_FRAMES).to(run.accelerator.device)))
    return {f"held_out/{key}": value for key, value in _mean(rows).items()}


def _held_out_errors(run: _Run, batch: Batch) -> dict[str, float]:
    encoding = run.model.encode(**batch.inputs)
    found = run.head.locate(_image_tokens(encoding, batch))
    truth, seen = batch.grounding.points, batch.grounding.visible
    error = (found[..., :2] - truth[..., :2]).norm(dim=-1)
    opening = (found[:, 1, 1, 3] - batch.grounding.opening).abs()
    result = {
        "cube": error[..., 0][seen[..., 0]].mean().item(),
        "cube_median": error[..., 0][seen[..., 0]].median().item(),
        "tip": error[..., 1][seen[..., 1]].mean().item(),
        "cube_depth_m": (found - torch.nn.functional.pad(truth, (0, 1)))[..., 0, 2][seen[..., 0]].abs().mean().item(),
        "opening": opening.mean().item(),
    }
    if batch.actions is None or not run.recipe.losses.action:
        return result
    sampled = run.model.sample_actions(encoding, batch.action_mask, steps=4).cpu().numpy()
    quantiles = run.batches.processor.normalization[run.batches.embodiment.dataset]
    channels = len(quantiles.q01)
    truth = quantiles.unnormalize(batch.actions.cpu().numpy()[..., :channels])
    difference = quantiles.unnormalize(sampled[..., :channels]) - truth
    middle = round(truth.shape[1] * EXECUTION_SHARE) - 1
    position = 1000 * np.linalg.norm(difference[:, middle, :3], axis=-1)
    return result | {
        "position_mm": float(position.mean()),
        "position_mm_median": float(np.median(position)),
        "gripper": float(np.abs(difference[:, : middle + 1, -1]).mean()),
    }


@contextlib.contextmanager
def _averaged(run: _Run):
    """The model with its averaged weights, for as long as the context lasts."""
    parameters = list(run.model.parameters())
    present = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, run.average)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, present)


# ------------------------------------------------------------------ preparation
def _prepare(recipe: Recipe) -> _Run:
    embodiment = load_robot(recipe.robot)
    recipe.output.mkdir(parents=True, exist_ok=True)
    config, processor = _configuration(recipe, embodiment)
    sources = [Source(spec, config, embodiment, recipe.held_out_share) for spec in recipe.data]
    info = embodiment_info(embodiment)
    processor.embodiments[info.name] = info
    if any(source.has_actions for source in sources):
        processor.normalization[info.dataset] = action_statistics(sources, info.channel_names)
    model = QwenVLAModel.from_pretrained(recipe.init_from) if recipe.init_from else QwenVLAModel(config)
    head = GroundingHead(config.vlm_config.text_config.hidden_size)
    if recipe.init_from and (recipe.init_from / HEAD_FILE).exists():
        head.load_state_dict(load_file(recipe.init_from / HEAD_FILE))
    model.train()
    accelerator = Accelerator(mixed_precision=recipe.autocast, cpu=not torch.cuda.is_available())
    model, head = model.to(accelerator.device), head.to(accelerator.device)
    optimizer = _optimizer(recipe, model, head)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(recipe, step))
    batches = Batches(sources, processor, info, config, recipe.batch_size, recipe.question_share, recipe.seed, accelerator.process_index)
    average = [p.detach().clone() for p in model.parameters()]
    run = _Run(recipe, model, head, optimizer, schedule, average, batches, accelerator)
    _resume(run)
    return run


def _configuration(recipe: Recipe, embodiment) -> tuple[QwenVLAConfig, QwenVLAProcessor]:
    """From the checkpoint to start from, or anew with a tokenizer trained on the recipe's own texts."""
    if recipe.init_from:
        config = QwenVLAConfig.from_pretrained(recipe.init_from)
        return config, QwenVLAProcessor.from_pretrained(recipe.init_from)
    config = QwenVLAConfig.preset(recipe.preset, tau_direction=recipe.tau_direction)
    sentences, colours = set(), set()
    for spec in recipe.data:
        reader_info, tasks = _sentences(spec.path)
        colours |= set(reader_info["colours"])
        sentences |= tasks
    texts = text_corpus([embodiment.prompt(sentence) for sentence in sorted(sentences)], tuple(sorted(colours)))
    return config, QwenVLAProcessor.from_scratch(texts, config, [camera.tag for camera in embodiment.cameras])


def _sentences(root: Path) -> tuple[dict, set[str]]:
    reader = LeRobotReader(root)
    return reader.info, set(reader.tasks)


def embodiment_info(embodiment) -> EmbodimentInfo:
    """What a checkpoint keeps of an `Embodiment`."""
    return EmbodimentInfo(
        name=embodiment.name,
        channel_names=tuple(embodiment.channel_names),
        control_mode=embodiment.control_mode,
        period=embodiment.period,
        horizon=embodiment.chunk_size,
        execution_horizon=max(1, round(embodiment.chunk_size * EXECUTION_SHARE)),
        prompt_template=embodiment.prompt("{instruction}"),
        camera_tags=tuple(camera.tag for camera in embodiment.cameras),
        dataset=embodiment.name,
    )


def _optimizer(recipe: Recipe, model: QwenVLAModel, head: GroundingHead) -> torch.optim.AdamW:
    """Separate groups for backbone and expert; no decay on vectors (norms, biases)."""
    groups = []
    expert = [*model.action_expert.parameters(), *head.parameters()]
    for parameters, rate in ((model.vlm.parameters(), recipe.optimizer.backbone_lr), (expert, recipe.optimizer.expert_lr)):
        parameters = list(parameters)
        for decayed in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decayed]
            groups.append({"params": chosen, "lr": rate, "weight_decay": recipe.optimizer.weight_decay * decayed})
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then cosine decay to `final_share`."""
    options = recipe.optimizer
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, recipe.steps - options.warmup_steps)
    return options.final_share + (1 - options.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


# ----------------------------------------------------------------------- state
def _save(run: _Run) -> None:
    """The whole state in one file, renamed into place: an interrupted save leaves the previous one."""
    path = run.recipe.output / STATE_FILE
    state = {
        "step": run.step,
        "model": run.model.state_dict(),
        "head": run.head.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "average": run.average,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(run: _Run) -> None:
    path = run.recipe.output / STATE_FILE
    kept = run.recipe.output / "recipe.json"
    present = json.loads(run.recipe.model_dump_json())
    if path.exists():
        earlier = json.loads(kept.read_text())
        changed = sorted(key for key in present if key not in RESUMABLE and present[key] != earlier.get(key))
        if changed:
            raise ValueError(f"{run.recipe.output} was trained with other values of {changed}; choose another output or delete it")
        state = torch.load(path, map_location="cpu", weights_only=True)
        run.model.load_state_dict(state["model"])
        run.head.load_state_dict(state["head"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.schedule.load_state_dict(state["schedule"])
        run.average = state["average"]
        run.step = state["step"]
    if run.accelerator.is_main_process:
        write_json(kept, present)


def _export(run: _Run) -> None:
    """The averaged weights with processor, statistics, recipe and data seeds: all that inference and a rerun need."""
    folder = run.recipe.output / "model"
    with _averaged(run):
        run.model.save_pretrained(folder)
    run.batches.processor.save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in run.head.state_dict().items()}, folder / HEAD_FILE)
    sources = [
        {key: source.reader.info.get(key) for key in ("suite", "kind", "seeds", "total_episodes", "total_frames")}
        for source in run.batches.sources
    ]
    write_json(folder / "training.json", {"recipe": json.loads(run.recipe.model_dump_json()), "step": run.step, "data": sources})


def _anyone(run: _Run, asked: bool) -> bool:
    """Whether any process was asked to stop; all leave the loop at the same step."""
    if run.accelerator.num_processes == 1:
        return asked
    return bool(run.accelerator.reduce(torch.tensor(float(asked), device=run.accelerator.device), "sum"))


class _StopSignal:
    """SIGINT and SIGTERM end the loop after the running step, with a saved state; a second one kills as usual."""

    def __init__(self) -> None:
        self.asked = False
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number, frame) -> None:
        self.asked = True
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _mean(rows: list[dict]) -> dict[str, float]:
    keys = {key for row in rows for key in row}
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in sorted(keys)}


def _write_row(log, row: dict, bar: tqdm) -> None:
    log.write(json.dumps(row) + "\n")
    bar.set_postfix({key.removeprefix("held_out/"): f"{value:.3g}" for key, value in row.items() if key != "step"}, refresh=False)
