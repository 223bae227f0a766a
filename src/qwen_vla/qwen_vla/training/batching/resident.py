# SPDX-License-Identifier: Apache-2.0
"""Training data that lives on the device: a source's table as tensors, from which batches are gathered by index.

The same code on a CPU, where images stay in their memory-mapped files, and on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from qwen_vla.data.mixture import Row
from qwen_vla.data.samples import SampleSource
from qwen_vla.data.table import SampleTable, Tabled, uniforms
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.model.sample import PointLabels, Sample
from qwen_vla.training.batching.batch import Batch
from qwen_vla.training.grounding import GroundingTargets

MEMORY_SHARE = 0.4  # of a GPU's free memory, for data; the rest is for the model and its activations
LEVELS = 256
JITTER = np.array([1.0, 1.0, 0.25])  # of log gain, log gamma and offset


@dataclass(frozen=True)
class ResidentRow:
    """A planned row of a resident source, with what its cost depends on."""

    source: ResidentSource
    row: Row

    def image_count(self, merged: int) -> int:
        """As of `Sample`; a resident source has no histories."""
        return len(self.source.tags)

    @property
    def steps(self) -> int:
        return self.source.steps


class ResidentSource:
    """A source's training samples on a device; `batch` gathers some of them."""

    def __init__(self, table: SampleTable, processor: QwenVLAProcessor, device: torch.device) -> None:
        self.processor, self.device = processor, device
        self.tags = tuple(tag for tag in processor.camera_tags if tag in table.images)
        self.steps = 0 if table.actions is None else table.actions.shape[1]
        self._index, self._prompt = table.index, table.prompt
        self._others, self._jitter = table.others, table.color_jitter
        self._shown = {tag: table.images[tag].shown[table.index] for tag in self.tags}
        self._frames = {tag: self._kept(table.images[tag].frames) for tag in self.tags}
        self._actions, self._states = (
            None if column is None else self._kept(column) for column in (table.actions, table.states)
        )
        order = [list(table.images).index(tag) for tag in self.tags]
        self._labels = None if table.labels is None else self._targets(table.labels, order)
        self._tokenize(table)
        others = self._others
        self._hold = None if others is None else (self._kept(others.rest), self._kept(others.grippers))

    def batch(self, rows: Sequence[Row], horizon: int) -> Batch:
        """The batch that `QwenVLAProcessor.collate` makes of the rows' samples, on the device."""
        place = np.searchsorted(self._index, [row.index for row in rows])
        seeds = np.array([row.seed for row in rows], np.uint64)
        prompt, held = self._prompts(place, seeds)
        chosen = self._moved(place)
        inputs = self._tokens(prompt)
        if self.tags:
            inputs |= self._pixels(place, seeds)
        if self._actions is not None:
            inputs |= self._chunks(self._actions[chosen], held, horizon)
        if self._states is not None and self.processor.proprioception == "token":
            inputs |= self._padded_states(self._states[chosen])
        return Batch(inputs, grounding=None if self._labels is None else self._grounding(self._labels, chosen))

    # --- opening ----------------------------------------------------------------------------------------------------

    def _kept(self, column: np.ndarray) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nor does this write
            return torch.from_numpy(column).to(self.device)

    def _tokenize(self, table: SampleTable) -> None:
        """Token ids (P, S) of all prompts, left-padded, and their lengths."""
        image = np.zeros((1, 1, 3), np.uint8)
        samples = [Sample(text, dict.fromkeys(self.tags, image)) for text in table.prompts]
        rows = self.processor.token_rows(samples)
        self._lengths = rows["attention_mask"].sum(1).numpy()
        self._ids = {name: tensor.to(self.device) for name, tensor in rows.items()}

    def _targets(self, labels: PointLabels, order: list[int]) -> GroundingTargets:
        images = len(order)
        points, visible, hidden = (
            self._kept(np.ascontiguousarray(column[:, order]))
            for column in (labels.points, labels.visible, labels.hidden)
        )
        openings = np.repeat(labels.openings[:, None], images, axis=1)
        return GroundingTargets(torch.arange(0), points, visible, hidden, self._kept(openings))

    # --- gathering --------------------------------------------------------------------------------------------------

    def _moved(self, column: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(column))
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def _prompts(self, place: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Number of every row's prompt, and which name another robot; None if none may."""
        own, others = self._prompt[place], self._others
        if others is None:
            return own, None
        chance, which = uniforms(seeds, 2).T
        held = chance < others.share
        other = others.prompts[own, (which * others.prompts.shape[1]).astype(int)]
        return np.where(held, other, own), held

    def _tokens(self, prompt: np.ndarray) -> dict[str, torch.Tensor]:
        width, number = int(self._lengths[prompt].max()), self._moved(prompt)
        return {name: ids[number, ids.shape[1] - width :] for name, ids in self._ids.items()}

    def _pixels(self, place: np.ndarray, seeds: np.ndarray) -> dict[str, torch.Tensor]:
        images = [self._frames[tag][self._moved(self._shown[tag][place])] for tag in self.tags]
        if self._jitter:
            curves = self._moved(jitter_curves(seeds, len(self.tags), self._jitter))
            images = [relit(image, curves[:, number]) for number, image in enumerate(images)]
        pixels = torch.stack(images, dim=1).flatten(0, 1)
        transform = self.processor.image_transform
        return {
            "pixel_values": transform.patchify(pixels),
            "image_grid_thw": torch.tensor([transform.grid] * len(pixels)),
        }

    def _chunks(self, own: torch.Tensor, held: np.ndarray | None, horizon: int) -> dict[str, torch.Tensor]:
        if held is not None and self._hold is not None:
            rest, grippers = self._hold
            still = rest.expand_as(own).clone()
            still[..., grippers] = own[:, :1, grippers]
            own = torch.where(self._moved(held)[:, None, None], still, own)
        steps, width = own.shape[1:]
        shape = (len(own), horizon, self.processor.channels)
        actions, mask = own.new_zeros(shape), torch.zeros(shape, dtype=torch.bool, device=own.device)
        actions[:, :steps, :width], mask[:, :steps, :width] = own, True
        return {"actions": actions, "action_mask": mask}

    def _padded_states(self, own: torch.Tensor) -> dict[str, torch.Tensor]:
        states = own.new_zeros(len(own), self.processor.channels)
        states[:, : own.shape[1]] = own
        return {"state": states, "state_mask": torch.ones(len(own), dtype=torch.bool, device=own.device)}

    def _grounding(self, labels: GroundingTargets, chosen: torch.Tensor) -> GroundingTargets:
        columns = (getattr(labels, field.name)[chosen].flatten(0, 1) for field in fields(GroundingTargets)[1:])
        return GroundingTargets(torch.arange(len(chosen) * len(self.tags), device=self.device), *columns)


def jitter_curves(seeds: np.ndarray, cameras: int, strength: float) -> np.ndarray:
    """(n, cameras, 3, 3) per channel log gain, log gamma and offset, distributed as in `color_jitter`."""
    draws = uniforms(seeds, 2 + 12 * (1 + cameras))[:, 2:].reshape(len(seeds), 1 + cameras, 4, 3) * 2 - 1
    curves = JITTER * (draws[:, :, :1] + draws[:, :, 1:]) / 2
    return strength * (curves[:, :1] + curves[:, 1:] / 3)


def relit(images: torch.Tensor, curves: torch.Tensor) -> torch.Tensor:
    """uint8 images [n, h, w, 3] with the curves [n, 3, 3] applied."""
    gain, gamma, offset = curves.float().unbind(-1)
    level = torch.linspace(0, 1, LEVELS, device=images.device)[:, None]
    values = gain.exp()[:, None] * level ** gamma.exp()[:, None] + offset[:, None]
    table = (255 * values.clamp(0, 1)).round().to(torch.uint8)
    return table.gather(1, images.flatten(1, 2).long()).view_as(images)


def resident_sources(
    sources: Sequence[SampleSource], processor: QwenVLAProcessor, device: torch.device
) -> tuple[list[ResidentSource | None], str]:
    """Per source its data on the device, or None; and a line that tells where the images are."""
    tables = [_table(source, processor) for source in sources]
    size = sum(table.nbytes for table in tables if table is not None)
    if device.type != "cpu":
        free = torch.cuda.mem_get_info(device)[0]
        if size > MEMORY_SHARE * free:
            return [None] * len(sources), (
                f"data of {size / 1e9:.1f} GB stays on the CPU: more than {MEMORY_SHARE:.0%} of the "
                f"{free / 1e9:.1f} GB that are free on the GPU"
            )
    found = [None if table is None else ResidentSource(table, processor, device) for table in tables]
    return found, f"data of {size / 1e9:.1f} GB on the {device.type}, {found.count(None)} source(s) sample by sample"


def _table(source: SampleSource, processor: QwenVLAProcessor) -> SampleTable | None:
    """The source's table, if it has one and its prompts do not contain its states."""
    table = source.table() if isinstance(source, Tabled) else None
    in_text = table is not None and table.states is not None and processor.proprioception == "text"
    return None if in_text else table
