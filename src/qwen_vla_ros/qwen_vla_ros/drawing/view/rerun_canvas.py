# SPDX-License-Identifier: Apache-2.0
"""A scene in rerun: the viewer, or a file for it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.output_files import free_bytes
from qwen_vla_ros.drawing.chunk_geometry import BASE
from qwen_vla_ros.drawing.chunk_markers import ACCEPTED, PREDICTED, REFUSED, Layer
from qwen_vla_ros.drawing.robot_shapes import RobotShapes, Shape, mesh_file
from qwen_vla_ros.drawing.view.scene import ShownChunk, ShownReport

INSTALL = "pip install 'rerun-sdk>=0.41,<0.42'"
APPLICATION = "qwen-vla view"  # also its name in `output_paths`
JPEG_QUALITY = 85
FULL = 1 << 16  # [bytes] free on a disk that is full for all practical purposes
LEVELS = {"REFUSED": "ERROR", "HELD": "WARN", "WARNING": "WARN", "ACCEPTED": "INFO", "COMPLETED": "DEBUG"}
ARM_RADIUS, BASE_RADIUS = 0.002, 0.008  # [m] of a path
MEASURED_COLOR, GHOST_COLOR = (200, 200, 200), (130, 170, 255)


class RerunMissing(RuntimeError):
    """rerun-sdk is not installed; the message has the command that installs it."""


class RerunCanvas:
    """Draws on the timelines `time` (seconds since the first message) and `ros_time`."""

    def __init__(self, embodiment: Embodiment, shapes: RobotShapes, save: Path | None = None) -> None:
        """Open the viewer, or a file; RerunMissing, or RuntimeError where there is no display for the viewer."""
        self._rr, blueprint = _rerun()
        if save is None:
            _need_display()
        self._stream = self._rr.RecordingStream(APPLICATION)
        self._save = save
        layout = self._layout(blueprint, embodiment)
        if save is not None:
            self._stream.save(save, default_blueprint=layout)
        else:
            self._stream.spawn(default_blueprint=layout)
        self._first: int | None = None
        self._styled: set[str] = set()
        self._ghostly = frozenset(shapes.links) if embodiment.base else shapes.moving
        self._draw_shapes(shapes, "world/robot", ghost=False)
        self._draw_shapes(shapes, "world/ghost", ghost=True)
        self._stream.log("world", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def close(self) -> None:
        """Write the rest; OSError when the disk is full, which rerun's own error does not mention."""
        try:
            self._stream.flush()
        except RuntimeError as error:
            if self._save is not None and free_bytes(self._save) < FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._save)) from error
            raise
        finally:
            self._stream.disconnect()

    # Canvas ---------------------------------------------------------------------------------------------------------

    def robot(self, time: int, links: Mapping[str, np.ndarray], joints: Mapping[tuple[str, str], float]) -> None:
        """Move the robot and draw its joints."""
        self._at(time)
        self._place(links, "world/robot")
        for (group, name), position in joints.items():
            self._log(self._curve(group, name, "measured"), self._rr.Scalars(position))

    def image(self, time: int, tag: str, rgb: np.ndarray) -> None:
        """Show the image of a camera."""
        self._at(time)
        self._log(["cameras", tag], self._rr.Image(rgb).compress(jpeg_quality=JPEG_QUALITY))

    def chunk(self, time: int, chunk: ShownChunk) -> None:
        """Draw its paths and curves, and write what is known about it."""
        rr, layer = self._rr, chunk.layer.name
        self._at(time)
        for path in chunk.paths:
            radius = BASE_RADIUS if path.name == BASE else ARM_RADIUS
            entity = ["world", "chunks", path.name, layer]
            segments = np.stack([path.points[:-1], path.points[1:]], axis=1)
            self._log([*entity, "line"], rr.LineStrips3D(segments, colors=path.colors[1:], radii=radius))
            self._log([*entity, "points"], rr.Points3D(path.points, colors=path.colors, radii=2 * radius))
        if layer == PREDICTED.name:
            self._place({link: pose for link, pose in chunk.end.items() if link in self._ghostly}, "world/ghost")
            self._log(["latency", "inference [ms]"], rr.Scalars(chunk.inference_ms))
        else:
            self._draw_curves(chunk)
        what = f"{layer} {chunk.steps} of {chunk.horizon} steps" + (f"\n\n{chunk.note}" if chunk.note else "")
        text = f"# {chunk.instruction}\n\nchunk {chunk.chunk_id}, {chunk.inference_ms:.0f} ms: **{what}**"
        self._log(["instruction"], rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN))

    def remove(self, time: int, layer: Layer) -> None:
        """Remove the paths of a layer."""
        self._at(time)
        for name in self._paths:
            self._log(["world", "chunks", name, layer.name], self._rr.Clear(recursive=True))

    def report(self, time: int, report: ShownReport) -> None:
        """Log a report."""
        self._at(time)
        text = f"{report.verdict} chunk {report.chunk_id}" + (f": {report.message}" if report.message else "")
        self._log(["reports"], self._rr.TextLog(text, level=LEVELS.get(report.verdict, "INFO")))
        for name, value in (
            ("decision [ms]", report.decision_ms),
            ("observation age [ms]", report.observation_age_s * 1e3),
        ):
            if np.isfinite(value):
                self._log(["latency", name], self._rr.Scalars(value))

    # Parts ----------------------------------------------------------------------------------------------------------

    def _layout(self, rrb: Any, embodiment: Embodiment) -> Any:
        groups = [arm.name for arm in embodiment.arms] + ([BASE] if embodiment.base else [])
        self._paths = groups
        path = self._rr.new_entity_path
        cameras = [rrb.Spatial2DView(origin=path(["cameras", c.tag]), name=c.tag) for c in embodiment.cameras]
        curves = [rrb.TimeSeriesView(origin=path(["joints", group]), name=f"joints {group}") for group in groups]
        texts = [rrb.TextDocumentView(origin="instruction"), rrb.TextLogView(origin="reports", name="reports")]
        return rrb.Blueprint(
            rrb.Vertical(
                rrb.Horizontal(
                    rrb.Spatial3DView(origin="world", name="robot and chunks"),
                    rrb.Vertical(*cameras, texts[0]),
                    column_shares=[2, 1],
                ),
                rrb.Horizontal(rrb.Tabs(*curves), rrb.TimeSeriesView(origin="latency", name="latency"), texts[1]),
                row_shares=[2, 1],
            ),
            collapse_panels=True,
        )

    def _draw_shapes(self, shapes: RobotShapes, root: str, ghost: bool) -> None:
        """Draw all shapes once, each in its link; only the links move."""
        for number, shape in enumerate(shapes.shapes):
            looks = self._looks(shape, ghost)
            if looks is not None and (not ghost or shape.link in self._ghostly):
                path = [*root.split("/"), shape.link, str(number)]
                self._log(path, looks, self._transform(shape.placement), static=True)

    def _looks(self, shape: Shape, ghost: bool) -> Any:
        rr = self._rr
        color = GHOST_COLOR if ghost else [round(255 * value) for value in shape.color]
        fill = "majorwireframe" if ghost else "solid"
        if shape.kind == "box":
            return rr.Boxes3D(sizes=[shape.size], colors=[color], fill_mode=fill)
        if shape.kind == "cylinder":
            return rr.Cylinders3D(radii=[shape.size[0]], lengths=[shape.size[1]], colors=[color], fill_mode=fill)
        if shape.kind == "sphere":
            return rr.Ellipsoids3D(radii=[shape.size[0]], colors=[color], fill_mode=fill)
        file = mesh_file(shape.mesh)
        return None if file is None or ghost else rr.Asset3D(path=file)

    def _place(self, links: Mapping[str, np.ndarray], root: str) -> None:
        for link, pose in links.items():
            self._log([*root.split("/"), link], self._transform(pose))

    def _transform(self, pose: np.ndarray) -> Any:
        return self._rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3])

    def _draw_curves(self, chunk: ShownChunk) -> None:
        rr = self._rr
        since = (chunk.times - self._first) / 1e9
        indexes = [
            rr.TimeColumn("time", duration=since),
            rr.TimeColumn("ros_time", timestamp=chunk.times.astype("datetime64[ns]")),
        ]
        for (group, name), values in chunk.curves.items():
            path = self._curve(group, name, chunk.layer.name)
            self._stream.send_columns(rr.new_entity_path(path), indexes, rr.Scalars.columns(scalars=values))

    def _curve(self, group: str, name: str, layer: str) -> list[str]:
        path = ["joints", group, name, layer]
        if (key := "\0".join(path)) not in self._styled:
            self._styled.add(key)
            colors = {ACCEPTED.name: ACCEPTED.first, REFUSED.name: (1.0, 0.15, 0.1)}
            color = [round(255 * v) for v in colors[layer]] if layer in colors else MEASURED_COLOR
            line = self._rr.SeriesLines(colors=[color], names=[f"{name} {layer}"], widths=[1.5])
            self._log(path, line, static=True)
        return path

    def _at(self, time: int) -> None:
        self._first = time if self._first is None else self._first
        self._stream.set_time("time", duration=(time - self._first) / 1e9)
        self._stream.set_time("ros_time", timestamp=np.datetime64(time, "ns"))

    def _log(self, path: list[str], *content: Any, static: bool = False) -> None:
        self._stream.log(path, *content, static=static)


def _rerun() -> tuple[Any, Any]:
    try:
        import rerun
        import rerun.blueprint
    except ImportError as error:
        raise RerunMissing(
            f"the viewer is missing ({error}); {INSTALL}, or write an image without it: --png FILE.png"
        ) from error
    return rerun, rerun.blueprint


def _need_display() -> None:
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeError(
            "there is no display for the viewer (DISPLAY is not set); write a file with --save FILE.rrd and open it "
            "elsewhere with `rerun FILE.rrd`, or write an image with --png FILE.png"
        )
