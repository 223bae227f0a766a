# SPDX-License-Identifier: Apache-2.0
"""The figures of a runtime benchmark as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from qwen_vla_ros.simulation.runtime_benchmark.smoothness import Row

ROWS = (
    ("image_to_command_ms", "image stamp to command sent"),
    ("inference_ms", "  of which inference"),
    ("overhead_ms", "  of which everything else"),
    ("decision_ms", "    of which the executor's decision"),
    ("heartbeat_gap_ms", "time between two heartbeats (100 ms)"),
    ("executor_loop_jitter_ms", "executor's loop (20 ms), jitter"),
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
        "lower bound: one image between processes", f"{result['floor_ms']['image_transport_p50']:.1f}", "", ""
    )
    console.print(times)
    processes = Table("process", _right("CPU [% of a core]"), _right("memory [MB]"))
    for name, figures in result["processes"].items():
        processes.add_row(name, f"{figures['cpu_percent']:.0f}", f"{figures['rss_mb']:.0f}")
    console.print(processes)


def print_smoothness(rows: Sequence[Row], console: Console) -> None:
    """Print the results of `smoothness.measure_modes`; that module defines the terms."""
    made = Table(title="Accelerations: commanded, of the arm joint with the largest, in rad/s²")
    for name in ("mode", "picked", "seconds", "chunks", "refused", "delay p50 / p95 ms"):
        made.add_column(name, justify="left" if name == "mode" else "right")
    for name in ("pauses", "longest ms", "standing", "boundary", "inside", "ratio", "of each: p50 / max"):
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(
            row.mode,
            f"{row.succeeded}/{row.episodes}",
            f"{row.seconds_p50:.1f}",
            str(row.chunks),
            str(row.refused),
            f"{row.delay_ms_p50:.0f} / {row.delay_ms_p95:.0f}",
            str(row.pauses),
            f"{row.pause_ms_max:.0f}",
            f"{row.standing_share:.0%}",
            f"{row.boundary_peak:.2f}",
            f"{row.inside_peak:.2f}",
            f"{row.ratio:.2f}",
            f"{row.neighbors_p50:.2f} / {row.neighbors_max:.2f}",
        )
    console.print(made)


def _right(text: str) -> Column:
    return Column(text, justify="right")
