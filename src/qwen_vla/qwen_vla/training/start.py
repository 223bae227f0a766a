# SPDX-License-Identifier: Apache-2.0
"""The initialization of a run: random weights, a Qwen3.5 backbone, or a model of ours; and its trained parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qwen_vla.data.samples import SampleSource
from qwen_vla.model.checkpoint.files import check_checkpoint
from qwen_vla.model.checkpoint.loading import load_model, read_configuration
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.new_tokens import initialize_new_rows
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.policies.fit import statistics_misfit
from qwen_vla.training.grounding import GroundingHead
from qwen_vla.training.low_memory.adapters import MarkerEmbedding, add_adapters
from qwen_vla.training.low_memory.low_bits import quantize_text_layers
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe

HEAD_FILE = "grounding_head.safetensors"
EXPERT = "action_expert."
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Start:
    """What is known before the data is opened. model and processor: those of a checkpoint, if any."""

    config: QwenVLAConfig
    model: QwenVLAModel | None = None
    processor: QwenVLAProcessor | None = None
    normalization: Mapping[str, Quantiles] = field(default_factory=dict)


def start_of(recipe: Recipe) -> Start:
    """The configuration of the recipe's model, and its initial checkpoint."""
    changes = recipe.tau.in_config() | recipe.model
    if recipe.backbone:
        model, processor = QwenVLAModel.from_backbone(recipe.backbone, expert=recipe.preset, **changes)
        return Start(model.config, model, processor)
    if recipe.init_from:
        check_checkpoint(recipe.init_from)
        config = read_configuration(recipe.init_from, **changes)
        processor = QwenVLAProcessor.from_pretrained(recipe.init_from)
        model = load_model(recipe.init_from, torch.float32, config)
        return Start(config, model, processor, dict(processor.normalization))
    return Start(QwenVLAConfig.preset(recipe.preset, **changes))


def statistics_to_keep(recipe: Recipe, start: Start) -> dict[str, Quantiles]:
    """The statistics of the initial checkpoint that are kept; RecipeError if it lacks one that the recipe names."""
    lacking = sorted(n for n, what in recipe.normalization.items() if what == "keep" and n not in start.normalization)
    if lacking:
        known = ", ".join(sorted(start.normalization)) or "none"
        raise RecipeError(
            f"normalization.{lacking[0]}: cannot be kept, the model to start from has no such statistics; it has: "
            f"{known}"
        )
    return {name: known for name, known in start.normalization.items() if recipe.keeps(name)}


def make_model(recipe: Recipe, start: Start, sources: Sequence[SampleSource]) -> tuple[QwenVLAModel, QwenVLAProcessor]:
    """Model and processor for these sources: their cameras, statistics and embodiments, frozen as in the recipe."""
    known = len(start.processor.tokenizer) if start.processor else None
    processor = _processor(start, sources)
    model = start.model if start.model is not None else QwenVLAModel(start.config)
    if known is not None:
        initialize_new_rows(model.vlm, known, len(processor.tokenizer))
    if recipe.expert_from:
        _take_expert(model, recipe.expert_from)
    for source in sources:
        processor.normalization.update(source.statistics)
        # Synthetic motions have no images, and in T2A they exceed a chunk: they cannot drive a robot.
        drivable = (e for e in source.embodiments.values() if e.camera_tags and e.horizon <= model.config.horizon)
        processor.embodiments.update({embodiment.name: embodiment for embodiment in drivable})
    _drop_unread_states(processor, sources)
    _refuse_replaced_statistics(recipe, processor)
    adapt(model, recipe)
    if recipe.trains_markers:
        MarkerEmbedding.adopt(model.get_input_embeddings(), processor.marker_ids)
    return model.train(), processor


def adapt(model: QwenVLAModel, recipe: Recipe | ReinforcementRecipe) -> None:
    """Adapters, frozen parts, types of the weights and what saves memory or time, as in the recipe."""
    if recipe.lora and recipe.lora.quantize == "nf4":
        quantize_text_layers(model, TYPES["bf16" if recipe.autocast == "bf16" else "fp32"])
    freeze(model, recipe)
    set_types(model, recipe)
    _speed_up(model, recipe)


def load_head(head: GroundingHead, recipe: Recipe) -> None:
    """The grounding head of the model to start from, if it has one."""
    if recipe.init_from and (recipe.init_from / HEAD_FILE).exists():
        head.load_state_dict(load_file(recipe.init_from / HEAD_FILE))


def _drop_unread_states(processor: QwenVLAProcessor, sources: Sequence[SampleSource]) -> None:
    """Without statistics of its state a policy asks for none: of a robot that acts here without reading its own."""
    found = {name for source in sources for name in source.statistics}
    for info in (info for source in sources for info in source.embodiments.values()):
        if info.dataset in found and info.state_dataset not in found:
            processor.normalization.pop(info.state_dataset, None)


def _refuse_replaced_statistics(recipe: Recipe, processor: QwenVLAProcessor) -> None:
    """RecipeError if the data's statistics replaced those of a robot with other channels in the initial checkpoint."""
    for info in processor.embodiments.values():
        known = processor.normalization.get(info.dataset)
        if known is not None and (wrong := statistics_misfit(known, info)):
            raise RecipeError(
                f"recipe {recipe.name}: {info.name!r} of the model to start from could not act any more: {wrong}; give "
                "the data another name with `statistics`"
            )


def _processor(start: Start, sources: Sequence[SampleSource]) -> QwenVLAProcessor:
    """A new one with a tokenizer for the sources' texts, or the checkpoint's, extended by missing cameras."""
    tags = list(dict.fromkeys(tag for source in sources for tag in source.camera_tags))
    if start.processor is None:
        texts = [text for source in sources for text in source.texts()]
        return QwenVLAProcessor.from_scratch(texts, start.config, tags)
    known = start.processor
    if set(tags) <= set(known.camera_tags):
        return known
    every = list(dict.fromkeys([*known.camera_tags, *tags]))
    processor = QwenVLAProcessor.from_tokenizer(known.tokenizer, start.config, every)
    processor.normalization, processor.embodiments = known.normalization, known.embodiments
    return processor


def _take_expert(model: QwenVLAModel, folder: Path) -> None:
    """Load the action expert of another model; RecipeError if it has another shape."""
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            weights |= {n.removeprefix(EXPERT): file.get_tensor(n) for n in file.keys() if n.startswith(EXPERT)}
    try:
        model.action_expert.load_state_dict(weights)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise RecipeError(f"expert_from: the action expert in {folder} does not fit this model: {problem}") from error


def freeze(model: QwenVLAModel, recipe: Recipe | ReinforcementRecipe) -> None:
    """Enable gradients only for what the recipe trains, including adapters."""
    parts = {"backbone": model.vlm, "vision": model.vlm.model.visual, "expert": model.action_expert}
    if recipe.lora:
        try:
            add_adapters(model, recipe.lora)
        except ValueError as error:
            raise RecipeError(f"recipe {recipe.name}: lora.targets: {' '.join(str(error).split())}") from error
    for name in recipe.frozen:
        parts[name].requires_grad_(False)


def set_types(model: QwenVLAModel, recipe: Recipe | ReinforcementRecipe) -> None:
    """Set trained weights to fp32: steps are smaller than the resolution of bf16."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else TYPES[recipe.frozen_precision])


def _speed_up(model: QwenVLAModel, recipe: Recipe | ReinforcementRecipe) -> None:
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if recipe.compile:
        for module in model.modules():
            if type(module).__name__ in model.block_names:
                module.compile()
