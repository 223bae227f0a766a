# SPDX-License-Identifier: Apache-2.0
"""The one interface of the gate: a chunk and the robot's state in, a path that may be executed out."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import ArmGate
from qwen_vla_control.gate.base_gate import BaseGate
from qwen_vla_control.gate.chunk_schema import ChunkSchema
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.timed_path import Kind, TimedPath


class Gate(Protocol[Kind]):
    """Decides about the chunks of one robot; a chunk passes whole or not at all.

    Attributes:
        joints: the columns of paths and vectors; empty for a base, whose vectors are poses (x, y, theta).
        schema: what a chunk must declare.
    """

    joints: tuple[str, ...]
    schema: ChunkSchema

    def decide(self, chunk: Chunk, state: RobotState) -> TimedPath[Kind]:
        """Return the path that may be executed, starting at `state.now_ns`; Refused lists every reason found."""
        ...

    def home_path(self, measured: np.ndarray, speed_share: float) -> Kind:
        """Plan the motion to the home pose at `speed_share` of the speed limits; Refused where it is not allowed."""
        ...


def gate_of(embodiment: Embodiment) -> Gate:
    """Return the gate for what a robot's chunks move: its joints or its base."""
    return BaseGate(embodiment) if embodiment.control_mode.moves_base else ArmGate(embodiment)
