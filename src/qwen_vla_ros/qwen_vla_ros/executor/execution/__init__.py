# SPDX-License-Identifier: Apache-2.0
"""How executor_node executes a robot's chunks: decide, send, hold. Arms and bases behind one interface."""

from embodiment_descriptions import Embodiment
from qwen_vla_ros.executor.execution.arm_execution import ArmExecution
from qwen_vla_ros.executor.execution.base_execution import BaseExecution
from qwen_vla_ros.executor.execution.execution import Execution, Held, Source
from qwen_vla_ros.ros.lifecycle import ManagedNode

__all__ = ["ArmExecution", "BaseExecution", "Execution", "Held", "Source", "execution_of"]


def execution_of(node: ManagedNode, embodiment: Embodiment) -> Execution:
    """Create the execution for what the robot's chunks move: its joints or its base; see Execution."""
    return BaseExecution(node, embodiment) if embodiment.control_mode.moves_base else ArmExecution(node, embodiment)
