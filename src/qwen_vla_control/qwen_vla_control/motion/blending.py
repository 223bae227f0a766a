# SPDX-License-Identifier: Apache-2.0
"""How a chunk takes over from the one being executed, without a pause, a jump or a jerk. Free of ROS and torch.

A chunk is old when it arrives: row i was meant for (i + 1) periods after the observation, and the robot has moved
since. So the chunk is first placed on the time axis (`MotionInterval` gives how much of it is already past), the past
part is cut off (`TimedPath.ahead`), and `Blender.path` leads from the position and velocity commanded now into the
rest. The transition is as short as the acceleration allows: no more than the two chunks contain anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.spline import monotone_velocities
from qwen_vla_control.motion.timed_path import Kind, TimedPath
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_control.stamps import NANOSECONDS

THETA = 2  # column of a base path
LEAVING = 4  # steps in which a chunk that ends loses its weight in the mean
DECAY = 0.01  # of the temporal ensembling weights; the value used by ACT (arXiv 2304.13705)


class Blending(StrEnum):
    """When the policy makes its next observation, and how its next chunk takes over.

    SYNCHRONOUS: after the chunk has been executed; the robot stands still meanwhile. All others observe while it moves,
    early enough for the next chunk to arrive when the execution horizon is over.
    ASYNCHRONOUS: cross-fade from what is being executed to the new chunk.
    TEMPORAL_ENSEMBLING: weighted mean of all chunks that cover a step (arXiv 2304.13705); observes once per step.
    REAL_TIME_CHUNKING: the policy continues the chunk that is being executed (arXiv 2506.07339).
    """

    SYNCHRONOUS = "synchronous"
    ASYNCHRONOUS = "asynchronous"
    TEMPORAL_ENSEMBLING = "temporal_ensembling"
    REAL_TIME_CHUNKING = "real_time_chunking"


class CrossFade(StrEnum):
    """How the weight of the old chunk falls from 1 to 0 during a transition."""

    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class MotionInterval:
    """The robot's latest uninterrupted motion, and so how much of a chunk it has executed meanwhile."""

    def __init__(self) -> None:
        """Begin at rest."""
        self._since_ns = self._until_ns = 0

    def begin(self, now_ns: int, until_ns: int) -> None:
        """Record a motion that lasts until `until_ns`; it continues one that is still running."""
        if now_ns > self._until_ns:
            self._since_ns = now_ns
        self._until_ns = until_ns

    def end(self, now_ns: int) -> None:
        """Record that the robot has come to rest, if it had not already."""
        self._until_ns = min(self._until_ns, now_ns)

    def skipped(self, stamp_ns: int, now_ns: int) -> int:
        """How much of a chunk observed at `stamp_ns` is already past [ns].

        That is the delay of the chunk, but no more than the time the robot has moved: a robot that stood still while
        its first chunk was computed has executed nothing of it, however long that took.
        """
        moved = min(now_ns, self._until_ns) - max(stamp_ns, self._since_ns)
        return max(0, min(now_ns - stamp_ns, moved))


