# SPDX-License-Identifier: Apache-2.0
"""Maps a column's names to those of a robot: all of them, or an error with both lists.

Names differ in suffixes (`waist.pos`), prefixes (`follower_left/waist`, `left_waist`, `fr3_joint1`), separators, order,
and what they call the finger of a gripper. A name is compared by its words, per arm; two candidates for one joint,
or a name without a joint, refuse the column.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.episodes import DatasetError

POSITION_SUFFIX = re.compile(r"[._/](pos|position|positions|qpos)$")
# Words that do not tell one position of a follower arm from another.
EMPTY_WORDS = frozenset(
    "pos position positions qpos joint joints motor motors rad main robot arm follower leader state action target "
    "observation".split()
)
POSE_WORDS = EMPTY_WORDS | frozenset("ee eef tcp tip pose end effector".split())
GRIPPER_WORDS = frozenset("gripper finger fingers jaw claw".split())
SIDES = {"l": "left", "r": "right"}
Words = tuple[str, ...]


@dataclass(frozen=True)
class NamedJoints:
    """picks: for every joint of the robot, the index of its name; renamed: joints that have another name there."""

    picks: tuple[int, ...]
    renamed: frozenset[str] = frozenset()


def find_joints(names: Sequence[str], embodiment: Embodiment, what: str) -> NamedJoints:
    """Where every joint of the robot is among a column's names.

    Raises:
        DatasetError: not all can be mapped; `what` names the column.
    """
    joints = embodiment.joint_names
    _refuse_duplicates(names, what)
    plain = [POSITION_SUFFIX.sub("", name) for name in names]
    for known in (list(names), plain):  # further names are other quantities, such as a second finger
        if all(known.count(joint) == 1 for joint in joints):
            return NamedJoints(tuple(known.index(joint) for joint in joints))
    picks = _by_words(names, embodiment)
    if picks is None:
        raise unmapped(names, joints, what)
    renamed = {joint for joint, pick in zip(joints, picks, strict=True) if plain[pick] != joint}
    return NamedJoints(picks, frozenset(renamed))


def are_joints(names: Sequence[str], embodiment: Embodiment) -> bool:
    """Whether `find_joints` understands the names."""
    try:
        find_joints(names, embodiment, "")
    except DatasetError:
        return False
    return True


def find_names(names: Sequence[str], wanted: Sequence[str], what: str) -> tuple[int, ...]:
    """Where the elements of a pose, an odometry or a velocity are among a column's names; DatasetError as above."""
    _refuse_duplicates(names, what)
    if set(wanted) <= set(names):
        return tuple(map(list(names).index, wanted))
    found = [_core(name, POSE_WORDS) for name in names]
    keys = [_core(name, POSE_WORDS) for name in wanted]
    if sorted(found) != sorted(keys) or len(set(keys)) != len(keys):
        raise unmapped(names, wanted, what)
    return tuple(map(found.index, keys))


def unmapped(names: Sequence[str], wanted: Sequence[str], what: str) -> DatasetError:
    """The error for a column whose names are not understood: both lists, and the remedy."""
    return DatasetError(
        f"{len(names)} names cannot be mapped to the {len(wanted)} of the robot: {', '.join(names)}; the robot has "
        f"{', '.join(wanted)}",
        where=what,
        remedy="list the column's names in the robot's order under `names` of the column in a recipe",
    )


def _refuse_duplicates(names: Sequence[str], what: str) -> None:
    duplicates = sorted({name for name in names if list(names).count(name) > 1})
    if duplicates:
        raise DatasetError(
            f"more than one element is called {', '.join(duplicates)}; all of them: {', '.join(names)}",
            where=what,
            remedy="correct `names` in meta/info.json",
        )


def _by_words(names: Sequence[str], embodiment: Embodiment) -> tuple[int, ...] | None:
    """The index of every joint, by the words of the names; None if they cannot be mapped one to one."""
    labels = _labels(embodiment)
    theirs = _cores(names, labels, [bool(_words(name) & GRIPPER_WORDS) for name in names])
    grippers = {arm.gripper.joint for arm in embodiment.arms if arm.gripper}
    ours = _cores(embodiment.joint_names, labels, [name in grippers for name in embodiment.joint_names])
    if len(set(theirs)) != len(theirs) or sorted(theirs) != sorted(ours):
        return None
    return tuple(map(theirs.index, ours))


def _labels(embodiment: Embodiment) -> dict[str, Words]:
    """The words by which names tell two arms apart; none for a single arm."""
    if len(embodiment.arms) < 2:
        return {}
    words = {arm.name: _split(arm.name) for arm in embodiment.arms}
    common = set.intersection(*map(set, words.values()))
    return {name: tuple(word for word in own if word not in common) for name, own in words.items()}


def _cores(names: Sequence[str], labels: dict[str, Words], are_grippers: Sequence[bool]) -> list[tuple[str, Words]]:
    """Per name its arm ("" if none), and the words that tell its joint: without those that all of an arm share."""
    arms = [_arm(name, labels) for name in names]
    said = {word for label in labels.values() for word in label}
    words = [_core(name, EMPTY_WORDS | said) for name in names]
    result = []
    for name_words, arm, is_gripper in zip(words, arms, are_grippers, strict=True):
        group = [w for w, a, g in zip(words, arms, are_grippers, strict=True) if a == arm and not g]
        own = ("gripper",) if is_gripper else name_words[_shared(group) :]
        result.append((arm, own))
    return result


def _arm(name: str, labels: dict[str, Words]) -> str:
    """The arm whose label comes first among the words of a name."""
    words = _split(name)
    places = {arm: min((words.index(w) for w in label if w in words), default=-1) for arm, label in labels.items()}
    found = [arm for arm, place in places.items() if place >= 0]
    return min(found, key=places.__getitem__, default="")


def _shared(group: Sequence[Words]) -> int:
    """The number of leading words that all have, leaving each at least one."""
    count = 0
    while len(group) > 1 and all(len(words) > count + 1 for words in group) and len({w[count] for w in group}) == 1:
        count += 1
    return count


def _core(name: str, without: Collection[str]) -> Words:
    return tuple(word for word in _split(name) if word not in without)


def _words(name: str) -> set[str]:
    return set(_split(name))


def _split(name: str) -> Words:
    """Lower-case words and numbers of a name; l and r are left and right."""
    words: list[str] = re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return tuple(SIDES.get(word, word) for word in words)
