"""The entry point of `qwen-vla evaluate --over-ros`. What needs ROS is imported in the environment that it chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_vla_ros.ros.environment import in_own_environment

if TYPE_CHECKING:
    from qwen_vla.evaluation.options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> dict:
    """`over_ros.evaluate`, whatever this shell says about ROS."""
    with in_own_environment():
        from qwen_vla_ros.simulation import over_ros

        return over_ros.evaluate(options)