class Blender:
    """Makes the handover paths of one robot.

    A path is only proposed; `take` it once it was sent. Refused ones leave no trace.
    """

    def __init__(
        self,
        mode: Blending,
        smooth: ArrayLike,
        cross_fade: CrossFade = CrossFade.LINEAR,
        decay: float = DECAY,
    ) -> None:
        """Create a blender with nothing running.

        Args:
            mode: any but synchronous.
            smooth: (columns,) True for those whose acceleration determines how long a transition lasts; not for
                grippers, which also jump between closed and open within their chunks.
            cross_fade: how the old chunk's weight falls.
            decay: m of temporal ensembling: the i-th oldest chunk weighs exp(-m * i). It must be above 0: with 0 an
                outdated chunk weighs as much as the one before it, below 0 the order is reversed.
        """
        if mode is Blending.SYNCHRONOUS:
            raise ValueError("nothing is blended in the synchronous mode")
        if not decay > 0.0:
            raise ValueError(f"the decay of temporal ensembling must be above 0, got {decay}; usual is {DECAY}")
        self._mode, self._cross_fade, self._decay = mode, cross_fade, decay
        self._smooth = np.asarray(smooth, bool)
        self._ensemble: tuple[TimedPath, ...] = ()
        self._inner_peak = 0.0  # of the chunk that was taken last

    def path(self, plan: TimedPath[Kind], now_ns: int, running: TimedPath[Kind] | None, measured: np.ndarray) -> Kind:
        """Lead into a new chunk.

        Args:
            plan: the new chunk; row 0 is where the robot was at the observation.
            now_ns: ROS time of the handover.
            running: what was sent last, None when it is over or was aborted.
            measured: (columns,) where the robot is, used only at rest [rad | m].

        Returns:
            A path that starts now at the commanded position and velocity and ends at rest at the end of the chunk.

        Raises:
            Refused: STALE, the whole chunk is past.
        """
        new = plan.ahead(now_ns)
        if new is None:
            late = (now_ns - plan.start_ns) / NANOSECONDS
            raise Refused.because(
                Reason.STALE, f"the chunk came {late:.2f} s after its start and is only {plan.path.duration:.2f} s long"
            )
        old = running.ahead(now_ns) if running is not None else None
        if old is None:
            new = same_turn(new, measured)
            return _through(new, np.vstack([measured, new.positions[1:]]))
        target = self._target(same_turn(new, old.positions[0]), old, now_ns)
        return self._transition(target, old, max(self._inner_peak, self._peak_inside(plan)))

    def take(self, plan: TimedPath, now_ns: int) -> None:
        """Record that the path of a chunk was sent."""
        self._inner_peak = self._peak_inside(plan)
        if self._mode is Blending.TEMPORAL_ENSEMBLING:
            live = (old for old in self._ensemble if old.ahead(now_ns) is not None)
            self._ensemble = (*live, plan)

    def forget(self) -> None:
        """Forget earlier chunks: the robot was stopped, or moved by something else."""
        self._ensemble, self._inner_peak = (), 0.0

    def _peak_inside(self, plan: TimedPath) -> float:
        """Largest acceleration between the rows of a chunk that are to be executed.

        The step to its first row starts at the measured position, and in the last step it comes to rest if no other
        chunk follows: neither is the policy's own motion.
        """
        inside = slice(1, min(plan.execution_horizon or plan.path.steps, plan.path.steps - 1))
        return float(plan.path.peak_accelerations()[inside, self._smooth].max(initial=0.0))

    def _target(self, new: Kind, old: Kind, now_ns: int) -> Kind:
        """The new chunk, or with temporal ensembling the mean of all live ones."""
        if self._mode is not Blending.TEMPORAL_ENSEMBLING:
            return new
        live = (plan.ahead(now_ns) for plan in self._ensemble)
        return ensemble([*(same_turn(path, old.positions[0]) for path in live if path is not None), new], self._decay)

    def _transition(self, target: Kind, old: Kind, limit: float) -> Kind:
        """Cross-fade in as few steps as keep the acceleration below a limit, or as low as possible.

        The old path is what is commanded, so the offset between the two is canceled at the handover and fades out.
        """
        best, lowest = target, math.inf
        rows = np.minimum(np.arange(target.steps + 1), old.steps)  # beyond its end the old path stays at rest
        for steps in range(1, target.steps + 1):
            weight = fade(steps, len(rows), self._cross_fade)[:, None]
            positions = weight * old.positions[rows] + (1.0 - weight) * target.positions
            path = _through(target, positions, old.velocities[0])
            peak = path.peak_accelerations()[: steps + 1, self._smooth].max(initial=0.0)
            if peak < lowest:
                best, lowest = path, peak
            if peak <= limit:
                break
        return best


def same_turn(path: Kind, row: np.ndarray) -> Kind:
    """A base path with its headings shifted by multiples of 2 pi next to that of `row` (3,); others unchanged."""
    if not isinstance(path, BasePath):
        return path
    positions = path.positions.copy()
    positions[:, THETA] += 2.0 * np.pi * np.round((row[THETA] - positions[0, THETA]) / (2.0 * np.pi))
    return replace(path, positions=positions)


def ensemble(paths: Sequence[Kind], decay: float) -> Kind:
    """Weighted mean of paths that start at the same time, oldest first, with exp(-decay * i) for the i-th.

    It is as long as the newest one. Each row is the mean of the paths that cover it: a chunk that is over contributes
    nothing. A path fades out over its last steps, because with few chunks the mean would jump where one of them ends.
    """
    newest = paths[-1]
    rows = np.arange(newest.steps + 1)
    positions = np.zeros_like(newest.positions)
    velocities, total = np.zeros_like(positions), np.zeros(len(rows))
    reaching = np.zeros(len(rows), int)  # how many older paths reach row r
    for path in paths:
        reaches = rows <= path.steps
        leaving = np.clip((path.steps + 1 - rows) / LEAVING, 0.0, 1.0) if path is not newest else 1.0
        weight = np.exp(-decay * reaching) * leaving  # none where it does not reach
        within = np.minimum(rows, path.steps)
        positions += weight[:, None] * path.positions[within]
        velocities += weight[:, None] * path.velocities[within]
        total += weight
        reaching += reaches
    return replace(newest, positions=positions / total[:, None], velocities=velocities / total[:, None])


def fade(steps: int, rows: int, shape: CrossFade) -> np.ndarray:
    """(rows,) weights of the old chunk: 1 in row 0, 0 from row `steps` on."""
    linear = np.clip(1.0 - np.arange(rows) / steps, 0.0, 1.0)
    return linear if shape is CrossFade.LINEAR else linear * (np.expm1(linear) / np.expm1(1.0))


def _through(path: Kind, positions: np.ndarray, start_velocity: np.ndarray | None = None) -> Kind:
    velocities = monotone_velocities(positions, path.period, start_velocity)
    return replace(path, positions=positions, velocities=velocities)
