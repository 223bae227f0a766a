# SPDX-License-Identifier: Apache-2.0
"""The curves of a reinforcement run as an image: log.jsonl → curve.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from qwen_vla.training.progress.curve import save_figure
from qwen_vla.training.progress.log import read_log

SMOOTHED = 10  # updates of the moving mean of the success rate
PANELS = (
    ("success", ("success", "held_out/success")),
    ("policy", ("kl", "clip_fraction", "policy_loss")),
    ("critic", ("value", "value_loss", "explained_variance")),
)


def plot_curve(folder: Path) -> Path:
    """Draw the log of a run as curve.png beside it; returns the image's path."""
    return save_figure(curve_figure(read_log(folder)), folder / "curve.png")


def curve_figure(rows: Sequence[dict]) -> Figure:
    """Success, policy and critic over the updates; `rows` as from `read_log`."""
    figure = Figure(figsize=(8, 9))
    axes = figure.subplots(len(PANELS), 1, sharex=True)
    for axis, (title, names) in zip(axes, PANELS, strict=True):
        for name in names:
            _draw(axis, name, dict(sorted((row["step"], row[name]) for row in rows if name in row)))
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[-1].set_xlabel("update")
    figure.tight_layout()
    return figure


def _draw(axis, name: str, points: dict[int, float]) -> None:
    if not points:
        return
    steps, values = np.array(list(points)), np.array(list(points.values()))
    if name == "success":
        means = [values[max(0, i + 1 - SMOOTHED) : i + 1].mean() for i in range(len(values))]
        (line,) = axis.plot(steps, means, label=f"{name}, mean of {SMOOTHED}")
        axis.plot(steps, values, ".", color=line.get_color(), alpha=0.3)
    else:
        axis.plot(steps, values, "o-" if name.startswith("held_out") else "-", label=name, linewidth=1)
