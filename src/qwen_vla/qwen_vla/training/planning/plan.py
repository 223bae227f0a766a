# SPDX-License-Identifier: Apache-2.0
"""What a recipe will cost, before anything is downloaded: parameters, memory by part, speed and hours.

Memory is counted from the geometry of the model, on the meta device. Speed is measured in a few steps of a model with
random weights and made-up rows where it fits on the GPU at hand, or is small; otherwise it is counted from operations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from qwen_vla.model.checkpoint.loading import read_configuration
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.pretrained import CAMERA_TAGS, configuration_of
from qwen_vla.training.low_memory.adapters import MARKER_ROWS, MarkerEmbedding
from qwen_vla.training.low_memory.low_bits import SENSITIVE, SMALLEST, STATE_BYTES, WEIGHT_BYTES
from qwen_vla.training.planning.speed import measure
from qwen_vla.training.recipe import TEXT_LINEARS, Recipe
from qwen_vla.training.start import freeze, set_types

TEXT_TOKENS = 60  # of an embodiment prompt with an instruction of ten words
SMALL = 100e6  # parameters; a model this small is measured on a CPU, too
FREE_SHARE = 0.9  # of the GPU's memory that a plan may take before it is measured
# Shares of the peak that a training step reached: measured on an H100, 8 rows with three images, everything trained.
PEAK, REACHED = 800e12, 0.14  # operations per second; share
GIB = 2**30


@dataclass
class Part:
    """One part of the model: numbers of parameters, and bytes of weights, gradients, optimizer states and averages."""

    parameters: int = 0
    trained: int = 0
    weights: float = 0.0
    gradients: float = 0.0
    states: float = 0.0
    averages: float = 0.0

    @property
    def bytes(self) -> float:
        return self.weights + self.gradients + self.states + self.averages


@dataclass
class Plan:
    """A recipe's cost. activations: bytes, counted. operations: of one sample, counted.

    rate: samples per second; measured: on this device, None: counted for the H100 of `PEAK`. peak: measured bytes.
    """

    recipe: Recipe
    geometry: str
    parts: dict[str, Part]
    activations: float
    operations: float
    rate: float
    measured: str | None = None
    peak: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def memory(self) -> float:
        """Bytes on the device, counted."""
        return sum(part.bytes for part in self.parts.values()) + self.activations

    @property
    def hours(self) -> float:
        return self.recipe.steps * self.recipe.batch_size / self.rate / 3600

    def text(self) -> str:
        """A table and the lines on speed, for a terminal."""
        lines = [f"{self.recipe.name}: {self.geometry}", f"{'':18}{'M parameters':>14}{'M trained':>11}{'GiB':>8}"]
        for name, part in self.parts.items():
            lines.append(f"{name:18}{part.parameters / 1e6:14.1f}{part.trained / 1e6:11.1f}{part.bytes / GIB:8.2f}")
        total = [sum(getattr(part, name) for part in self.parts.values()) for name in ("parameters", "trained")]
        lines.append(f"{'activations':18}{'':25}{self.activations / GIB:8.2f}")
        lines.append(f"{'all':18}{total[0] / 1e6:14.1f}{total[1] / 1e6:11.1f}{self.memory / GIB:8.2f}   (counted)")
        weights, gradients, states, averages = (
            sum(getattr(part, name) for part in self.parts.values()) / GIB
            for name in ("weights", "gradients", "states", "averages")
        )
        lines.append(
            f"of it weights {weights:.2f}, gradients {gradients:.2f}, optimizer {states:.2f}, "
            f"averages {averages:.2f} GiB"
        )
        how = f"measured on {self.measured}" if self.measured else f"counted, for an H100 at {REACHED:.0%} of its peak"
        peak = f", at most {self.peak / GIB:.2f} GiB" if self.peak else ""
        lines.append(
            f"{self.rate:.1f} samples/s ({how}{peak}); {self.operations / 1e12:.2f} TFLOP per sample (counted)"
        )
        lines.append(f"{self.recipe.steps} steps of {self.recipe.batch_size} samples: {self.hours:.1f} hours")
        return "\n".join([*lines, *self.notes])


def plan(recipe: Recipe) -> Plan:
    """The cost of a recipe; nothing is downloaded, and neither data nor weights are needed."""
    config, geometry = _geometry(recipe)
    with torch.device("meta"):
        model = QwenVLAModel(config)
        freeze(model, recipe)
        if recipe.trains_markers:
            MarkerEmbedding.adopt(model.get_input_embeddings(), range(2 * len(CAMERA_TAGS)))
        set_types(model, recipe)
    parts = _parts(model, recipe)
    operations, trained = _operations(config, recipe, model), sum(part.trained for part in parts.values())
    made = Plan(recipe, geometry, parts, _activations(config, recipe, trained), operations, PEAK * REACHED / operations)
    parameters = sum(part.parameters for part in parts.values())
    gpu = torch.cuda.is_available()
    if gpu and made.memory < FREE_SHARE * torch.cuda.mem_get_info()[0] or not gpu and parameters < SMALL:
        made.rate, made.peak = measure(config, recipe)
        made.measured = torch.cuda.get_device_name() if gpu else f"this CPU with {recipe.threads} threads"
        made.notes.append("random weights and made-up rows; reading data is not in it")
    return made


def _geometry(recipe: Recipe) -> tuple[QwenVLAConfig, str]:
    """The configuration of the recipe's model, and where it was found."""
    changes = recipe.tau.in_config() | recipe.model
    if recipe.init_from and (recipe.init_from / "config.json").is_file():
        return read_configuration(recipe.init_from, **changes), f"geometry of {recipe.init_from}"
    if recipe.backbone and (Path(recipe.backbone) / "config.json").is_file():
        return configuration_of(Path(recipe.backbone), recipe.preset, changes), f"geometry of {recipe.backbone}"
    source = recipe.backbone or recipe.init_from
    found = f"geometry of preset {recipe.preset}" + (f", for {source}, which is not here" if source else "")
    return QwenVLAConfig.preset(recipe.preset, **changes), found


