# SPDX-License-Identifier: Apache-2.0
"""The speed of a recipe on the device at hand: some steps of a model with random weights, on made-up rows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.pretrained import CAMERA_TAGS
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.model.sample import Sample
from qwen_vla.training.batching.batch import Batch
from qwen_vla.training.grounding import GroundingHead
from qwen_vla.training.learner import Learner
from qwen_vla.training.low_memory.adapters import MarkerEmbedding
from qwen_vla.training.optimizer import optimizer_of
from qwen_vla.training.precision import in_bf16
from qwen_vla.training.recipe import Recipe
from qwen_vla.training.start import adapt

CHANNELS = 14  # of two arms
STEPS = 3  # measured, after one to warm up


def measure(config: QwenVLAConfig, recipe: Recipe) -> tuple[float, float | None]:
    """Samples per second and, on a GPU, the peak of memory in bytes, in a few steps of a model with random weights."""
    torch.set_num_threads(recipe.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = config.text.vocab_size
    processor = QwenVLAProcessor.from_scratch(["pick up the red cube"], config, CAMERA_TAGS, vocab_size=320)
    config.text.vocab_size = rows
    torch.manual_seed(0)
    model = QwenVLAModel(config)
    adapt(model, recipe)
    if recipe.trains_markers:
        MarkerEmbedding.adopt(model.get_input_embeddings(), processor.marker_ids)
    head = GroundingHead(config.text.hidden_size).requires_grad_(False)
    learner = Learner(model.train(), head, ("action",), recipe.noise_draws, recipe.trains_in_backbone).to(device)
    optimizer = optimizer_of(recipe, learner)
    times = [_step(learner, optimizer, recipe, list(_batches(processor, config, recipe))) for _ in range(STEPS + 1)]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return recipe.batch_size / float(np.median(times[1:])), peak


def _batches(processor: QwenVLAProcessor, config: QwenVLAConfig, recipe: Recipe) -> Iterator[Batch]:
    """The parts of one made-up step."""
    rng, size = np.random.default_rng(0), processor.image_transform.image_size
    text = "pick up the red cube " * 3
    steps = recipe.horizon or config.horizon
    for part in np.array_split(np.arange(recipe.batch_size), recipe.accumulate):
        images = [{t: rng.integers(0, 256, (size, size, 3), np.uint8) for t in CAMERA_TAGS} for _ in part]
        images = images if recipe.stage != "t2a" else [{} for _ in part]
        actions = rng.uniform(-1, 1, (len(part), steps, min(CHANNELS, config.channels))).astype(np.float32)
        samples = [Sample(text, seen, actions=chunk) for seen, chunk in zip(images, actions, strict=True)]
        draws = len(part) * recipe.noise_draws
        noise = torch.randn(draws, steps, config.channels)
        yield Batch(processor.collate(samples, steps), torch.rand(draws), noise)


def _step(learner: Learner, optimizer: torch.optim.Optimizer, recipe: Recipe, batches: list[Batch]) -> float:
    """Seconds of one optimization step."""
    device = next(learner.parameters()).device
    batches = [batch.to(device) for batch in batches]
    began = time.perf_counter()
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16(recipe, device)):
            loss = learner(batch)["action"]
        loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
