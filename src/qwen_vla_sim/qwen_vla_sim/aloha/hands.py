# SPDX-License-Identifier: Apache-2.0
"""Poses of the hands, and the joint positions that reach them.

The frame of a hand is between its finger pads: x along the fingers, y across them (their opening direction). Poses are
in base_link.
"""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment, Kinematics

SIDES = ("left", "right")
PINCH = 0.036  # [m] from the tip link to between the finger pads, 10 mm behind the fingertips
FINGER_INSIDE = 0.0208  # [m] from a finger joint's zero to the inner face of its pad
FINGER_CLOSED, FINGER_TRAVEL = 0.021, 0.036  # [m] of the finger joint, as in the embodiment's YAML


def finger_at(gap: float) -> float:
    """Position of the finger joint [m] at which the pads are `gap` [m] apart."""
    return FINGER_INSIDE + gap / 2


def opening_at(gap: float) -> float:
    """Opening 0 closed .. 1 open at which the pads are `gap` [m] apart."""
    return float(np.clip((finger_at(gap) - FINGER_CLOSED) / FINGER_TRAVEL, 0.0, 1.0))


def hand_pose(side: str, position: np.ndarray, pitch: float, roll: float = 0.0) -> np.ndarray:
    """4x4 pose of a hand pointing across the table and down by `pitch` [rad], rotated about its fingers by `roll`."""
    direction = -1.0 if side == "left" else 1.0
    along = np.array([0.0, direction * np.cos(pitch), -np.sin(pitch)])
    across = np.array([-direction, 0.0, 0.0])
    up = np.cross(along, across)
    pose = np.eye(4)
    pose[:3, 0] = along
    pose[:3, 1] = np.cos(roll) * across + np.sin(roll) * up
    pose[:3, 2] = np.cos(roll) * up - np.sin(roll) * across
    pose[:3, 3] = position
    return pose


class Hands:
    """Kinematics of both hands of one robot. Not thread-safe."""

    def __init__(self, embodiment: Embodiment, bases: dict[str, np.ndarray]) -> None:
        """bases: 4x4 pose of each arm's base link in base_link."""
        self._kinematics = {side: Kinematics(embodiment, arm=k) for k, side in enumerate(SIDES)}
        self._home = {side: kinematics.home.copy() for side, kinematics in self._kinematics.items()}
        self._bases = bases
        self._to_base = {side: np.linalg.inv(base) for side, base in bases.items()}

    def joints(self, side: str, pose: np.ndarray) -> np.ndarray:
        """(6,) joint positions [rad] for a hand pose, always with the elbow up and the wrist as close to home as
        possible; KinematicsError when it is out of reach."""
        tip = pose.copy()
        tip[:3, 3] -= PINCH * pose[:3, 0]
        seed = self._home[side].copy()
        seed[-1] = np.arctan2(pose[2, 1], pose[2, 2])  # the wrist rolls with the hand
        return self._kinematics[side].inverse(self._to_base[side] @ tip, seed)

    def pose(self, side: str, joints: np.ndarray) -> np.ndarray:
        """4x4 hand pose for joint positions (6,) [rad]."""
        pose = self._bases[side] @ self._kinematics[side].forward(joints)
        pose[:3, 3] += PINCH * pose[:3, 0]
        return pose
