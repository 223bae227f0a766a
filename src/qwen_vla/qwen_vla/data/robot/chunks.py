# SPDX-License-Identifier: Apache-2.0
"""Action chunks from recorded episodes: the next H targets of a row, held or at rest beyond the episode's end.

`eef_delta` targets are relative to the end-effector pose at the observation (paper §5.2.1); those of the other control
modes are unchanged. Chunks are cut on demand: a dataset of any size needs no more memory than its columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embodiment_descriptions import ActionLayout
from qwen_vla.data.robot.finite_differences import relative_poses


class Targets(Protocol):
    """The robot's commands at every row of a dataset."""

    def chunks(self, rows: np.ndarray, steps: int) -> np.ndarray: ...  # (n, steps, channels), physical units


@dataclass(frozen=True)
class AbsoluteTargets:
    """values (N, C); ends (N,): past-last row of the episode of every row.

    Beyond the end the last value is held; increments and velocities (`rests`) are zero there.
    measured (N, C): positions at every row, None if they are not recorded. A chunk does not jump by whole turns of
    continuous joints, and starts on the turn nearest to the measurement. relative: chunks are relative to it.
    """

    values: np.ndarray
    ends: np.ndarray
    layout: ActionLayout
    rests: bool = False
    measured: np.ndarray | None = None
    relative: bool = False

    def chunks(self, rows: np.ndarray, steps: int) -> np.ndarray:
        ahead = rows[:, None] + np.arange(steps)
        last = self.ends[rows][:, None]
        found = self.values[np.minimum(ahead, last - 1)]
        if not self.rests:
            found = self.layout.unwrap(found, found[:, 0] if self.measured is None else self.measured[rows])
        if self.relative:
            if self.measured is None:
                raise ValueError("relative actions need the measured positions, which were not recorded")
            found = found - self.measured[rows][:, None]
        return np.where((ahead >= last)[..., None], 0, found) if self.rests else found


@dataclass(frozen=True)
class PoseTargets:
    """Tip poses x y z qx qy qz qw in the base frame, per arm: measured and commanded (N, arms, 7).

    grippers (N, arms): 0 closed … 1 open, NaN columns where an arm has none. Channels per arm: x y z [m], rotation
    vector [rad] of T_t⁻¹·T*_{t+i}, gripper. Beyond an episode's end the last target is held.
    """

    measured: np.ndarray
    commanded: np.ndarray
    grippers: np.ndarray
    ends: np.ndarray
    has_gripper: tuple[bool, ...] = (True,)

    def chunks(self, rows: np.ndarray, steps: int) -> np.ndarray:
        ahead = np.minimum(rows[:, None] + np.arange(steps), self.ends[rows][:, None] - 1)
        parts = []
        for arm, has_gripper in enumerate(self.has_gripper):
            origins = np.repeat(self.measured[rows, arm], steps, axis=0)
            poses = self.commanded[ahead, arm].reshape(-1, 7)
            parts.append(relative_poses(origins, poses).reshape(len(rows), steps, 6))
            if has_gripper:
                parts.append(self.grippers[ahead, arm][..., None])
        return np.concatenate(parts, axis=-1)


def episode_ends(episodes: np.ndarray) -> np.ndarray:
    """(N,) past-last row of every row's episode, from the (E, 2) ranges of the episodes."""
    return np.repeat(episodes[:, 1], episodes[:, 1] - episodes[:, 0])
