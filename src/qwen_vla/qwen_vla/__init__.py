# SPDX-License-Identifier: Apache-2.0
"""Qwen-VLA: one vision-language-action model for many robots. Heavy modules are imported on first use."""

from __future__ import annotations

import importlib
import logging

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
__all__ = sorted(_EXPORTS)
__version__ = "0.2.0"


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
