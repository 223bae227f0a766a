# SPDX-License-Identifier: Apache-2.0
"""A scene as one image: the moment of one chunk, with the joint curves around it. Requires only matplotlib."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.output_files import complete_or_absent
from qwen_vla.output_paths import png_text
from qwen_vla_ros.drawing.chunk_geometry import BASE
from qwen_vla_ros.drawing.chunk_markers import ACCEPTED, PREDICTED, REFUSED, Layer
from qwen_vla_ros.drawing.robot_shapes import RobotShapes, Shape
from qwen_vla_ros.drawing.view.scene import ShownChunk, ShownReport

SIZE, DPI = (12.8, 7.2), 100  # [inch], [1/inch]
MOMENTS_KEPT = 200  # chunks that can still be requested
BEFORE, AFTER = 6.0, 1.0  # [s] of the curves, around the chunk
ROBOT_SAMPLES = 20_000  # of joint curves
ROUND = 16  # corners of a circle
GHOST = (0.45, 0.6, 1.0)
GHOST_ALPHA = 0.12
LINES = {PREDICTED.name: 1.5, ACCEPTED.name: 3.0, REFUSED.name: 3.0}  # [pt]
LONGEST_TITLE = 150  # [characters]
MARGIN, LEAST_HALF = 0.05, 0.15  # [m] around the contents; minimum half size


@dataclass
class Moment:
    """The scene when a chunk was predicted, and the outcome of the chunk."""

    time: int
    links: Mapping[str, np.ndarray]
    images: dict[str, np.ndarray]
    layers: dict[str, ShownChunk] = field(default_factory=dict)
    fate: str = ""


class ImageCanvas:
    """Keeps the moments of the latest chunks; `write` draws one of them."""

    def __init__(self, embodiment: Embodiment, shapes: RobotShapes) -> None:
        """Start empty."""
        self._embodiment, self._shapes = embodiment, shapes
        self._ghostly = shapes.links if embodiment.base else shapes.moving
        self._links: Mapping[str, np.ndarray] = {}
        self._images: dict[str, np.ndarray] = {}
        self._moments: OrderedDict[int, Moment] = OrderedDict()
        self._measured: list[tuple[int, Mapping[tuple[str, str], float]]] = []

    # Canvas ---------------------------------------------------------------------------------------------------------

    def robot(self, time: int, links: Mapping[str, np.ndarray], joints: Mapping[tuple[str, str], float]) -> None:
        """Store the state of the robot."""
        self._links = links
        self._measured.append((time, joints))
        del self._measured[:-ROBOT_SAMPLES]

    def image(self, time: int, tag: str, rgb: np.ndarray) -> None:
        """Store the image of a camera."""
        self._images[tag] = rgb

    def chunk(self, time: int, chunk: ShownChunk) -> None:
        """Store a chunk with the current scene."""
        if chunk.chunk_id not in self._moments:
            self._moments[chunk.chunk_id] = Moment(time, self._links, dict(self._images))
            while len(self._moments) > MOMENTS_KEPT:
                self._moments.popitem(last=False)
        self._moments[chunk.chunk_id].layers[chunk.layer.name] = chunk

    def remove(self, time: int, layer: Layer) -> None:
        """Do nothing: an image shows the moment at which the chunk was present."""

    def report(self, time: int, report: ShownReport) -> None:
        """Store the outcome of a chunk."""
        if report.chunk_id in self._moments and report.verdict in ("ACCEPTED", "REFUSED"):
            self._moments[report.chunk_id].fate = report.verdict.lower() + (
                f": {report.message}" if report.message else ""
            )

    # Image ----------------------------------------------------------------------------------------------------------

    def write(self, path: Path, chunk_id: int | None, maker: str) -> int:
        """Draw the moment of a chunk, by default of the last one that can be drawn; returns its number.

        Args:
            path: of the PNG file.
            chunk_id: None for the last one.
            maker: the command, as `output_paths` knows it.

        Raises:
            ValueError: there is no such chunk.
        """
        drawable = [number for number, moment in self._moments.items() if any(c.paths for c in moment.layers.values())]
        number = chunk_id if chunk_id is not None else (drawable[-1] if drawable else None)
        if number not in self._moments:
            known = f"{min(self._moments)} .. {max(self._moments)}" if self._moments else "none"
            raise ValueError(f"no chunk{'' if number is None else f' {number}'} to draw; available: {known}")
        figure = self._figure(self._moments[number])
        with complete_or_absent(path) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png", metadata=png_text(maker))
        return number

    def _figure(self, moment: Moment) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, facecolor="white")
        figure.text(0.5, 0.965, _title(moment), ha="center", va="center", fontsize=11)
        self._draw_world(figure.add_axes((0.0, 0.31, 0.66, 0.66), projection="3d"), moment)
        tags = [camera.tag for camera in self._embodiment.cameras]
        columns = math.ceil(len(tags) / 2)
        cameras = figure.add_gridspec(
            min(2, len(tags)), columns, left=0.67, right=0.99, bottom=0.33, top=0.92, wspace=0.05, hspace=0.15
        )
        for number, tag in enumerate(tags):
            axes = figure.add_subplot(cameras[number])
            axes.set_axis_off()
            axes.set_title(tag if tag in moment.images else f"{tag}: no image", fontsize=9)
            if tag in moment.images:
                axes.imshow(moment.images[tag])
        self._draw_curves(figure, moment)
        return figure

    def _draw_world(self, axes: Any, moment: Moment) -> None:
        from matplotlib.patches import Patch
        from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

        axes.computed_zorder = False  # chunks stay visible inside the robot
        axes.autoscale(False)  # for faces with unequal numbers of corners, it would read uninitialized memory
        end = next((chunk.end for chunk in moment.layers.values() if chunk.end), {})
        for links, ghost, order in ((moment.links, False, 1), (end, True, 2)):
            faces, colors = self._faces(links, ghost)
            if faces:
                edges = {"edgecolors": (0, 0, 0, 0.05), "linewidths": 0.2}
                axes.add_collection3d(Poly3DCollection(faces, facecolors=colors, zorder=order, **edges), autolim=False)
        for name in (PREDICTED.name, ACCEPTED.name, REFUSED.name):
            for path in moment.layers[name].paths if name in moment.layers else ():
                segments = np.stack([path.points[:-1], path.points[1:]], axis=1)
                width = LINES[name]
                axes.add_collection3d(Line3DCollection(segments, colors=path.colors[1:], linewidths=width, zorder=4))
                axes.scatter(*path.points.T, c=path.colors, s=4 * width, depthshade=False, zorder=5)
        self._frame(axes, moment, end)
        handles = [_legend_line(layer) for layer in (PREDICTED, ACCEPTED, REFUSED) if layer.name in moment.layers]
        handles.append(Patch(color=GHOST, alpha=4 * GHOST_ALPHA, label="at its end"))
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.02, 0.93), fontsize=8)

    def _frame(self, axes: Any, moment: Moment, end: Mapping[str, np.ndarray]) -> None:
        points = [pose[:3, 3] for links in (moment.links, end) for pose in links.values()]
        points += [point for chunk in moment.layers.values() for path in chunk.paths for point in path.points]
        low, high = np.min(points, axis=0) - MARGIN, np.max(points, axis=0) + MARGIN
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, LEAST_HALF)
        low, high = middle - half, middle + half
        low[2] = min(low[2], 0.0)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        axes.set_aspect("equal")
        axes.set_xlabel("x [m]", fontsize=8)
        axes.set_ylabel("y [m]", fontsize=8)
        axes.set_zlabel("z [m]", fontsize=8)
        axes.tick_params(labelsize=7)
        moves_base = any(path.name == BASE for chunk in moment.layers.values() for path in chunk.paths)
        if moves_base:
            axes.locator_params(axis="z", nbins=2)
        axes.view_init(elev=60 if moves_base else 22, azim=-60)

    def _faces(self, links: Mapping[str, np.ndarray], ghost: bool) -> tuple[list[np.ndarray], list[tuple]]:
        faces, colors = [], []
        drawn = self._ghostly if ghost else self._shapes.links
        for shape in self._shapes.shapes if links else ():
            if shape.link not in drawn:
                continue
            for face in _polygons(shape):
                placed = links[shape.link] @ shape.placement
                faces.append(face @ placed[:3, :3].T + placed[:3, 3])
                colors.append((*GHOST, GHOST_ALPHA) if ghost else _shaded(shape.color, faces[-1]))
        return faces, colors

    def _draw_curves(self, figure: Any, moment: Moment) -> None:
        groups = list(dict.fromkeys(group for _, joints in self._measured for group, _ in joints))
        first = self._measured[0][0] if self._measured else moment.time
        times = np.array([time - first for time, _ in self._measured]) / 1e9
        cells = figure.add_gridspec(1, max(1, len(groups)), left=0.05, right=0.99, bottom=0.07, top=0.26, wspace=0.12)
        for group, cell in zip(groups, cells, strict=False):
            axes = figure.add_subplot(cell)
            for number, name in enumerate(name for owner, name in self._measured[-1][1] if owner == group):
                color, key = f"C{number}", (group, name)
                measured = [joints.get(key, np.nan) for _, joints in self._measured]
                axes.plot(times, measured, c=color, lw=1, label=name)
                for layer, style in ((PREDICTED, ":"), (ACCEPTED, "--")):
                    chunk = moment.layers.get(layer.name)
                    if chunk is not None and key in chunk.curves:
                        axes.plot((chunk.times - first) / 1e9, chunk.curves[key], style, c=color, lw=1.4)
            axes.axvline((moment.time - first) / 1e9, c="gray", lw=0.8)
            ends = [chunk.times[-1] for chunk in moment.layers.values() if len(chunk.times)]
            axes.set_xlim((moment.time - first) / 1e9 - BEFORE, (max([moment.time, *ends]) - first) / 1e9 + AFTER)
            axes.set_title(f"{group}: measured (—), predicted (···), accepted (- -)", fontsize=8)
            axes.set_xlabel("time [s]", fontsize=8, labelpad=1)
            axes.tick_params(labelsize=7)
            axes.legend(fontsize=6, ncols=2, loc="upper left")


def _title(moment: Moment) -> str:
    chunk = next(iter(moment.layers.values()))
    title = f"“{chunk.instruction}”    chunk {chunk.chunk_id}, {chunk.inference_ms:.0f} ms    {moment.fate}"
    return title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + "…"


def _legend_line(layer: Layer) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=layer.first, lw=LINES[layer.name], label=layer.name)


def _shaded(color: tuple[float, ...], face: np.ndarray) -> tuple[float, ...]:
    """Light from above, so that boxes look three-dimensional."""
    normal = np.cross(face[1] - face[0], face[2] - face[0])
    length = np.linalg.norm(normal)
    light = 0.65 + 0.35 * abs(normal[2]) / length if length > 0 else 1.0
    return (*(light * value for value in color[:3]), color[3])


def _polygons(shape: Shape) -> list[np.ndarray]:
    """Faces (corners, 3) of a shape in its own frame; meshes, which would require their file, are omitted."""
    if shape.kind == "box":
        return [np.array(shape.size) / 2 * face for face in CUBE]
    if shape.kind == "cylinder":
        radius, length = shape.size
        ring = radius * _circle()
        bottom, top = (np.hstack([ring, np.full((ROUND, 1), z)]) for z in (-length / 2, length / 2))
        walls = [np.array([bottom[i - 1], bottom[i], top[i], top[i - 1]]) for i in range(ROUND)]
        return [bottom, top, *walls]
    if shape.kind == "sphere":
        return _sphere(shape.size[0])
    return []


def _circle() -> np.ndarray:
    angles = np.arange(ROUND) * 2 * np.pi / ROUND
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _sphere(radius: float) -> list[np.ndarray]:
    heights = np.cos(np.linspace(0, np.pi, ROUND // 2 + 1))
    rings = [np.hstack([np.sqrt(max(0.0, 1 - z * z)) * _circle(), np.full((ROUND, 1), z)]) * radius for z in heights]
    pairs = zip(rings, rings[1:], strict=False)
    return [np.array([a[i - 1], a[i], b[i], b[i - 1]]) for a, b in pairs for i in range(ROUND)]


def _cube() -> list[np.ndarray]:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    return [np.insert(square, axis, side, axis=1) for axis in range(3) for side in (-1.0, 1.0)]


CUBE = _cube()
