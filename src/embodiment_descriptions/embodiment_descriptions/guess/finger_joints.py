# SPDX-License-Identifier: Apache-2.0
"""Which joints are fingers: as far as their names tell, corrected by how the joints hang together."""

from collections import defaultdict

from embodiment_descriptions.guess.body_parts import is_digit, is_finger, part_of
from embodiment_descriptions.urdf import MOVABLE, UrdfJoint, UrdfTree


def finger_joints(tree: UrdfTree) -> frozenset[str]:
    """Return the names of the joints with which fingers begin, and of those that are named as fingers.

    A joint that carries several fingers is a wrist, even if it is called `left_hand_joint`. Where most of the chains
    that leave a rigid body are fingers, it is a palm, and the others are fingers, too: `index_proximal` beside a thumb.
    """
    chains = _chains_behind(tree)
    moving = [joint for joint in tree.joints.values() if joint.movable]
    named = {joint.name for joint in moving if is_finger(joint) and (chains[joint.child] < 2 or is_digit(joint))}
    found = set(named)
    for leaving in _by_body(tree, moving):
        of_hand = [joint for joint in leaving if joint.name in named or is_digit(joint)]
        if any(joint.name in named for joint in of_hand) and 2 * len(of_hand) > len(leaving):
            found |= {joint.name for joint in leaving if part_of([joint]) is None}
    return frozenset(found)


def _chains_behind(tree: UrdfTree) -> dict[str, int]:
    """How many chains of joints end behind each link."""
    chains = dict.fromkeys(tree.links, 0)
    for joint in reversed(tree.behind(tree.root)):
        chains[joint.parent] += max(chains[joint.child], int(_moves_apart(tree, joint)))
    return chains


def _moves_apart(tree: UrdfTree, joint: UrdfJoint) -> bool:
    """Whether a joint moves, other than by following one that carries it: a second phalanx is no finger of its own."""
    if joint.mimic is None or joint.type not in MOVABLE:
        return joint.movable
    return not tree.carries(tree.followed(joint.name).joint, joint.parent)


def _by_body(tree: UrdfTree, moving: list[UrdfJoint]) -> list[list[UrdfJoint]]:
    """The moving joints by the rigid body that they leave: links that fixed joints hold together."""
    body = {tree.root: tree.root}
    for joint in tree.behind(tree.root):
        body[joint.child] = body[joint.parent] if joint.type == "fixed" else joint.child
    leaving = defaultdict(list)
    for joint in moving:
        leaving[body[joint.parent]].append(joint)
    return list(leaving.values())
