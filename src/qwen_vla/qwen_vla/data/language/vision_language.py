# SPDX-License-Identifier: Apache-2.0
"""Questions about labeled frames and their answers: grounding on a 0–1000 scale, names, colors, spatial relations.

The simulator labels every frame for free (annotations.py). That gives the small backbone the visual knowledge that the
paper's backbone has from its pretraining. All questions use few words, so that a small tokenizer knows them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qwen_vla.data.robot.annotations import NONE, Annotations

WHERE_IS = ("Where is the {}?", "Point to the {}.", "Locate the {}.")
WHAT_IS_AT = "What is at {}?"
WHICH_COLOR = "Which colour is at {}?"
IS_IN_VIEW = "Is the {} in view?"
IS_SIDE = ("Is the {} left of the {}?", "Is the {} above the {}?")  # along u, along v
WHICH_IS_NEARER = "Which is nearer, the {} or the {}?"
WHAT_IS_IN_VIEW = "What is in view?"
NOTHING = "nothing"
COLORS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "pink", "white", "black", "grey", "brown")
SCALE = 1000  # Qwen's grounding coordinates: integers 0–1000 over each image axis
APART = 0.04  # share of the image: closer together, two things cannot be distinguished by their positions
NEARER = 0.9  # maximum ratio of two depths with a visible difference
SHARES = {"where": 0.4, "what": 0.15, "color": 0.1, "all": 0.1, "in view": 0.1, "side": 0.1, "nearer": 0.05}


@dataclass(frozen=True)
class Question:
    """A question about one image, its answer, and the scene's object that it is about (−1: none)."""

    text: str
    answer: str
    object: int = NONE


def coordinates(point: np.ndarray) -> str:
    """ "[u, v]" on the 0–1000 scale."""
    u, v = np.clip(np.round(np.asarray(point[:2]) * SCALE), 0, SCALE).astype(int)
    return f"[{u}, {v}]"


