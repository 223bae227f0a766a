# SPDX-License-Identifier: Apache-2.0
"""A simulator's annotations of recorded frames, and the labels for dense grounding derived from them.

Columns: `annotation.points` (image positions of the scene's objects, then of the robot's tips, per camera),
`annotation.objects` (their kinds), `annotation.object` and `annotation.goal` (those that currently matter), and
`annotation.fresh` (1 where the images were taken at that frame, 0 where they repeat the previous ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.lerobot import STATE, LeRobotReader
from qwen_vla.model.sample import POINTS, TIPS, PointLabels

POINTS_COLUMN, FRESH_COLUMN = "annotation.points", "annotation.fresh"
COLUMNS = (POINTS_COLUMN, "annotation.objects", "annotation.object", "annotation.goal")
INFO = ("names", "cameras", "points", "embodiment")
WITHIN = 0.01  # share of the image at its border in which a point does not count as visible
BEYOND = 0.15  # share of the image outside it, in which the center of a partly visible object may be
NONE = -1


@dataclass(frozen=True)
class Annotations:
    """Labels of N frames.

    points (N, cameras, objects + tips, 3): u, v in 0…1 and depth [m], 0 or less if the point is occluded.
    objects (N, objects): index into `names`; object, goal (N,): index in `objects` of the next target,
    and of its destination. −1 always means none. tips: names of the robot's own points, in the
    order of its arms ("tip", or "left tip" and "right tip").
    """

    points: np.ndarray
    objects: np.ndarray
    object: np.ndarray
    goal: np.ndarray
    names: tuple[str, ...]
    cameras: tuple[str, ...]
    tips: tuple[str, ...]

    @classmethod
    def of(cls, reader: LeRobotReader) -> Annotations:
        """The annotations of a recording; DatasetError if they are missing, or inconsistent with `info.json`."""
        info = reader.info
        missing = [f"{key} in meta/info.json" for key in INFO if key not in info]
        missing += [f"column {name}" for name in COLUMNS if name not in reader.frames]
        if missing:
            raise DatasetError(f"{reader.root} has no {', no '.join(missing)}: record it with `qwen-vla collect`")
        points, objects, wanted, goal = (reader.frames[name] for name in COLUMNS)
        objects = objects.reshape(len(reader), -1)
        cameras, tips = tuple(info["cameras"]), tuple(info["points"][objects.shape[1] :])
        shape = (len(reader), len(cameras), objects.shape[1] + len(tips), 3)
        if points.size != np.prod(shape) or len(tips) > TIPS:
            raise DatasetError(
                f"{reader.root}: {POINTS_COLUMN} has {points[0].size} numbers per frame; for {len(cameras)} cameras, "
                f"{objects.shape[1]} objects and the tips {', '.join(tips) or 'none'} (at most {TIPS}) of "
                f"meta/info.json it needs {np.prod(shape[1:])}"
            )
        return cls(points.reshape(shape), objects, wanted, goal, tuple(info["names"]), cameras, tips)

    @cached_property
    def visible(self) -> np.ndarray:
        """(N, cameras, objects + tips) the points visible in the image."""
        u, v, depth = np.moveaxis(self.points, -1, 0)
        return (depth > 0) & (np.minimum(u, v) > WITHIN) & (np.maximum(u, v) < 1 - WITHIN) & self._present

    @cached_property
    def hidden(self) -> np.ndarray:
        """(N, cameras, objects + tips) the points of invisible objects; False also if uncertain."""
        u, v, depth = np.moveaxis(self.points, -1, 0)
        outside = (np.minimum(u, v) < -BEYOND) | (np.maximum(u, v) > 1 + BEYOND)
        return ((depth <= 0) | outside) & self._present

    @property
    def _present(self) -> np.ndarray:
        """(N, 1, objects + tips) whether the frame's scene has such an object."""
        return np.pad(self.objects != NONE, ((0, 0), (0, len(self.tips))), constant_values=True)[:, None]


def point_labels(
    labels: Annotations, frame: int, cameras: Sequence[int], number: int, goal: int, openings: np.ndarray
) -> PointLabels:
    """Positions of POINTS in the images of `cameras`: the objects `number` and `goal` (−1: none), and the tips.

    openings (TIPS,): opening of each tip's gripper, −1 if there is none.
    """
    rows, objects = np.array([frame]), np.array([[number, goal]])
    found = point_columns(labels, rows, cameras, objects, openings[None])
    return PointLabels(*(column[0] for column in vars(found).values()))


def point_columns(
    labels: Annotations, rows: np.ndarray, cameras: Sequence[int], objects: np.ndarray, openings: np.ndarray
) -> PointLabels:
    """`point_labels` of n frames, with a leading dimension n; objects (n, 2), openings (n, TIPS)."""
    first, shape = labels.objects.shape[1], (len(rows), len(cameras), len(POINTS))
    points = np.zeros((*shape, 3), np.float32)
    visible, hidden = np.zeros(shape, bool), np.zeros(shape, bool)
    tips = np.broadcast_to(first + np.arange(len(labels.tips)), (len(rows), len(labels.tips)))
    sources = np.concatenate([objects, tips], axis=1)
    for column, source in enumerate(sources.T):
        chosen = np.flatnonzero(source != NONE)
        at = rows[chosen, None], np.asarray(cameras)[None], source[chosen, None]
        points[chosen, :, column] = labels.points[at]
        visible[chosen, :, column] = labels.visible[at]
        hidden[chosen, :, column] = labels.hidden[at]
    return PointLabels(points, visible, hidden, openings)


def gripper_openings(reader: LeRobotReader, embodiment: Embodiment) -> np.ndarray:
    """(N, TIPS) opening of each arm's gripper, 0 closed … 1 open, −1 if there is none."""
    found = np.full((len(reader), TIPS), NONE, np.float32)
    for tip, arm in enumerate(embodiment.arms[:TIPS]):
        if arm.gripper is not None:
            names = reader.features[STATE] or tuple(embodiment.joint_names)
            joint = reader.frames[STATE][:, names.index(arm.gripper.joint)]
            opening = (joint - arm.gripper.closed) / (arm.gripper.open - arm.gripper.closed)
            found[:, tip] = np.clip(opening, 0, 1)
    return found


def fresh_frames(reader: LeRobotReader) -> np.ndarray:
    """(N,) the frames with newly taken images; all if the recording does not tell.

    Raises:
        DatasetError: an episode starts with images taken before it.
    """
    if FRESH_COLUMN not in reader.frames:
        return np.ones(len(reader), bool)
    fresh = reader.frames[FRESH_COLUMN].astype(bool)
    begins = reader.episodes[:, 0]
    if not fresh[begins].all():
        row = int(begins[~fresh[begins]][0])
        raise DatasetError(f"{reader.place(row)}: an episode starts without an image of its own ({FRESH_COLUMN} is 0)")
    return fresh
