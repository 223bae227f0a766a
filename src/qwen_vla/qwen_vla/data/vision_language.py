"""Vision-language samples from annotated recordings: grounding on a 0–1000 scale, colours and spatial relations.

The simulator labels every frame for free (`annotation.*`): image positions of the cubes and the gripper tip, the cubes'
colours. That gives the small backbone the visual knowledge which the paper's backbone brings from its own pretraining.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qwen_vla.data.lerobot import LeRobotReader
from qwen_vla.data.samples import PointLabels

WHERE_IS = ("Where is the {} cube?", "Point to the {} cube.", "Locate the {} block.")
WHICH_CUBES = "Which cubes are in the image?"
SCALE = 1000  # Qwen's grounding coordinates: integers 0–1000 over each image axis
MARGIN = 0.01  # share of the image at its border where a point does not count as visible


@dataclass(frozen=True)
class Annotations:
    """Labels of a data set. points: (N, cameras, cubes + 1, 3) u, v in 0…1 and depth [m], the tip last;
    colours: (N, cubes) index into names; target: (N,) cube that the episode's sentence names."""

    points: np.ndarray
    colours: np.ndarray
    target: np.ndarray
    names: tuple[str, ...]
    cameras: tuple[str, ...]

    @classmethod
    def of(cls, reader: LeRobotReader) -> Annotations:
        cameras, names = tuple(reader.info["cameras"]), tuple(reader.info["colours"])
        colours = reader.frames["annotation.cube_colours"]
        shape = (len(reader), len(cameras), colours.shape[1] + 1, 3)
        points = reader.frames["annotation.points"].reshape(shape)
        return cls(points, colours, reader.frames["annotation.target"], names, cameras)

    def visible(self, frame: int, camera: int) -> np.ndarray:
        """(cubes + 1,) whether each point lies inside the image."""
        u, v, depth = self.points[frame, camera].T
        return (depth > 0) & (np.minimum(u, v) > MARGIN) & (np.maximum(u, v) < 1 - MARGIN)


@dataclass(frozen=True)
class Question:
    """A question about one image, its answer, and the cube it is about (None: none in particular)."""

    text: str
    answer: str
    cube: int | None


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
        raise ValueError(f"an image has a positive size, not {width}×{height}")
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
        raise ValueError(f"a box is left, top, right, bottom with left < right and top < bottom, not {list(box)}")
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


def point_labels(
    labels: Annotations, frame: int, cameras: Sequence[int], cube: int | None, opening: float
) -> PointLabels:
    """Where the named cube (if any) and the gripper tip are in the images of `cameras`."""
    points = np.zeros((len(cameras), 2, 3), np.float32)
    visible = np.zeros((len(cameras), 2), bool)
    for row, camera in enumerate(cameras):
        seen = labels.visible(frame, camera)
        for column, point in enumerate((cube, len(seen) - 1)):
            if point is not None:
                points[row, column] = labels.points[frame, camera, point]
                visible[row, column] = seen[point]
    return PointLabels(points, visible, float(opening))


def ask(labels: Annotations, frame: int, camera: int, rng: np.random.Generator) -> Question:
    """A random question about what `camera` sees in `frame`."""
    visible = np.flatnonzero(labels.visible(frame, camera)[:-1])
    names = [labels.names[colour] for colour in labels.colours[frame]]
    points = labels.points[frame, camera]
    if len(visible) == 0:
        return Question(WHICH_CUBES, "none", None)
    cube = int(rng.choice(visible))
    kind = rng.random()
    if kind < 0.55:
        text = WHERE_IS[rng.choice(len(WHERE_IS))].format(names[cube])
        return Question(text, coordinates(points[cube]), cube)
    if kind < 0.75:
        return Question(f"Which colour is the cube at {coordinates(points[cube])}?", names[cube], cube)
    if kind < 0.85 or len(visible) < 2:
        listed = " ".join(sorted(names[i] for i in visible))
        return Question(WHICH_CUBES, listed, None)
    other = int(rng.choice([i for i in visible if i != cube]))
    side, axis = (("left of", 0), ("above", 1))[int(rng.integers(2))]
    answer = "yes" if points[cube, axis] < points[other, axis] else "no"
    return Question(f"Is the {names[cube]} cube {side} the {names[other]} cube?", answer, cube)


def text_corpus(prompts: list[str], names: tuple[str, ...]) -> list[str]:
    """Texts that a tokenizer for these samples should have seen: prompts, questions, answers, all coordinates."""
    questions = [" ".join(where.format(a) for where in WHERE_IS) for a in names]
    questions += [f"Which colour is the cube at [500, 500]? {WHICH_CUBES} {' '.join(names)} none yes no"]
    relations = "Is the {a} cube left of the {b} cube? Is the {a} cube above the {b} cube?"
    questions += [relations.format(a=a, b=b) for a in names for b in names]
    return prompts + questions + [f"[{i}, {SCALE - i}]" for i in range(SCALE + 1)]
