# SPDX-License-Identifier: Apache-2.0
"""Appearance of a robot: the visual shapes of its URDF, and the poses of its links. Free of ROS and torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions.link_poses import LinkPoses
from embodiment_descriptions.urdf import parse_urdf

GRAY = (0.7, 0.7, 0.7, 1.0)


@dataclass(frozen=True)
class Shape:
    """One visual of a link.

    Attributes:
        placement: (4, 4) pose in the link.
        size: box: x, y, z; cylinder: radius, length, axis z; sphere: radius [m]; mesh: scale along x, y, z [1].
        color: r, g, b, a, each 0..1.
        mesh: URI of a mesh as in the URDF.
    """

    link: str
    kind: Literal["box", "cylinder", "sphere", "mesh"]
    size: tuple[float, ...]
    placement: np.ndarray
    color: tuple[float, ...]
    mesh: str = ""


class RobotShapes:
    """Shapes and forward kinematics of the whole robot, including joints that are never commanded.

    Attributes:
        root: name of the root link.
        links: all links.
        shapes: all visuals.
        moving: links that a joint can move.
    """

    def __init__(self, urdf: str) -> None:
        """Read a URDF; EmbodimentError or ValueError when it is invalid."""
        tree = parse_urdf(urdf)
        self.root, self.links = tree.root, tree.links
        fixed = {joint.child: joint.parent for joint in tree.joints.values() if joint.type == "fixed"}
        self.moving = frozenset(link for link in self.links if _top(link, fixed) != self.root)
        robot = ElementTree.fromstring(urdf)
        self.shapes = tuple(_shapes(robot))
        self._poses = LinkPoses(urdf)

    def link_poses(self, joints: Mapping[str, float]) -> dict[str, np.ndarray]:
        """(4, 4) poses of all links in the root link; joints that are not named are at zero [rad | m]."""
        return self._poses.at(joints)


def mesh_file(uri: str) -> Path | None:
    """The file of a mesh URI (file://, package:// through the ament index, or a path); None when it does not exist.

    Raises nothing: without its meshes, a robot is still shown as frames.
    """
    if uri.startswith("package://"):
        package, _, inside = uri.removeprefix("package://").partition("/")
        try:
            from ament_index_python.packages import get_package_share_directory

            path = Path(get_package_share_directory(package), inside)
        except (ImportError, LookupError, ValueError, OSError):  # OSError: no AMENT_PREFIX_PATH
            return None
    else:
        path = Path(uri.removeprefix("file://"))
    return path if path.is_file() else None


def _shapes(robot: ElementTree.Element):
    colors = {material.get("name"): _color(material) for material in robot.findall("material")}
    for link in robot.findall("link"):
        for visual in link.findall("visual"):
            geometry = visual.find("geometry")
            element = geometry[0] if geometry is not None and len(geometry) else None
            if element is None or element.tag not in ("box", "cylinder", "sphere", "mesh"):
                continue
            material = visual.find("material")
            own = _color(material) if material is not None else None
            named = colors.get(material.get("name")) if material is not None else None
            yield Shape(
                link=link.get("name", ""),
                kind=element.tag,
                size=_size(element),
                placement=_placement(visual.find("origin")),
                color=own or named or GRAY,
                mesh=element.get("filename", ""),
            )


def _top(link: str, fixed: Mapping[str, str]) -> str:
    """The link that a link is ultimately fixed to."""
    while link in fixed:
        link = fixed[link]
    return link


def _size(element: ElementTree.Element) -> tuple[float, ...]:
    texts = {
        "box": element.get("size"),
        "cylinder": f"{element.get('radius')} {element.get('length')}",
        "sphere": element.get("radius"),
        "mesh": element.get("scale", "1 1 1"),
    }
    return _numbers(texts[element.tag])


def _placement(origin: ElementTree.Element | None) -> np.ndarray:
    pose = np.eye(4)
    if origin is not None:
        pose[:3, 3] = _numbers(origin.get("xyz", "0 0 0"))
        pose[:3, :3] = Rotation.from_euler("xyz", _numbers(origin.get("rpy", "0 0 0"))).as_matrix()
    return pose


def _color(material: ElementTree.Element) -> tuple[float, ...] | None:
    color = material.find("color")
    return None if color is None else _numbers(color.get("rgba", ""))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split())
