# SPDX-License-Identifier: Apache-2.0
"""Recordings of the WidowX: their columns, and the frame of the current state and the expert's action.

Poses are in base_link, quaternions x y z w.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from embodiment_descriptions.poses import pose_vector
from qwen_vla_sim.widowx.grasping import Step
from qwen_vla_sim.widowx.table_spec import CAMERAS
from qwen_vla_sim.widowx.things import NAMES
from qwen_vla_sim.widowx.world import WidowXWorld

SIZE = (120, 160)  # of stored images (height, width); rendered at the cameras' 240×320
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
Features = dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]


def features(joint_names: Iterable[str], things: int) -> Features:
    """Columns of a recording of scenes with up to `things` things: name → (dtype, shape, element names)."""
    image = ("image", (*SIZE, 3), ("height", "width", "channel"))
    return {
        **{f"observation.images.{tag}": image for tag in CAMERAS},
        "observation.state": ("float32", (7,), tuple(joint_names)),
        "observation.eef_pose": ("float32", (7,), POSE),
        "action": ("float32", (8,), (*POSE, "gripper")),
        "annotation.points": ("float32", (len(CAMERAS) * (things + 1) * 3,), ()),  # camera × point × (u, v, depth in m)
        "annotation.objects": ("int64", (things,), ()),  # index into the names of `info.json`; -1: none
        "annotation.object": ("int64", (1,), ()),  # index of the named one
        "annotation.goal": ("int64", (1,), ()),  # index of the one it is brought to; -1: none
        "annotation.task": ("int64", (1,), ()),
    }


def labels_info(things: int) -> dict:
    """Entries of `info.json` about the annotations."""
    points = [*(f"object {i}" for i in range(things)), "tip"]
    return {"names": list(NAMES), "points": points, "cameras": list(CAMERAS)}


def frame(world: WidowXWorld, observation: Mapping, step: Step, orientation: np.ndarray, things: int) -> dict:
    """One row of a recording without its task: the current observation, and the target pose of the expert's step."""
    height, width = SIZE
    images = {
        f"observation.images.{tag}": cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        for tag, image in observation["images"].items()
    }
    tip = world.tip_pose()
    target = tip.copy()
    target[:3, :3], target[:3, 3] = orientation, step.position
    return {
        **images,
        "observation.state": observation["joints"],
        "observation.eef_pose": pose_vector(tip).astype(np.float32),
        "action": np.append(pose_vector(target).astype(np.float32), step.gripper).astype(np.float32),
        **_labels(world, things),
    }


def _labels(world: WidowXWorld, things: int) -> dict:
    scene, count = world.scene, len(world.scene.things)
    points = np.concatenate([world.label_points(), world.tip_pose()[None, :3, 3]])
    shown = np.zeros((len(CAMERAS), things + 1, 3), np.float32)  # absent things are at depth 0: not visible
    for row, tag in zip(shown, CAMERAS, strict=True):
        row[[*range(count), things]] = world.project(tag, points)
    objects = np.full(things, -1)
    objects[:count] = [NAMES.index(thing.name) for thing in scene.things]
    return {
        "annotation.points": shown.reshape(-1),
        "annotation.objects": objects,
        "annotation.object": scene.target,
        "annotation.goal": -1 if scene.goal is None else scene.goal,
    }
