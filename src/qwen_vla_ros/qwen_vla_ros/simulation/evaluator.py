# SPDX-License-Identifier: Apache-2.0
"""The entry point of `qwen-vla evaluate --over-ros`. ROS is imported in the environment selected here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_vla_ros.ros.environment import in_own_environment

if TYPE_CHECKING:
    from qwen_vla.evaluation.options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> dict:
    """`over_ros.evaluate`, independent of this shell's ROS settings."""
    with in_own_environment():
        from qwen_vla_ros.simulation import over_ros

        return over_ros.evaluate(options)
