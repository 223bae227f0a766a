# SPDX-License-Identifier: Apache-2.0
"""What stands behind the last joint of an arm: the grasp point, and a gripper or a dexterous hand."""

import re
from dataclasses import dataclass

from embodiment_descriptions.config import Gripper
from embodiment_descriptions.guess.body_parts import is_digit, is_finger
from embodiment_descriptions.guess.fingers import open_and_closed
from embodiment_descriptions.urdf import UrdfJoint, UrdfTree

_TIP = re.compile(r"tcp|tool|ee_|_ee|eef|grasp|gripper|hand|tip|flange", re.IGNORECASE)
_CAMERA = re.compile(r"cam|optical|lens|sensor", re.IGNORECASE)


@dataclass(frozen=True)
class EndEffector:
    """A gripper, the joints of a hand, or neither; and how they were found."""

    gripper: Gripper | None
    hand: tuple[str, ...]
    note: str


def end_effector(tree: UrdfTree, urdf: str, link: str, tip: str) -> EndEffector:
    """Guess what the joints behind an arm are.

    Args:
        tree: the URDF.
        urdf: its text.
        link: the one that the last joint of the arm moves.
        tip: the grasp point.
    """
    behind = [joint for joint in tree.behind(link) if joint.movable]
    hand = tuple(joint.name for joint in behind)
    if any(map(is_digit, behind)):
        return EndEffector(None, hand, f"hand: {', '.join(hand)}; a channel each, in control_mode joint_position")
    limited = [joint for joint in behind if joint.range is not None]
    if not limited:
        return EndEffector(None, (), "gripper: none found behind the arm")
    gripper, how = _gripper(tree, urdf, min(limited, key=_rank), tip)
    note = f"gripper: {gripper.joint}, closed at {gripper.closed:g}, open at {gripper.open:g}; {how}"
    return EndEffector(gripper, (), note)


def grasp_point(tree: UrdfTree, link: str) -> str:
    """Choose the end of the fixed links behind the last arm joint that is most likely the grasp point."""
    best, best_rank, stack = link, (0, 0), [(link, 0)]
    while stack:
        here, depth = stack.pop()
        rank = (1 if _TIP.search(here) else 0, depth)
        if not _CAMERA.search(here) and rank > best_rank:
            best, best_rank = here, rank
        stack += [(joint.child, depth + 1) for joint in tree.below(here) if joint.type == "fixed"]
    return best


def _rank(joint: UrdfJoint) -> tuple[bool, bool]:
    """The less, the likelier a joint opens the gripper."""
    return not is_finger(joint), joint.type != "prismatic"


def _gripper(tree: UrdfTree, urdf: str, joint: UrdfJoint, tip: str) -> tuple[Gripper, str]:
    """The gripper that a finger joint opens, and what tells its ends apart."""
    known = open_and_closed(urdf, tree, joint, tip)
    if known:
        return Gripper(joint=joint.name, open=known[0], closed=known[1]), "judged by the positions of its finger tips"
    # Fingers close towards the middle, which is where a prismatic finger joint is nearest to zero.
    closed, opened = sorted(joint.range or (), key=abs)
    return Gripper(joint=joint.name, closed=closed, open=opened), "the URDF does not say which is which; check it"
