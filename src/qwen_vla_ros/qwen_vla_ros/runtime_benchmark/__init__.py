"""`qwen-vla benchmark --runtime`: how promptly the running nodes work, and what they cost.

`robot` is a process with the topics of a robot, `measurement` runs the nodes beside it and listens, `report` prints.
"""

from __future__ import annotations

from typing import Any


def measure_and_print(seconds: float) -> dict[str, Any]:
    """Run the nodes for `seconds` [s], print the tables to standard error and return the figures."""
    from rich.console import Console

    from qwen_vla_ros.runtime_benchmark.measurement import measure
    from qwen_vla_ros.runtime_benchmark.report import print_report

    result = measure(seconds)
    print_report(result, Console(stderr=True))
    return result
