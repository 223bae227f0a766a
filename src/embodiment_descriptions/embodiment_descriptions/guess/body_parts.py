# SPDX-License-Identifier: Apache-2.0
"""Which part of a body the joints of a URDF move, as far as their names tell: arms have no names of their own."""

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from embodiment_descriptions.urdf import UrdfJoint


class Part(StrEnum):
    """What is not an arm."""

    WHEELS = "wheels"
    LEGS = "legs"
    HEAD = "head"
    PROPELLERS = "propellers"


# Long words are found anywhere in a name, short ones only as one of its words: "hip" is also in "ship".
_ANYWHERE = {Part.WHEELS: ("wheel", "caster", "castor"), Part.LEGS: ("ankle", "knee", "thigh")}
_WORDS = {
    Part.WHEELS: {"steer", "steering", "whl"},
    Part.LEGS: {"hip", "leg", "calf", "shank", "foot", "toe", "haa", "hfe", "kfe", "hx", "hy", "kn"},
    Part.HEAD: {"head", "neck"},
    Part.PROPELLERS: {"propeller", "prop", "rotor"},
}
_FINGER = re.compile(r"finger|gripper|knuckle|jaw|claw|thumb|hand", re.IGNORECASE)
_FINGER_LINK = re.compile(r"finger|fngr|knuckle|jaw|claw|thumb", re.IGNORECASE)  # a wrist may move a "hand_link"
_DIGITS = {"thumb", "index", "middle", "ring", "little", "pinky"}  # a gripper's fingers have no such names
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of snake_case and of camelCase


def part_of(chain: Sequence[UrdfJoint]) -> Part | None:
    """Return what a chain of joints is when it is no arm; None for what may be one."""
    named = {_named(joint.name) for joint in chain}
    if len(chain) == 1 and chain[0].type == "continuous" and _named(chain[0].child) is Part.WHEELS:
        return Part.WHEELS
    return next((part for part in Part if part in named), None)


def is_finger(joint: UrdfJoint) -> bool:
    """Whether a joint's name, or that of the link that it moves, is that of a finger."""
    return bool(_FINGER.search(joint.name) or _FINGER_LINK.search(joint.child))


def is_digit(joint: UrdfJoint) -> bool:
    """Whether a joint's name is that of one of the five fingers of a hand."""
    return bool(_DIGITS & words(joint.name))


def words(name: str) -> set[str]:
    """The words of a name, in lower case: {"left", "hip"} of leftHip_1."""
    return {word.lower() for word in _WORD.findall(name)}


@lru_cache(maxsize=4096)
def _named(name: str) -> Part | None:
    lower, in_it = name.lower(), words(name)
    return next((p for p in Part if in_it & _WORDS[p] or any(word in lower for word in _ANYWHERE.get(p, ()))), None)