def scaled_point(point: Sequence[float], width: int, height: int) -> list[int]:
    """[x, y] in 0…1000 of a point in pixels of an image of that size.

    Raises:
        ValueError: the point is not finite or outside the image.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"an image must have a positive size, not {width}×{height}")
    x, y = map(float, point)
    if not (math.isfinite(x) and math.isfinite(y) and 0 <= x <= width and 0 <= y <= height):
        raise ValueError(f"the point ({x:g}, {y:g}) is outside the image of {width}×{height} pixels")
    return [round(SCALE * x / width), round(SCALE * y / height)]


def scaled_box(box: Sequence[float], width: int, height: int) -> list[int]:
    """[x1, y1, x2, y2] in 0…1000 of a box (left, top, right, bottom) in pixels of an image of that size.

    Raises:
        ValueError: the box is outside the image, or not left < right and top < bottom.
    """
    left, top, right, bottom = map(float, box)
    corners = scaled_point((left, top), width, height) + scaled_point((right, bottom), width, height)
    if not (left < right and top < bottom):
        raise ValueError(f"a box must be left, top, right, bottom with left < right and top < bottom, not {list(box)}")
    return corners


def pixel_point(point: Sequence[float], width: int, height: int) -> tuple[float, float]:
    """Undo `scaled_point`, to half a thousandth of the image."""
    return point[0] * width / SCALE, point[1] * height / SCALE


def grounding_answer(boxes: Iterable[tuple[str, Sequence[float]]], width: int, height: int) -> str:
    """Qwen's answer to "where is …": a JSON list of {"bbox_2d": [x1, y1, x2, y2], "label": …} from pixel boxes.

    A label with two numbers instead of four becomes a "point_2d".
    """
    entries = []
    for label, place in boxes:
        convert, key = (scaled_point, "point_2d") if len(place) == 2 else (scaled_box, "bbox_2d")
        entries.append({key: convert(place, width, height), "label": label})
    return json.dumps(entries, ensure_ascii=False)


class View:
    """The content of one camera image that questions can be about: objects with a unique name.

    seen, unseen: indices of the objects in the image, and of those certainly not in it. complete: whether
    these are all objects of the scene. points (objects + tips, 3): u, v, depth.
    """

    def __init__(self, labels: Annotations, frame: int, camera: int) -> None:
        count = labels.objects.shape[1]
        phrases = [labels.names[index] if index != NONE else "" for index in labels.objects[frame]]
        alone = np.array([times == 1 for times in map(Counter(phrases).__getitem__, phrases)], bool)
        visible, hidden = labels.visible[frame, camera], labels.hidden[frame, camera]
        self.phrases, self.points = phrases, labels.points[frame, camera]
        self.seen = np.flatnonzero(visible[:count] & alone)
        self.unseen = np.flatnonzero(hidden[:count] & alone)
        self.complete = len(self.seen) + len(self.unseen) == sum(phrase != "" for phrase in phrases)
        self.absent = [name for name in labels.names if name not in phrases]
        self.tips = {
            name.replace("tip", "gripper"): self.points[count + tip, :2]
            for tip, name in enumerate(labels.tips)
            if visible[count + tip]
        }

    def lone(self) -> list[int]:
        """The objects in the image with no other visible one close to them."""
        places = self.points[self.seen, :2]
        gaps = np.abs(places[:, None] - places[None]).max(axis=-1) + np.eye(len(places))
        return [int(number) for number, row in zip(self.seen, gaps, strict=True) if row.min() > APART]

    def pairs(self, axis: int) -> list[tuple[int, int]]:
        """Ordered pairs of objects in the image whose positions, or depths (axis 2), differ visibly."""
        seen = self.seen.tolist()
        return [(a, b) for a in seen for b in seen if a != b and self._differ(a, b, axis)]

    def _differ(self, one: int, other: int, axis: int) -> bool:
        a, b = self.points[one, axis], self.points[other, axis]
        return bool(min(a, b) < NEARER * max(a, b) if axis == 2 else abs(a - b) > APART)


def ask(labels: Annotations, frame: int, camera: int, rng: np.random.Generator) -> Question:
    """A random question about the image of `camera` in `frame`.

    Questions about invisible objects ask only whether they are in view.
    """
    view = View(labels, frame, camera)
    for kind in rng.choice(list(SHARES), len(SHARES), replace=False, p=list(SHARES.values())):
        question = _ASKING[kind](view, rng)
        if question is not None:
            return question
    return Question(IS_IN_VIEW.format(labels.names[0]), "no")


def _where(view: View, rng: np.random.Generator) -> Question | None:
    places = {view.phrases[number]: (int(number), view.points[number]) for number in view.seen}
    places |= {name: (NONE, place) for name, place in view.tips.items()}
    if not places:
        return None
    # Named objects first: grippers are always present, and covered by the dense labels.
    names = [view.phrases[number] for number in view.seen]
    name = str(rng.choice(names if names and rng.random() < 0.9 else list(places)))
    number, place = places[name]
    return Question(WHERE_IS[rng.choice(len(WHERE_IS))].format(name), coordinates(place), number)


def _what(view: View, rng: np.random.Generator) -> Question | None:
    if not (lone := view.lone()):
        return None
    number = int(rng.choice(lone))
    return Question(WHAT_IS_AT.format(coordinates(view.points[number])), view.phrases[number], number)


def _color(view: View, rng: np.random.Generator) -> Question | None:
    colored = [number for number in view.lone() if _color_of(view.phrases[number])]
    if not colored:
        return None
    number = int(rng.choice(colored))
    color = _color_of(view.phrases[number])
    return Question(WHICH_COLOR.format(coordinates(view.points[number])), color, number)


def _all(view: View, rng: np.random.Generator) -> Question | None:
    if not view.complete:
        return None
    return Question(WHAT_IS_IN_VIEW, ", ".join(sorted(view.phrases[number] for number in view.seen)) or NOTHING)


def _in_view(view: View, rng: np.random.Generator) -> Question | None:
    away = [(view.phrases[number], int(number)) for number in view.unseen] or [(name, NONE) for name in view.absent]
    there = [(view.phrases[number], int(number)) for number in view.seen]
    if not (away or there):
        return None
    yes = bool(there) and (not away or rng.random() < 0.5)
    name, number = (there if yes else away)[rng.choice(len(there if yes else away))]
    return Question(IS_IN_VIEW.format(name), "yes" if yes else "no", number)


def _side(view: View, rng: np.random.Generator) -> Question | None:
    axis = int(rng.integers(len(IS_SIDE)))
    if not (pairs := view.pairs(axis)):
        return None
    one, other = pairs[rng.choice(len(pairs))]
    answer = "yes" if view.points[one, axis] < view.points[other, axis] else "no"
    return Question(IS_SIDE[axis].format(view.phrases[one], view.phrases[other]), answer, one)


def _nearer(view: View, rng: np.random.Generator) -> Question | None:
    if not (pairs := view.pairs(2)):
        return None
    pair = pairs[rng.choice(len(pairs))]
    nearer = min(pair, key=lambda number: view.points[number, 2])
    return Question(WHICH_IS_NEARER.format(*(view.phrases[number] for number in pair)), view.phrases[nearer], nearer)


_ASKING = {
    "where": _where,
    "what": _what,
    "color": _color,
    "all": _all,
    "in view": _in_view,
    "side": _side,
    "nearer": _nearer,
}


def _color_of(phrase: str) -> str:
    """The color that a phrase starts with; empty if there is none."""
    first = phrase.split()[0]
    return first if first in COLORS else ""


def text_corpus(labels: Annotations) -> Iterator[str]:
    """Texts for training a tokenizer for these samples: every question and answer about every name."""
    grippers = [tip.replace("tip", "gripper") for tip in labels.tips]
    for name in (*labels.names, *grippers):
        yield " ".join(question.format(name) for question in (*WHERE_IS, IS_IN_VIEW))
        yield " ".join(question.format(name, name) for question in (*IS_SIDE, WHICH_IS_NEARER))
    for name in labels.names:
        yield name
        yield f"{name}, {name}"
        yield _color_of(name)
    yield f"{WHAT_IS_IN_VIEW} {NOTHING} yes no"
    yield "yes"
    yield "no"
    for number in range(SCALE + 1):
        place = f"[{number}, {SCALE - number}]"
        yield place
    yield f"{WHAT_IS_AT.format('[500, 500]')} {WHICH_COLOR.format('[500, 500]')}"
