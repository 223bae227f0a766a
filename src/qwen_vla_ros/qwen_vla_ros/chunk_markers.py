"""Markers and paths that show where a chunk leads the end effectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from nav_msgs.msg import Path
from scipy.spatial.transform import Rotation
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

LINE_WIDTH, POINT_SIZE, TEXT_HEIGHT = 0.004, 0.008, 0.025  # [m]
ARROW = Vector3(x=0.05, y=0.006, z=0.006)  # [m] length, width, height
TEXT_OFFSET = 0.06  # [m] above the last position


@dataclass(frozen=True)
class Layer:
    """How one kind of chunk looks: the colours (r, g, b) of its first and last step."""

    name: str
    first: tuple[float, float, float]
    last: tuple[float, float, float]


PREDICTED = Layer("predicted", (0.25, 0.55, 1.0), (0.85, 0.35, 1.0))
ACCEPTED = Layer("accepted", (0.1, 0.9, 0.3), (0.9, 0.9, 0.1))


def clear_all() -> MarkerArray:
    """Remove every marker that an earlier process may have left."""
    return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def chunk_markers(
    header: Header, arm: str, poses: np.ndarray, layer: Layer, text: str, lifetime: float
) -> list[Marker]:
    """Draw the way of one end effector.

    Args:
        header: base frame and time of the observation.
        arm: name of the arm; with the layer's it forms the namespace that RViz shows a check box for.
        poses: (steps + 1, 4, 4) end-effector poses in the base frame, the first one at the observation.
        layer: how it looks.
        text: written above the end.
        lifetime: [s]; markers of a node that died disappear by themselves.
    """
    points = [_point(pose[:3, 3]) for pose in poses]
    colours = _colours(len(poses), layer)

    def marker(number: int, kind: int, **fields) -> Marker:
        result = Marker(header=header, ns=f"{arm}/{layer.name}", id=number, type=kind, action=Marker.ADD, **fields)
        sec, nanosec = divmod(round(lifetime * 1e9), 10**9)
        result.lifetime = Duration(sec=sec, nanosec=nanosec)
        return result

    upright = Pose(orientation=Quaternion(w=1.0))
    end = pose_message(poses[-1])
    above = Point(x=end.position.x, y=end.position.y, z=end.position.z + TEXT_OFFSET)
    return [
        marker(0, Marker.LINE_STRIP, pose=upright, scale=Vector3(x=LINE_WIDTH), points=points, colors=colours),
        marker(1, Marker.SPHERE_LIST, pose=upright, scale=_cube(POINT_SIZE), points=points, colors=colours),
        marker(2, Marker.ARROW, pose=end, scale=ARROW, color=colours[-1]),
        marker(
            3,
            Marker.TEXT_VIEW_FACING,
            pose=Pose(position=above, orientation=upright.orientation),
            scale=Vector3(z=TEXT_HEIGHT),
            color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=0.9),
            text=text,
        ),
    ]


def pose_path(header: Header, poses: np.ndarray, period: float) -> Path:
    """Write poses (steps + 1, 4, 4) as a Path; pose i is due i * period after the header's stamp."""
    path = Path(header=header)
    start = header.stamp.sec * 10**9 + header.stamp.nanosec
    for step, pose in enumerate(poses):
        stamped = PoseStamped(pose=pose_message(pose))
        stamped.header.frame_id = header.frame_id
        stamped.header.stamp.sec, stamped.header.stamp.nanosec = divmod(start + round(step * period * 1e9), 10**9)
        path.poses.append(stamped)
    return path


def pose_message(pose: np.ndarray) -> Pose:
    """Convert a homogeneous (4, 4) matrix."""
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return Pose(position=_point(pose[:3, 3]), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _point(position: np.ndarray) -> Point:
    x, y, z = (float(value) for value in position)
    return Point(x=x, y=y, z=z)


def _cube(size: float) -> Vector3:
    return Vector3(x=size, y=size, z=size)


def _colours(count: int, layer: Layer) -> list[ColorRGBA]:
    """From the layer's first to its last colour, fading, since the far future is less sure."""
    share = np.linspace(0.0, 1.0, count)[:, None]
    rgb = (1.0 - share) * np.array(layer.first) + share * np.array(layer.last)
    return [
        ColorRGBA(r=float(r), g=float(g), b=float(b), a=float(1.0 - 0.6 * s))
        for (r, g, b), s in zip(rgb, share[:, 0], strict=True)
    ]
