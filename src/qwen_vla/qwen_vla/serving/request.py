# SPDX-License-Identifier: Apache-2.0
"""A request to the policy: an observation, and the chunk to continue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qwen_vla.policies import Observation


@dataclass(frozen=True)
class Previous:
    """The chunk that the robot is executing, to be continued.

    Attributes:
        data: float32 [H, C], as returned.
        tip_poses: (4, 4) of each arm's tip at its observation; None where chunks do not need them.
        consumed: rows before the new observation.
        inference_delay: rows that will be executed before the response arrives; None: the policy's estimate.
        execution_horizon: rows between two chunks; None: the policy's own.
        schedule: how its weight decays along the horizon, see `ContinuingPolicy`.
    """

    data: np.ndarray
    tip_poses: Mapping[str, np.ndarray] | None
    consumed: int
    inference_delay: int | None
    execution_horizon: int | None
    schedule: str = "exponential"


@dataclass(frozen=True)
class Request:
    """A request for a chunk. seed: of the noise; None: random."""

    observation: Observation
    seed: int | None = None
    previous: Previous | None = None
