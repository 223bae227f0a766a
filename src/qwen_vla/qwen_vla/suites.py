"""Finding task suites: simulators register them as entry points, so that this library imports no simulator itself."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import numpy as np

GROUP = "qwen_vla.suites"


class Suite(Protocol):
    """What a suite offers to `collect` and `evaluate`."""

    name: str
    max_steps: int
    embodiment: Any

    def make_env(self, cameras: bool = True) -> Any: ...
    def features(self) -> dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]: ...
    def extra_info(self) -> dict: ...
    def demonstrate(self, env: Any, seed: int, varied_start: bool = True) -> tuple[str, dict, bool]: ...
    def snapshot(self, env: Any, seed: int) -> tuple[str, dict, bool]: ...
    def joint_path(self, chunk: np.ndarray, joints: np.ndarray) -> np.ndarray: ...  # ValueError: refused
    def other_instruction(self, env: Any, seed: int) -> str: ...


def find_suite(name: str) -> EntryPoint:
    """Where the suite registered under `name` is; KeyError lists the known ones."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        installed = ", ".join(sorted(found)) or "none (is qwen_vla_sim installed?)"
        raise KeyError(f"unknown suite {name!r}; installed: {installed}")
    return found[name]


def load_suite(name: str) -> Suite:
    """The suite registered under `name`; imports its simulator."""
    return find_suite(name).load()()
