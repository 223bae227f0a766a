"""The loss curve of a run as a picture: log.jsonl → loss.png."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from qwen_vla.training.log import read_log

HIDDEN = {"step", "lr", "gradient_norm", "samples_per_s", "data_wait_share", "language_weight"}


def plot_curve(folder: Path) -> Path:
    """Draw every loss, and the held-out measures below, over the steps; returns the picture's path."""
    rows = read_log(folder)
    figure, axes = plt.subplots(2, 1, figsize=(8, 7), sharex=True)
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
    path = folder / "loss.png"
    temporary = path.with_name("loss.tmp.png")
    figure.savefig(temporary, dpi=100)
    plt.close(figure)
    os.replace(temporary, path)
    return path
