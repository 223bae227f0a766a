# SPDX-License-Identifier: Apache-2.0
"""λ_vl balanced by gradient magnitude (paper, CPT): language and actions affect the shared backbone equally.

The paper gives no formula. Here, every `balance_every` steps, each of the two losses is backpropagated separately and
the norms of its gradient over all trained backbone parameters are compared:
λ_vl* = ratio · λ_act · ‖∂L_act/∂θ‖ / ‖∂L_vl/∂θ‖, tracked by exponential smoothing of its logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qwen_vla.training.recipe import Losses

RANGE = 100.0  # maximum factor between λ_vl and its initial value: at first the expert's gates are still closed


@dataclass
class GradientBalance:
    """The weight of the language loss, which tracks the measured norms."""

    losses: Losses
    language: float

    def due(self, step: int) -> bool:
        return self.losses.balance == "gradient_magnitude" and step % self.losses.balance_every == 0

    def update(self, action_norm: float, language_norm: float) -> None:
        """Update by one measurement; one in which a loss had no gradient is ignored."""
        if not (action_norm > 0 and language_norm > 0):
            return
        options = self.losses
        wanted = options.balance_ratio * options.action * action_norm / language_norm
        wanted = min(max(wanted, options.language / RANGE), options.language * RANGE)
        share = options.balance_smoothing
        self.language = math.exp(share * math.log(self.language) + (1 - share) * math.log(wanted))