def _parts(model: QwenVLAModel, recipe: Recipe) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    averaged = recipe.optimizer.ema_decay > 0
    for name, p in model.named_parameters():
        part = parts.setdefault(_part_of(name), Part())
        part.parameters += p.numel()
        part.weights += p.numel() * (WEIGHT_BYTES if _is_packed(name, recipe) else p.element_size())
        if p.requires_grad:
            part.trained += p.numel()
            part.gradients += 4 * p.numel()
            part.averages += 4 * p.numel() * averaged
            part.states += p.numel() * _state_bytes(p, recipe)
    return parts


def _part_of(name: str) -> str:
    if name.endswith(MARKER_ROWS):
        return "camera markers"
    if "lora_" in name:
        return "adapters"
    if name.startswith("action_expert."):
        return "expert"
    if "embed_tokens" in name or "lm_head" in name:
        return "embeddings"
    return "vision" if ".visual." in name else "text layers"


def _is_packed(name: str, recipe: Recipe) -> bool:
    if not (recipe.lora and recipe.lora.quantize == "nf4" and ".language_model.layers." in name):
        return False
    owner = name.removesuffix(".weight").removesuffix(".base_layer").split(".")[-1]
    return owner in TEXT_LINEARS and owner not in SENSITIVE and "lora_" not in name


def _state_bytes(parameter: torch.nn.Parameter, recipe: Recipe) -> float:
    if recipe.optimizer.name == "adamw_8bit" and parameter.numel() >= SMALLEST:
        return STATE_BYTES
    return 4 if recipe.optimizer.name == "muon" and parameter.ndim == 2 else 8


def _rows(recipe: Recipe) -> int:
    """Rows that are on the device at a time."""
    return -(-recipe.batch_size // recipe.accumulate)


def _lengths(config: QwenVLAConfig, recipe: Recipe) -> tuple[int, int]:
    """Patches of the vision tower and tokens of the text tower, of one sample."""
    merge = config.vision.spatial_merge_size
    tokens = 0 if recipe.stage == "t2a" else len(CAMERA_TAGS) * config.tokens_per_image
    return tokens * merge**2, tokens + TEXT_TOKENS


def _activations(config: QwenVLAConfig, recipe: Recipe, trained: int) -> float:
    """Bytes kept for the backward pass: the inputs of checkpointed layers and one whole layer, or all layers; and the
    copies in bf16 that autocast makes of trained weights."""
    patches, tokens = _lengths(config, recipe)
    text, vision, expert = config.text, config.vision, config.expert
    draws = recipe.noise_draws * (tokens + (recipe.horizon or config.horizon))
    towers = [
        (text.num_hidden_layers, tokens, text.hidden_size, text.intermediate_size, recipe.trains_in_backbone),
        (vision.depth, patches, vision.hidden_size, vision.intermediate_size, "vision" not in recipe.frozen),
        (expert.num_layers, draws, expert.hidden_size, expert.intermediate_size, True),
    ]
    number = 2 if recipe.autocast == "bf16" else 4
    copies = 2 * trained if recipe.autocast == "bf16" else 0
    total = 0.0
    for layers, length, width, inner, kept in towers:
        whole = length * (12 * width + 3 * inner)  # projections, attention, norms and feed-forward of one layer
        total += number * kept * (layers * length * width + whole if recipe.gradient_checkpointing else layers * whole)
    return total * _rows(recipe) + copies


def _operations(config: QwenVLAConfig, recipe: Recipe, model: QwenVLAModel) -> float:
    """Operations of a training step per sample: two per weight and token, for each pass that the weight takes part in.

    Forward; backward to the inputs; backward to the weights, if trained; forward again under checkpointing.
    """
    patches, tokens = _lengths(config, recipe)
    lengths = {"vision": patches, "text layers": tokens, "adapters": tokens}
    lengths["expert"] = recipe.noise_draws * (tokens + (recipe.horizon or config.horizon))
    total = 0.0
    for name, p in model.named_parameters():
        part = _part_of(name)
        if p.ndim < 2 or part not in lengths:
            continue
        through = (
            part in ("expert", "adapters")
            or recipe.trains_in_backbone
            and not (part == "vision" and "vision" in recipe.frozen)
        )
        passes = 1 + through * (1 + recipe.gradient_checkpointing) + p.requires_grad
        total += 2.0 * passes * p.numel() * lengths[part]
    return total
