# SPDX-License-Identifier: Apache-2.0
"""Draws an inspected recording: some images of every camera, and every joint beside its limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.inspection.findings import CameraFinding
from qwen_vla.data.robot.robot_recording import RobotRecording
from qwen_vla.output_files import complete_or_absent
from qwen_vla.output_paths import png_text

SHOTS = 6  # images per camera, evenly spread over the rows
COLUMNS = 3  # plots side by side
POINTS = 5000  # of a curve
INCH = 2.2


def draw(path: Path, recording: RobotRecording, cameras: Sequence[CameraFinding], maker: str) -> None:
    """Write the picture as PNG, marked as made by a command."""
    curves = [(name, k) for name, how in recording.reader.maps.items() for k in range(len(how.elements))]
    rows = len(cameras) + -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(INCH * SHOTS, INCH * max(rows, 1)), layout="constrained")
    grid = figure.add_gridspec(max(rows, 1), SHOTS)
    for line, camera in enumerate(cameras):
        for shot, row in enumerate(np.linspace(0, len(recording) - 1, SHOTS).astype(int)):
            _image(figure.add_subplot(grid[line, shot]), recording, camera.column, camera.tag, int(row))
    wide = SHOTS // COLUMNS
    for place, (name, element) in enumerate(curves):
        line, left = len(cameras) + place // COLUMNS, place % COLUMNS * wide
        _curve(figure.add_subplot(grid[line, left : left + wide]), recording, name, element)
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, format="png", metadata=png_text(maker))


def _image(axes: Axes, recording: RobotRecording, key: str, tag: str, row: int) -> None:
    axes.set_axis_off()
    axes.set_title(f"{tag}, row {row}", fontsize=7)
    number = int(recording.episode_of[row])
    try:
        axes.imshow(recording.source[number].images[key][row - int(recording.episodes[number, 0])])
    except DatasetError as error:
        axes.text(0.5, 0.5, "no image", ha="center", gid=str(error))


def _curve(axes: Axes, recording: RobotRecording, name: str, element: int) -> None:
    """One element over all rows, in the robot's unit, and its limits."""
    reader, ranges = recording.reader, recording.reader.ranges[name]
    values = np.concatenate([reader.values(episode, name)[:, element] for episode in recording.source])
    shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(int))
    axes.plot(shown, values[shown], linewidth=0.8)
    for limit in (ranges.lower[element], ranges.upper[element]):
        if np.isfinite(limit):
            axes.axhline(limit, color="tab:red", linewidth=0.6, linestyle="--")
    unit = f" [{ranges.units[element]}]" if ranges.units[element] else ""
    axes.set_title(f"{name}: {reader.maps[name].elements[element]}{unit}", fontsize=7)
    axes.tick_params(labelsize=6)
