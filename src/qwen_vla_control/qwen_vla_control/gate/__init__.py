"""The safety gate: may this chunk move the robot? It passes whole or not at all. Free of ROS and torch.

Each check is a function from data to violations: `check_form` (what the message says about itself), `check_age` (how
old its observation is), `check_instruction`, `check_motion`, `check_workspace` and `SelfCollision` (what the joints
would do), `check_base` (what a base would do). Nothing is clipped or mended here.
"""

from qwen_vla_control.gate.base_rules import BaseRules, check_base
from qwen_vla_control.gate.chunk_schema import Chunk, ChunkRules, check_age, check_form, check_instruction
from qwen_vla_control.gate.joint_rules import MotionRules, check_motion, check_start, check_workspace
from qwen_vla_control.reasons import Reason, Refused, Violation

__all__ = [
    "BaseRules",
    "Chunk",
    "ChunkRules",
    "MotionRules",
    "Reason",
    "Refused",
    "Violation",
    "check_age",
    "check_base",
    "check_form",
    "check_instruction",
    "check_motion",
    "check_start",
    "check_workspace",
]
