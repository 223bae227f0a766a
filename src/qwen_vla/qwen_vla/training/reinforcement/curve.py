"""The curves of a reinforcement run as a picture: log.jsonl → curve.png."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from qwen_vla.training.log import read_log

SMOOTHED = 10  # updates of the moving mean of the success rate
PANELS = (
    ("success", ("success", "held_out/success")),
    ("policy", ("kl", "clip_fraction", "policy_loss")),
    ("critic", ("value", "value_loss", "explained_variance")),
)


def plot_curve(folder: Path) -> Path:
    """Draw success, policy and critic over the updates; returns the picture's path."""
    rows = read_log(folder)
    figure, axes = plt.subplots(len(PANELS), 1, figsize=(8, 9), sharex=True)
    for axis, (title, names) in zip(axes, PANELS, strict=True):
        for name in names:
            _draw(axis, name, dict(sorted((row["step"], row[name]) for row in rows if name in row)))
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[-1].set_xlabel("update")
    figure.tight_layout()
    path = folder / "curve.png"
    temporary = path.with_name("curve.tmp.png")
    figure.savefig(temporary, dpi=100)
    plt.close(figure)
    os.replace(temporary, path)
    return path


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
