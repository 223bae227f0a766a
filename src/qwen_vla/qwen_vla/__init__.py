# SPDX-License-Identifier: Apache-2.0
"""Qwen-VLA: one vision-language-action model for many robots. Heavy modules are imported on first use."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `_EXPORTS` names, for type checkers and editors
    from qwen_vla.model.action_expert import ActionExpert as ActionExpert
    from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo as EmbodimentInfo
    from qwen_vla.model.configuration import ActionExpertConfig as ActionExpertConfig
    from qwen_vla.model.configuration import QwenVLAConfig as QwenVLAConfig
    from qwen_vla.model.modeling import Encoding as Encoding
    from qwen_vla.model.modeling import QwenVLAModel as QwenVLAModel
    from qwen_vla.model.modeling import QwenVLAOutput as QwenVLAOutput
    from qwen_vla.model.normalization import Quantiles as Quantiles
    from qwen_vla.model.processing import QwenVLAProcessor as QwenVLAProcessor
    from qwen_vla.model.real_time_chunking import Continuation as Continuation
    from qwen_vla.model.sample import Sample as Sample
    from qwen_vla.policies.chunk_policy import ActionChunk as ActionChunk
    from qwen_vla.policies.chunk_policy import Observation as Observation
    from qwen_vla.policies.latency import LatencyEstimate as LatencyEstimate
    from qwen_vla.policies.policy import Policy as Policy

# diffusers imports it where it is installed, and it then warns about a kernel that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_EXPORTS = {
    "ActionExpert": "model.action_expert",
    "ActionExpertConfig": "model.configuration",
    "QwenVLAConfig": "model.configuration",
    "LatencyEstimate": "policies.latency",
    "Encoding": "model.modeling",
    "QwenVLAModel": "model.modeling",
    "QwenVLAOutput": "model.modeling",
    "Quantiles": "model.normalization",
    "EmbodimentInfo": "model.checkpoint.embodiment_info",
    "QwenVLAProcessor": "model.processing",
    "ActionChunk": "policies.chunk_policy",
    "Observation": "policies.chunk_policy",
    "Policy": "policies.policy",
    "Continuation": "model.real_time_chunking",
    "Sample": "model.sample",
}
__all__ = sorted(_EXPORTS)  # pyright: ignore[reportUnsupportedDunderAll]  # imported on first use
__version__ = "0.2.0"


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
