# SPDX-License-Identifier: Apache-2.0
"""The loss curve of a run as an image: log.jsonl → loss.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from qwen_vla.output_files import complete_or_absent
from qwen_vla.training.progress.log import read_log

HIDDEN = {"step", "lr", "gradient_norm", "samples_per_s", "data_wait_share", "language_weight"}


def plot_curve(folder: Path) -> Path:
    """Draw the log of a run as loss.png beside it; returns the image's path."""
    return save_figure(curve_figure(read_log(folder)), folder / "loss.png")


def curve_figure(rows: Sequence[dict]) -> Figure:
    """Every loss, and the held-out measures below, over the steps; `rows` as from `read_log`."""
    figure = Figure(figsize=(8, 7))
    axes = figure.subplots(2, 1, sharex=True)
    for axis, held_out in zip(axes, (False, True), strict=True):
        keys = sorted({k for row in rows for k in row if k not in HIDDEN and k.startswith("held_out") == held_out})
        for key in keys:
            points = sorted({row["step"]: row[key] for row in rows if key in row}.items())
            axis.plot(*zip(*points, strict=True), label=key.removeprefix("held_out/"), linewidth=1)
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.set_ylabel("held out" if held_out else "loss")
        if keys:
            axis.legend()
    axes[-1].set_xlabel("step")
    figure.tight_layout()
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG file, complete or absent; returns its path."""
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    return path
