"""What is asked of the policy: an observation, and what is to be continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qwen_vla.policies import Observation


@dataclass(frozen=True)
class Previous:
    """The chunk that the robot is executing, to be continued.

    Attributes:
        data: float32 [H, C], as it was answered.
        tip_poses: (4, 4) of each arm's tip at its observation; None where chunks do not need them.
        consumed: rows that lie behind the new observation.
        inference_delay: rows that will be executed before the answer arrives; None: as the policy estimates.
        execution_horizon: rows between two chunks; None: the policy's own.
        schedule: how the bond with it falls along the horizon, as `ContinuingPolicy` says.
    """

    data: np.ndarray
    tip_poses: Mapping[str, np.ndarray] | None
    consumed: int
    inference_delay: int | None
    execution_horizon: int | None
    schedule: str = "exponential"


@dataclass(frozen=True)
class Request:
    """A chunk that is asked for. seed: of the noise; None: any."""

    observation: Observation
    seed: int | None = None
    previous: Previous | None = None
