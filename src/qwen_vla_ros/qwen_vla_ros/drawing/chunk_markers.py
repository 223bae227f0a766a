# SPDX-License-Identifier: Apache-2.0
"""Markers, paths and ghost transforms: the visualization of a chunk in RViz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Pose, PoseStamped, Quaternion, TransformStamped, Vector3
from nav_msgs.msg import Path
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from qwen_vla_control.stamps import NANOSECONDS, nanoseconds
from qwen_vla_rclpy.messages import (
    duration_message,
    point_message,
    pose_message,
    time_message,
    transform_message,
)
from qwen_vla_ros.drawing.chunk_geometry import BASE, PredictedPath

LINE_WIDTH, POINT_SIZE, TEXT_HEIGHT = 0.004, 0.008, 0.025  # [m]
ARROW = Vector3(x=0.05, y=0.006, z=0.006)  # [m] length, width, height
TEXT_OFFSET = 0.08  # [m] of the text above its position
BASE_SCALE = 4.0  # a base drives meters where an arm moves centimeters
SHAPES = (Marker.LINE_STRIP, Marker.SPHERE_LIST, Marker.ARROW)  # of a path, in the order of their ids
TEXT = "text"  # the namespace of the text
GHOST = "ghost"  # prefix of the ghost's frames and topics
WHITE, RED = (1.0, 1.0, 1.0), (1.0, 0.15, 0.1)


@dataclass(frozen=True)
class Layer:
    """Appearance of one kind of chunk: the colors (r, g, b) of its first and last step."""

    name: str
    first: tuple[float, float, float]
    last: tuple[float, float, float]

    def colors(self, count: int, bad_steps: Sequence[int] = ()) -> np.ndarray:
        """(count, 4) r, g, b, a of the points of a path; they fade, since the far future is less certain.

        The end points of `bad_steps` are bright red.
        """
        share = np.linspace(0.0, 1.0, count)[:, None]
        rgb = (1.0 - share) * np.array(self.first) + share * np.array(self.last)
        colors = np.hstack([rgb, 1.0 - 0.6 * share])
        for step in bad_steps:
            if step + 1 < count:
                colors[step + 1] = (*RED, 1.0)
        return colors


PREDICTED = Layer("predicted", (0.25, 0.55, 1.0), (0.85, 0.35, 1.0))
ACCEPTED = Layer("accepted", (0.1, 0.9, 0.3), (0.9, 0.9, 0.1))
REFUSED = Layer("refused", (0.7, 0.1, 0.1), (0.5, 0.05, 0.05))


def clear_all() -> MarkerArray:
    """Remove every marker, including those of an earlier process."""
    return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def path_markers(
    header: Header, path: PredictedPath, layer: Layer, lifetime: float, bad_steps: Sequence[int] = ()
) -> list[Marker]:
    """Draw a path as a line, its points, and an arrow at its end.

    Args:
        header: time of the observation; the frame is the path's.
        path: its name and the layer's form the namespace, for which RViz shows a check box.
        layer: its appearance.
        lifetime: [s]; markers of a node that died disappear on their own.
        bad_steps: steps at which the chunk was refused.
    """
    scale = BASE_SCALE if path.name == BASE else 1.0
    rgba = [_color(*row) for row in layer.colors(len(path.poses), bad_steps)]
    points = [point_message(pose[:3, 3]) for pose in path.poses]
    upright = Pose(orientation=Quaternion(w=1.0))
    arrow = Vector3(x=scale * ARROW.x, y=scale * ARROW.y, z=scale * ARROW.z)
    size = scale * POINT_SIZE
    looks = (
        {"pose": upright, "scale": Vector3(x=scale * LINE_WIDTH), "points": points, "colors": rgba},
        {"pose": upright, "scale": Vector3(x=size, y=size, z=size), "points": points, "colors": rgba},
        {"pose": pose_message(path.poses[-1]), "scale": arrow, "color": rgba[-1]},
    )
    common = {"ns": f"{path.name}/{layer.name}", "action": Marker.ADD, "lifetime": duration_message(lifetime)}
    return [
        Marker(header=Header(stamp=header.stamp, frame_id=path.frame), id=number, type=kind, **common, **fields)
        for number, (kind, fields) in enumerate(zip(SHAPES, looks, strict=True))
    ]


def removed_markers(names: Sequence[str], layer: Layer) -> list[Marker]:
    """Remove the paths of a layer."""
    ids = range(len(SHAPES))
    return [Marker(ns=f"{name}/{layer.name}", id=number, action=Marker.DELETE) for name in names for number in ids]


def text_marker(header: Header, path: PredictedPath, text: str, lifetime: float, alarm: bool = False) -> Marker:
    """Write above the start of a path; an alarm is red."""
    scale = BASE_SCALE if path.name == BASE else 1.0
    place = point_message(path.poses[0][:3, 3] + [0.0, 0.0, scale * TEXT_OFFSET])
    return Marker(
        header=Header(stamp=header.stamp, frame_id=path.frame),
        ns=TEXT,
        id=0,
        type=Marker.TEXT_VIEW_FACING,
        action=Marker.ADD,
        pose=Pose(position=place, orientation=Quaternion(w=1.0)),
        scale=Vector3(z=scale * TEXT_HEIGHT),
        color=_color(*(RED if alarm else WHITE), 0.95),
        text=text,
        lifetime=duration_message(lifetime),
    )


def pose_path(header: Header, predicted: PredictedPath, period: float) -> Path:
    """Build the Path message of a predicted path; pose i is due i * period after the header's stamp."""
    poses = []
    start = nanoseconds(header.stamp)
    for step, pose in enumerate(predicted.poses):
        stamped = PoseStamped(pose=pose_message(pose))
        stamped.header.frame_id = predicted.frame
        stamped.header.stamp = time_message(start + round(step * period * NANOSECONDS))
        poses.append(stamped)
    return Path(header=Header(stamp=header.stamp, frame_id=predicted.frame), poses=poses)


def ghost_transforms(header: Header, link_poses: Mapping[str, np.ndarray], root: np.ndarray) -> list[TransformStamped]:
    """Build the transforms of the ghost robot, for /tf.

    Args:
        header: time, and the frame in which `root` is expressed.
        link_poses: (4, 4) poses of the links in the root link.
        root: (4, 4) pose of the ghost's root link.
    """
    return [
        TransformStamped(header=header, child_frame_id=f"{GHOST}/{link}", transform=transform_message(root @ pose))
        for link, pose in link_poses.items()
    ]


def _color(r: float, g: float, b: float, a: float) -> ColorRGBA:
    return ColorRGBA(r=float(r), g=float(g), b=float(b), a=float(a))
