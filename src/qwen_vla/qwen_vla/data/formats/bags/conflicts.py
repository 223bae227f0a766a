# SPDX-License-Identifier: Apache-2.0
"""Joints that are reported at two positions at once: by two publishers that disagree, or by a faulty encoder.

A bag does not say who published a message. What shows is a joint that leaps there and back, faster than it can move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.angles import wrapped
from embodiment_descriptions.urdf import parse_urdf
from qwen_vla.data.formats.bags.replay import Joints
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.plausibility import JITTER, MARGIN
from qwen_vla_control.stamps import NANOSECONDS

BACK = 1.0  # [s] within which a joint that leaped is back


class Conflict(NamedTuple):
    """From when to when [ns, stamps] the position of a joint is unknown, and why."""

    begin_ns: int
    end_ns: int
    text: str


class _Reports(NamedTuple):
    """Of one joint (n,): when they were there and what their stamps are [ns], positions [rad | m], their topics."""

    arrivals: np.ndarray
    stamps: np.ndarray
    positions: np.ndarray
    sources: np.ndarray


def conflicts(
    embodiment: Embodiment, joints: Sequence[tuple[int, Joints]], resolve: Callable[[str], str]
) -> list[Conflict]:
    """Find where the robot's joints leap there and back.

    Args:
        embodiment: the robot; its velocity limits say how fast a joint can be.
        joints: the joint states of a stretch, each with the time when it was there [ns].
        resolve: the name of a topic in the bag.
    """
    reader, kinds = JointReader(embodiment, resolve=resolve), parse_urdf(embodiment.urdf).joints
    topics = np.array([source.topic for source in reader.sources])
    found: list[Conflict] = []
    for name, told in _by_joint(reader, joints):
        continuous, unit = kinds[name].type == "continuous", "m" if kinds[name].type == "prismatic" else "rad"
        speed = embodiment.limits[name].velocity if name in embodiment.limits else np.inf
        elapsed = _elapsed(told)
        for out, back in _there_and_back(told, elapsed, speed, continuous):
            one, other = told.positions[out : out + 2]
            text = (
                f"{' and '.join(sorted(set(topics[told.sources[out : out + 2]])))}: '{name}' is reported at {one:.3f} "
                f"and {other:.3f} {unit} within {elapsed[out]:.3f} s, faster than it can move; did two nodes publish "
                "it? Record again with only one"
            )
            found.append(Conflict(int(told.stamps[out]), int(told.stamps[back + 1]), text))
    return sorted(found)


def _by_joint(reader: JointReader, joints: Sequence[tuple[int, Joints]]) -> Iterator[tuple[str, _Reports]]:
    """The reports of every joint that a policy observes, in order of arrival."""
    names = reader.embodiment.joint_names
    values, places = np.full((len(joints), len(names)), np.nan), {}
    for row, (_, told) in enumerate(joints):
        layout = told.source, told.names
        if layout not in places:
            places[layout] = _places(reader, *layout)
        columns, inside = places[layout]
        if len(told.positions) == len(told.names):  # others are defective
            values[row, columns] = np.asarray(told.positions, float)[inside]
    arrivals = np.array([time for time, _ in joints], np.int64)
    stamps = np.array([told.stamp_ns or time for time, told in joints], np.int64)
    sources = np.array([told.source for _, told in joints], int)
    for column, name in enumerate(names):
        known = np.flatnonzero(np.isfinite(values[:, column]))
        yield name, _Reports(arrivals[known], stamps[known], values[known, column], sources[known])


def _places(reader: JointReader, source: int, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Columns of the robot's joints that messages with these names have, and their places in it."""
    origin, order = reader.sources[source], list(reader.embodiment.joint_names)
    full = [origin.source.prefix + name for name in names]
    inside = [place for place, name in enumerate(full) if name in origin.joints]
    return [order.index(full[place]) for place in inside], inside


def _elapsed(told: _Reports) -> np.ndarray:
    """Time from each report to the next [s], by whichever clock has more of it."""
    return np.maximum(np.abs(np.diff(told.stamps)), np.diff(told.arrivals)) / NANOSECONDS


def _there_and_back(told: _Reports, elapsed: np.ndarray, speed: float, continuous: bool) -> Iterator[tuple[int, int]]:
    """Pairs of opposite leaps that follow each other: each the number of the report before it."""
    moved = np.diff(told.positions)
    moved = wrapped(moved) if continuous else moved
    leaps = np.flatnonzero(np.abs(moved) > speed * (MARGIN * elapsed + JITTER))
    for out, back in zip(leaps[:-1], leaps[1:], strict=True):
        soon = told.arrivals[back + 1] - told.arrivals[out] <= BACK * NANOSECONDS
        if soon and np.sign(moved[out]) != np.sign(moved[back]):
            yield int(out), int(back)
