"""Vision-language samples from annotated recordings: grounding on a 0–1000 scale, colours and spatial relations.

The simulator labels every frame for free (`annotation.*`): image positions of the cubes and the gripper tip, the cubes'
colours. That gives the small backbone the visual knowledge which the paper's backbone brings from its own pretraining.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla.data.lerobot import LeRobotReader

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
