# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla benchmark --runtime`: latency, smoothness and resource usage of the running nodes.

`robot` is a process with the topics of a robot, `measurement` runs the nodes beside it and subscribes. `smoothness`
runs the shipped checkpoint in every blending mode and evaluates its commands (`commanded_motion`). `report` prints.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qwen_vla_ros.ros.environment import in_own_environment


def measure_and_print(seconds: float, episodes: int) -> dict[str, Any]:
    """Run the nodes for `seconds` [s], and `episodes` in each blending mode; print tables and return the figures."""
    with in_own_environment():
        return _measure_and_print(seconds, episodes)


def _measure_and_print(seconds: float, episodes: int) -> dict[str, Any]:
    from rich.console import Console

    from embodiment_descriptions import resource_path
    from qwen_vla_ros.simulation.runtime_benchmark.measurement import measure
    from qwen_vla_ros.simulation.runtime_benchmark.report import print_report, print_smoothness
    from qwen_vla_ros.simulation.runtime_benchmark.smoothness import measure_modes

    console = Console(stderr=True, width=150)
    result = measure(seconds)
    print_report(result, console)
    result["blending"] = []
    if episodes:
        with tempfile.TemporaryDirectory(prefix="blending_") as logs:
            rows = measure_modes(resource_path("checkpoints/tiny"), episodes, Path(logs))
        print_smoothness(rows, console)
        result["blending"] = [{**asdict(row), "ratio": row.ratio} for row in rows]
    return result
