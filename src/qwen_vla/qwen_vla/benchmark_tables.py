# SPDX-License-Identifier: Apache-2.0
"""The figures of a benchmark as tables, beside published ones of other models. Free of torch."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

PUBLISHED = (  # milliseconds per chunk, as published by their authors
    ("GR00T N1.7 (3B), H100, 4 steps, eager", "156"),
    ("GR00T N1.7 (3B), H100, 4 steps, compiled", "72"),
    ("GR00T N1.7 (3B), H100, 4 steps, TensorRT", "28–47"),
    ("π0 (3.3B), RTX 4090, 2 cameras, 10 steps, PyTorch", "> 100"),
    ("π0 (3.3B), RTX 4090, 2 cameras, 10 steps, hand-written kernels", "27"),
)


def print_tables(result: dict[str, Any], console: Console | None = None) -> None:
    """Print the figures of `benchmark.run_benchmark`."""
    console = console or Console()
    if "analytic" in result:
        console.print(f"[bold]{result['preset']}[/]: {result['not_measured']}")
        table = Table("component", "million parameters", title="parameters")
        for name, millions in result["parameters"].items():
            table.add_row(name, f"{millions:,.2f}")
        console.print(table, _stage_table(result["analytic"], "analytic floor"))
        return
    for count, row in result["steps"].items():
        console.print(_stage_table(row, f"{result['preset'] or result['checkpoint']}, {count} Euler steps"))
        console.print(
            f"chunk: p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms, {row['ratio']:.1f} × the floor of "
            f"{row['floor_ms']:.1f} ms\nnaive: {row['naive_ms']:.1f} ms, a chunk takes {row['naive_share']:.2f} of it; "
            f"backbone in every step, with the faster modules: {row['recomputed_ms']:.1f} ms\n"
        )
    console.print(
        f"{result['device']}, {result['threads']} thread(s), {result['dtype']}, {result['images']} images of "
        f"{result['image_size']}², load {result['load_average']}; {result['gemm_gflops']:.0f} GFLOP/s, "
        f"{result['bandwidth_gb_s']:.1f} GB/s; peak {result['peak_rss_mb']:.0f} MB"
        + (f", GPU {result['peak_gpu_mb']:.0f} MB" if "peak_gpu_mb" in result else "")
    )
    if any(result["acceleration"].values()):
        console.print(_decision_table(result))
    if result["preset"] == "4b":
        table = Table("published by others", "ms", title="for comparison")
        for row in PUBLISHED:
            table.add_row(*row)
        console.print(table)


def _decision_table(result: dict[str, Any]) -> Table:
    kernels = "found" if result["linear_attention_kernels"] else "not installed (pip install flash-linear-attention)"
    title = f"prepared in {result['warm_up_s']:.1f} s; linear-attention kernels: {kernels}"
    table = Table("part", "runs as", "shapes", "from float32", "plain is", "seconds", title=title)
    for part, decisions in result["acceleration"].items():
        for choice in dict.fromkeys(d["choice"] for d in decisions):
            same = [d for d in decisions if d["choice"] == choice]
            errors = (f"{max(d[key] for d in same):.1e}" for key in ("error", "plain_error"))
            table.add_row(part, choice, str(len(same)), *errors, f"{sum(d['seconds'] for d in same):.1f}")
    return table


def _stage_table(row: dict[str, Any], title: str) -> Table:
    table = Table("stage", title=title)
    for column in ("ms", "floor ms", "ratio", "bound by", "GFLOP", "MB"):
        table.add_column(column, justify="right")
    for stage in [part for whole in row["stages"] for part in (whole, *whole.get("parts", []))]:
        table.add_row(
            stage["name"],
            *(f"{stage[key]:.2f}" if key in stage else "–" for key in ("ms", "floor_ms", "ratio")),
            stage.get("bound", "–"),
            f"{stage.get('operations', 0) / 1e9:.2f}",
            f"{stage.get('bytes', 0) / 1e6:.1f}",
        )
    return table
