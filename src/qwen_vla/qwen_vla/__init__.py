"""Qwen-VLA: one vision-language-action model for many robots. Heavy parts are imported on first use."""

from __future__ import annotations

import importlib

_EXPORTS = {
    "ActionExpert": "action_expert",
    "ActionExpertConfig": "configuration",
    "QwenVLAConfig": "configuration",
    "LatencyEstimate": "latency",
    "Encoding": "modeling",
    "QwenVLAModel": "modeling",
    "QwenVLAOutput": "modeling",
    "Quantiles": "normalization",
    "EmbodimentInfo": "processing",
    "QwenVLAProcessor": "processing",
    "ActionChunk": "policy",
    "Observation": "policy",
    "Policy": "policy",
    "Continuation": "real_time_chunking",
    "Sample": "data.samples",
}
__all__ = sorted(_EXPORTS)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
