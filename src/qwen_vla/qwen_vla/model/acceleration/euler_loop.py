# SPDX-License-Identifier: Apache-2.0
"""All Euler steps of a chunk as one function of tensors; the AdaLN tables of a fixed τ grid are cached."""

from __future__ import annotations

from typing import Any

import torch

from qwen_vla.model.action_expert import ActionExpert, ExpertContext
from qwen_vla.model.flow_matching import tau_grid


class ModulationTables:
    """AdaLN parameters of every step of one τ grid: ``steps[i]`` is for ``ActionExpert.velocity`` at step i.

    They depend only on the weights. If these have changed, they are refreshed in place, so that captured graphs, which
    read this memory, use the new values.
    """

    def __init__(self, expert: ActionExpert, count: int):
        self._expert, self._count = expert, count
        self._weights = [
            *expert.timestep_embedding.parameters(),
            *(block.modulation.weight for block in expert.blocks),
            expert.out_modulation.weight,
        ]
        self._made_from: tuple | None = None
        self._tables: list[torch.Tensor] = []
        self.steps: list[list[torch.Tensor]] = []

    def refresh(self) -> None:
        """Recompute if a weight was changed or moved since the last call."""
        now = tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in self._weights)
        if now == self._made_from:
            return
        with torch.inference_mode(False), torch.no_grad():  # tensors created in inference mode cannot be refreshed
            self._recompute()
        self._made_from = now

    def _recompute(self) -> None:
        fresh = self._expert.modulations(tau_grid(self._count, self._weights[0].device)[:-1])
        if self._tables and self._tables[0].device == fresh[0].device and self._tables[0].dtype == fresh[0].dtype:
            torch._foreach_copy_(self._tables, fresh)
        else:
            self._tables = fresh
            self.steps = [[table[i : i + 1] for table in fresh] for i in range(self._count)]


class EulerLoop:
    """All Euler steps of a chunk: static shapes, no value read on the host."""

    def __init__(self, expert: ActionExpert, count: int):
        self.tables = ModulationTables(expert, count)
        times = tau_grid(count)
        self._increments = [float(b - a) for a, b in zip(times[:-1], times[1:], strict=True)]
        self._expert = expert

    def __call__(self, context: dict[str, Any], mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Noise [B, H, K] at τ = 1, on any device, to actions at τ = 0. context: fields of an ``ExpertContext``."""
        shared = ExpertContext(**context)
        y = torch.where(mask, noise.to(shared.tokens), 0.0)
        for increment, table in zip(self._increments, self.tables.steps, strict=True):
            y = y + increment * torch.where(mask, self._expert.velocity(shared, y, table), 0.0)
        return y
