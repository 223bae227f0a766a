# SPDX-License-Identifier: Apache-2.0
"""At which end of its joint's range a gripper is open: where forward kinematics puts the finger tips farthest apart."""

from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.link_poses import LinkPoses
from embodiment_descriptions.urdf import UrdfJoint, UrdfTree

LEAST_MOTION = 1e-3  # [m] between open and closed; below this, the tips do not decide
_HOLDERS = ("inertial", "collision", "visual")  # elements that say where the mass of a link is


def open_and_closed(urdf: str, tree: UrdfTree, joint: UrdfJoint, grasp_link: str) -> tuple[float, float] | None:
    """Return the positions of a finger joint [rad | m] at which the gripper is open and closed.

    Two fingers or more that move together are open where their tips are far from each other, a single one where its tip
    is far from the grasp link.

    Args:
        urdf: expanded text of the robot.
        tree: the same, parsed.
        joint: with both position limits; others may follow it.
        grasp_link: the tip of the arm.

    Returns:
        (open, closed), or None where the tips do not decide: they keep their distance, or nothing says where they are.
    """
    if joint.range is None:
        return None
    poses, fingers, centers = LinkPoses(urdf), _fingers(tree, joint), _centers(urdf)

    def width(position: float) -> float:
        links = poses.at({joint.name: position})
        tips = [np.mean([links[link][:3] @ centers[link] for link in finger], axis=0) for finger in fingers]
        center = np.mean(tips, axis=0) if len(tips) > 1 else links[grasp_link][:3, 3]
        return float(np.mean([np.linalg.norm(tip - center) for tip in tips]))

    ends = sorted(joint.range, key=width)
    return (ends[1], ends[0]) if width(ends[1]) - width(ends[0]) > LEAST_MOTION else None


def _fingers(tree: UrdfTree, joint: UrdfJoint) -> list[list[str]]:
    """The outermost links of each finger that the joint moves, itself or through joints that follow it."""
    moved = [other for other in tree.joints if tree.followed(other).joint == joint.name]
    inner = [name for name in moved if not _is_behind(tree, tree.joints[name].parent, moved)]
    return [list(_ends(tree, tree.joints[name].child)) for name in inner]


def _is_behind(tree: UrdfTree, link: str, joints: list[str]) -> bool:
    return any(joint.name in joints for joint in tree.chain(tree.root, link))


def _ends(tree: UrdfTree, link: str) -> Iterator[str]:
    open_ends = [link]
    while open_ends:
        link = open_ends.pop()
        below = [joint.child for joint in tree.below(link)]
        open_ends += below
        if not below:
            yield link


def _centers(urdf: str) -> dict[str, np.ndarray]:
    """(4,) point of every link, in the link [m]: its center of mass or of a shape, else its origin."""
    points = {}
    for link in ElementTree.fromstring(urdf).findall("link"):
        places = [_place(origin) for name in _HOLDERS for origin in link.findall(f"{name}/origin")]
        place = next((place for place in places if place.any()), np.zeros(3))
        points[link.get("name")] = np.append(place, 1.0)
    return points


def _place(origin: ElementTree.Element) -> np.ndarray:
    text = origin.get("xyz", "0 0 0")
    try:
        x, y, z = map(float, text.split())
    except ValueError as error:
        raise EmbodimentError(f"an <origin> of the URDF has xyz={text!r}, which is not three numbers") from error
    return np.array([x, y, z])
