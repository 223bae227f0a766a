# SPDX-License-Identifier: Apache-2.0
"""Reinforcement (arXiv 2605.30280, RL stage): PPO in simulated task suites, exploring with the flow policy's own noise.

`ReinforcementRecipe` defines a run, `train` executes it and can resume: roll out whole episodes, assign credit to every
chunk (GAE), update (PPO).
"""

from __future__ import annotations

import importlib

_EXPORTS = {"ReinforcementRecipe": "recipe", "train": "trainer"}
__all__ = sorted(_EXPORTS)  # pyright: ignore[reportUnsupportedDunderAll]  # imported on first use


def __getattr__(name: str):
    if name not in _EXPORTS:  # simulators import this package in separate processes without PyTorch
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
