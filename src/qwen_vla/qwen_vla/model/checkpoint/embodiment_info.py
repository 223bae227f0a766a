# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint knows of a robot: an entry of embodiments.json. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from embodiment_descriptions import ActionLayout, ControlMode
from embodiment_descriptions.actions import Action
from qwen_vla.model.normalization import LARGEST
from qwen_vla_control.motion.base_path import accumulated, increments

Steps = Annotated[int, Field(ge=1, le=4096)]
Period = Annotated[float, Field(gt=0, le=3600)]  # [s]
Limit = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class EmbodimentInfo:
    """The data for converting a normalized chunk to one robot's command.

    period: seconds between steps. horizon: steps of the robot's chunk. execution_horizon: steps to execute before the
    next chunk. prompt_template: the robot's prompt with ``{instruction}`` in place of the task. dataset: name of the
    normalization statistics of actions, `state_dataset` of those of the proprioceptive state. relative_actions: the
    model's joint positions are relative to the measured ones, which a `Policy` adds. joint_limits: lowest and highest
    position [rad | m] of the channels that are joint positions; continuous_joints: those without limits.
    """

    name: str
    channel_names: Annotated[tuple[str, ...], Field(min_length=1, max_length=4096)]
    control_mode: ControlMode
    period: Period
    horizon: Steps
    execution_horizon: Steps
    prompt_template: str
    camera_tags: tuple[str, ...]
    dataset: str
    relative_actions: bool = False
    joint_limits: Mapping[str, tuple[Limit, Limit]] = field(default_factory=dict)
    continuous_joints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "{instruction}" not in self.prompt_template:
            raise ValueError(f"prompt template of {self.name!r} lacks '{{instruction}}': {self.prompt_template!r}")
        if self.execution_horizon > self.horizon:
            raise ValueError(f"{self.name!r}: execution_horizon {self.execution_horizon} is not in 1..{self.horizon}")
        if reversed_ := [name for name, (low, high) in self.joint_limits.items() if low > high]:
            raise ValueError(f"{self.name!r}: joint_limits of {', '.join(reversed_)}: the upper is below the lower")
        _ = self.layout  # unknown channels must fail here, not during a task

    @cached_property
    def layout(self) -> ActionLayout:
        """The layout of the channels. The arm and the unit of a joint are unknown."""
        joints = dict.fromkeys(self.joint_limits, False) | dict.fromkeys(self.continuous_joints, True)
        return ActionLayout.parse(self.control_mode, self.channel_names, joints or None)

    def to_chunk(self, actions: np.ndarray) -> np.ndarray:
        """The model's actions (..., steps, C), in physical units, as rows of an ActionChunk.

        The model's waypoints are increments, each from the previous one; in a chunk they are poses relative to the
        base at the observation. All other channels are unchanged.
        """
        steps = self._waypoints(actions)
        return actions if steps is None else self.layout.encode(Action(base=accumulated(np.zeros(3), steps)))

    def from_chunk(self, rows: np.ndarray) -> np.ndarray:
        """Undo `to_chunk`."""
        poses = self._waypoints(rows)
        if poses is None:
            return rows
        start = np.zeros_like(poses[..., :1, :])
        return self.layout.encode(Action(base=increments(np.concatenate([start, poses], axis=-2))))

    def _waypoints(self, rows: np.ndarray) -> np.ndarray | None:
        """The rows as waypoints (..., steps, 3); None in another control mode."""
        return self.layout.decode(rows).base if self.control_mode is ControlMode.BASE_WAYPOINTS else None

    @property
    def state_dataset(self) -> str:
        """Name of the normalization statistics of the state."""
        return f"{self.dataset}.state"

    def prompt(self, instruction: str) -> str:
        """The embodiment prompt for one task."""
        return self.prompt_template.replace("{instruction}", instruction)
