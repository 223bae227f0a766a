# SPDX-License-Identifier: Apache-2.0
"""Nothing is normalized here: the server has the statistics of its checkpoint, and reads and sends physical units."""

from __future__ import annotations

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
)
from lerobot.processor.factory import make_policy_processor_pipelines

from lerobot_policy_qwen_vla.configuration_qwen_vla import QwenVLAConfig


def make_qwen_vla_pre_post_processors(
    config: QwenVLAConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Pipelines that add the batch dimension, and move actions to the CPU. dataset_stats: not used."""
    return make_policy_processor_pipelines(
        [RenameObservationsProcessorStep(rename_map={}), AddBatchDimensionProcessorStep()],
        [DeviceProcessorStep(device="cpu")],
    )
