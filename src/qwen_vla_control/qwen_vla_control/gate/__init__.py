# SPDX-License-Identifier: Apache-2.0
"""The safety gate: may this chunk move the robot? A chunk passes whole or not at all. Free of ROS and torch.

`gate_of(embodiment).decide(chunk, state)` returns the path that may be executed or raises `Refused` with every reason.
Each check is a function from data to violations, in the module of its subject; nothing is clipped or repaired here.
"""

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import ArmGate
from qwen_vla_control.gate.base_gate import BaseGate
from qwen_vla_control.gate.gate import Gate, gate_of
from qwen_vla_control.gate.robot_state import Reference, RobotState
from qwen_vla_control.reasons import Reason, Refused, Violation

__all__ = [
    "ArmGate",
    "BaseGate",
    "Chunk",
    "Gate",
    "Reason",
    "Reference",
    "Refused",
    "RobotState",
    "Violation",
    "gate_of",
]
