"""A run of a recipe: everything that a training step touches, made from the recipe and its data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla.configuration import QwenVLAConfig
from qwen_vla.data.lerobot import LeRobotReader
from qwen_vla.data.vision_language import text_corpus
from qwen_vla.modeling import QwenVLAModel
from qwen_vla.processing import EmbodimentInfo, QwenVLAProcessor
from qwen_vla.training.batches import Batches, Source, action_statistics
from qwen_vla.training.grounding import GroundingHead
from qwen_vla.training.recipe import Recipe, RecipeError

HEAD_FILE = "grounding_head.safetensors"
EXECUTION_SHARE = 0.5  # share of a chunk that is executed before the next one is asked for


@dataclass
class Run:
    """What is trained, with what, and how far it is. `average`: EMA of the model's parameters, in their order."""

    recipe: Recipe
    model: QwenVLAModel
    head: GroundingHead
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    average: list[torch.Tensor]
    batches: Batches
    accelerator: Accelerator
    step: int = 0


def prepare(recipe: Recipe) -> Run:
    """The run at step 0. Draws the initial weights from PyTorch's global generator, so seed that first."""
    embodiment = load_robot(recipe.robot)
    accelerator = Accelerator(mixed_precision=recipe.autocast, cpu=not torch.cuda.is_available())
    config, processor = _configuration(recipe, embodiment)
    with accelerator.main_process_first():  # one process decodes the images, the others find them decoded
        sources = [Source(spec, config, embodiment, recipe.held_out_share) for spec in recipe.data]
    _check_losses(recipe, sources)
    info = embodiment_info(embodiment)
    processor.embodiments[info.name] = info
    if any(source.has_actions for source in sources):
        processor.normalization[info.dataset] = action_statistics(sources, info.channel_names)
    model, head = (module.to(accelerator.device) for module in _modules(recipe, config))
    optimizer = _optimizer(recipe, model, head)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(recipe, step))
    batches = Batches(
        sources,
        processor,
        info,
        config,
        batch_size=recipe.batch_size,
        question_share=recipe.question_share,
        seed=recipe.seed,
        process=accelerator.process_index,
    )
    average = [p.detach().clone() for p in model.parameters()]
    return Run(recipe, model, head, optimizer, schedule, average, batches, accelerator)


@contextlib.contextmanager
def averaged(run: Run) -> Iterator[None]:
    """The model with its averaged weights, for as long as the context lasts."""
    parameters = list(run.model.parameters())
    present = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, run.average)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, present)


def embodiment_info(embodiment: Embodiment) -> EmbodimentInfo:
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


def _configuration(recipe: Recipe, embodiment: Embodiment) -> tuple[QwenVLAConfig, QwenVLAProcessor]:
    """From the checkpoint to start from, or anew with a tokenizer trained on the recipe's own texts."""
    if recipe.init_from:
        config = QwenVLAConfig.from_pretrained(recipe.init_from)
        return config, QwenVLAProcessor.from_pretrained(recipe.init_from)
    config = QwenVLAConfig.preset(recipe.preset, tau_direction=recipe.tau_direction)
    sentences, colours = set(), set()
    for spec in recipe.data:
        reader = LeRobotReader(spec.path)
        colours |= set(reader.info["colours"])
        sentences |= set(reader.tasks)
    texts = text_corpus([embodiment.prompt(sentence) for sentence in sorted(sentences)], tuple(sorted(colours)))
    return config, QwenVLAProcessor.from_scratch(texts, config, [camera.tag for camera in embodiment.cameras])


def _modules(recipe: Recipe, config: QwenVLAConfig) -> tuple[QwenVLAModel, GroundingHead]:
    model = QwenVLAModel.from_pretrained(recipe.init_from) if recipe.init_from else QwenVLAModel(config)
    head = GroundingHead(config.vlm_config.text_config.hidden_size)
    if recipe.init_from and (recipe.init_from / HEAD_FILE).exists():
        head.load_state_dict(load_file(recipe.init_from / HEAD_FILE))
    return model.train(), head


def _check_losses(recipe: Recipe, sources: list[Source]) -> None:
    """RecipeError when a source would give batches from which nothing is learned."""
    if recipe.losses.grounding or recipe.question_share == 1:
        return
    for source in sources:
        if not (source.has_actions and recipe.losses.action):
            raise RecipeError(
                f"recipe {recipe.name}: nothing would be learned from prompts of {source.reader.root}, which holds "
                f"{source.reader.info['kind']}; give losses.grounding a weight above 0, or leave that data out"
            )


def _optimizer(recipe: Recipe, model: QwenVLAModel, head: GroundingHead) -> torch.optim.AdamW:
    """Separate groups for backbone and expert; no decay on vectors (norms, biases)."""
    options = recipe.optimizer
    parts = (
        (list(model.vlm.parameters()), options.backbone_lr),
        ([*model.action_expert.parameters(), *head.parameters()], options.expert_lr),
    )
    groups = []
    for parameters, rate in parts:
        for decayed in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decayed]
            groups.append({"params": chosen, "lr": rate, "weight_decay": options.weight_decay * decayed})
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then cosine decay to `final_share`."""
    options = recipe.optimizer
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, recipe.steps - options.warmup_steps)
    return options.final_share + (1 - options.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
