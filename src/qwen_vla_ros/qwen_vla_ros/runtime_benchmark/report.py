"""The figures of a runtime benchmark as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table

ROWS = (
    ("image_to_command_ms", "image stamp to command sent"),
    ("inference_ms", "  of it inference"),
    ("overhead_ms", "  of it everything else"),
    ("decision_ms", "    of it the executor's decision"),
    ("heartbeat_gap_ms", "time between two heartbeats (100 ms)"),
    ("executor_loop_jitter_ms", "executor's loop (20 ms), off by"),
)


def print_report(result: dict[str, Any], console: Console) -> None:
    """Print times and processes of `measurement.measure`."""
    cameras = result["cameras"]
    title = (
        f"{result['chunks']} chunks in {result['seconds']:.0f} s, {cameras['count']} cameras "
        f"{cameras['width']}×{cameras['height']} at {cameras['rate_hz']:.0f} Hz"
    )
    times = Table("time [ms]", *(_right("p50"), _right("p99"), _right("max")), title=title)
    for key, text in ROWS:
        times.add_row(text, *(f"{result[key][name]:.1f}" for name in ("p50", "p99", "max")))
    times.add_row(
        "floor: one image from process to process", f"{result['floor_ms']['image_transport_p50']:.1f}", "", ""
    )
    console.print(times)
    processes = Table("process", _right("CPU [% of a core]"), _right("memory [MB]"))
    for name, figures in result["processes"].items():
        processes.add_row(name, f"{figures['cpu_percent']:.0f}", f"{figures['rss_mb']:.0f}")
    console.print(processes)


def _right(text: str) -> Column:
    return Column(text, justify="right")
