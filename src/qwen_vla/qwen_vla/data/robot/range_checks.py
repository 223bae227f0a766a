# SPDX-License-Identifier: Apache-2.0
"""Whether recorded positions can be those of the robot: its URDF's limits, per row and over a whole column.

Used by training, conversion, collection and `qwen-vla inspect`. A unit error shows in most rows and cannot be skipped;
single rows outside the limits are bad rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.model.normalization import HIGH, LOW, Quantiles

MARGIN = {"prismatic": 0.005, "revolute": 0.05, "continuous": 0.0}  # [m, rad] that a measurement may exceed a limit
# Of the travel: fingers are pressed beyond their ends, leaders have other ends, and both saturate. Another unit is
# farther away.
FINGER_MARGIN = 2.5
OPENING_MARGIN = 0.25  # of recorded openings, 0…1
TURNS = 4  # of a continuous joint, in either direction
PERCENT = 105.0
SINGLE_ROWS = 3  # outside the limits are bad rows, however short the dataset is
UNIT_REMEDY = (
    "if it is the unit, write `unit: degrees` or `unit: percent` for the column in a recipe, or `recordings` in the "
    "embodiment YAML; if the robot really goes there, correct the limits in its URDF"
)
GRIPPER_REMEDY = (
    "write `columns: {gripper: fraction}` (0 closed … 1 open), `closed_fraction` (0 open … 1 closed) or `percent` (0 "
    "closed … 100 open)"
)


@dataclass(frozen=True)
class Ranges:
    """Possible values of named elements, with their margins; unit: of each. grippers: those that open a gripper."""

    names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    margin: np.ndarray
    units: tuple[str, ...]
    grippers: frozenset[str] = frozenset()

    @classmethod
    def of_joints(cls, embodiment: Embodiment) -> Ranges:
        """Of `embodiment.joint_names` [rad, m]."""
        names, limits = embodiment.joint_names, [embodiment.limits[name] for name in embodiment.joint_names]
        travel = {a.gripper.joint: abs(a.gripper.open - a.gripper.closed) for a in embodiment.arms if a.gripper}
        margin = [
            FINGER_MARGIN * travel[n] if n in travel else MARGIN[x.type] for n, x in zip(names, limits, strict=True)
        ]
        far = TURNS * 2 * math.pi
        return cls(
            names,
            np.array([max(limit.lower, -far) for limit in limits]),
            np.array([min(limit.upper, far) for limit in limits]),
            np.array(margin),
            tuple("m" if limit.type == "prismatic" else "rad" for limit in limits),
            frozenset(travel),
        )

    @classmethod
    def of_openings(cls, names: Sequence[str], grippers: Sequence[str]) -> Ranges:
        """0…1 for the openings of grippers, anything for the other elements of `names`."""
        opens = np.array([name in grippers for name in names])
        return cls(
            tuple(names),
            np.where(opens, 0.0, -np.inf),
            np.where(opens, 1.0, np.inf),
            np.where(opens, OPENING_MARGIN, 0.0),
            ("",) * len(names),
            frozenset(grippers),
        )

    def rows_outside(self, values: np.ndarray, column: str) -> dict[int, str]:
        """By row of (T, elements), what is farthest outside, in its limit's margins; empty if all are inside."""
        if not self.names:
            return {}
        excess = np.maximum(self.lower - self.margin - values, values - self.upper - self.margin)
        with np.errstate(invalid="ignore"):  # rows that are not finite are bad for another reason
            outside = np.flatnonzero((excess > 0).any(axis=1))
        span = np.where(np.isfinite(self.upper - self.lower), self.upper - self.lower, 1.0)
        worst = np.argmax(np.nan_to_num(excess[outside] / span, nan=-np.inf), axis=1)
        return {
            int(row): f"{column}: {self._one(int(element), float(values[row, element]))}"
            for row, element in zip(outside, worst, strict=True)
        }

    def refuse_column(self, values: np.ndarray, where: str) -> None:
        """DatasetError if more than single rows of (T, elements) are outside: more than one in a hundred."""
        finite = values[np.isfinite(values).all(axis=1)]
        if not len(finite) or not self.names:
            return
        outside = self._outside(finite)
        wrong = outside.sum(axis=0) > max(SINGLE_ROWS, LOW * len(finite))
        what = f"outside the limits in {int(outside.any(axis=1).sum())} of {len(finite)} rows"
        self._refuse(wrong, np.quantile(finite, [LOW, HIGH], axis=0), what, where)

    def refuse_statistics(self, quantiles: Quantiles, where: str) -> None:
        """DatasetError if q01 or q99 of the elements that have limits here is outside them."""
        index = {name: place for place, name in enumerate(quantiles.channel_names)}
        known = [place for place, name in enumerate(self.names) if name in index]
        picked = [index[self.names[place]] for place in known]
        own, bounds = self.select(known), np.stack([quantiles.q01, quantiles.q99])[:, picked]
        own._refuse(np.any(own._outside(bounds), axis=0), bounds, "q01 or q99 are outside the limits", where)

    def select(self, places: Sequence[int]) -> Ranges:
        """Only the elements at these places."""
        chosen = list(places)
        names, units = ([of[place] for place in chosen] for of in (self.names, self.units))
        lower, upper, margin = (values[chosen] for values in (self.lower, self.upper, self.margin))
        return Ranges(tuple(names), lower, upper, margin, tuple(units), self.grippers)

    def _outside(self, values: np.ndarray) -> np.ndarray:
        """(..., elements) whether a value is outside its limits and their margin."""
        return (values < self.lower - self.margin) | (values > self.upper + self.margin)

    def _refuse(self, wrong: np.ndarray, bounds: np.ndarray, what: str, where: str) -> None:
        """DatasetError if any element is wrong; bounds (2, elements): q01 and q99."""
        if not wrong.any():
            return
        shown = [
            f"{self.names[e]} {bounds[0, e]:.3g} … {bounds[1, e]:.3g} {self.units[e]} (limits {self.lower[e]:.3g} … "
            f"{self.upper[e]:.3g}{self._hint(e, float(np.abs(bounds[:, e]).max()))})"
            for e in np.flatnonzero(wrong).tolist()
        ]
        only_grippers = all(self.names[e] in self.grippers for e in np.flatnonzero(wrong))
        remedy = GRIPPER_REMEDY if only_grippers else UNIT_REMEDY
        raise DatasetError(f"{what}: {', '.join(shown)}", where, remedy)

    def _one(self, element: int, value: float) -> str:
        low = value < self.lower[element]
        limit = self.lower[element] if low else self.upper[element]
        unit = f" {self.units[element]}" if self.units[element] else ""
        return f"{self.names[element]} is {value:.3g}{unit}, limit {limit:.3g}{self._hint(element, abs(value))}"

    def _hint(self, element: int, size: float) -> str:
        """What the unit may be instead, judged by the largest absolute value."""
        name = self.names[element]
        if name in self.grippers:
            return "; an opening?" if size <= 1 + OPENING_MARGIN else "; percent?" if size <= PERCENT else ""
        reach = max(abs(self.lower[element]), abs(self.upper[element])) + self.margin[element]
        if self.units[element] == "rad" and size * math.pi / 180 <= reach:
            return "; degrees?"
        return "; percent of the range?" if size <= PERCENT else ""


def ranges_of(embodiment: Embodiment, names: Sequence[str]) -> Ranges:
    """Of a column in SI units whose elements have exactly these names; anything for those that are no joints."""
    joints, free = Ranges.of_joints(embodiment), Ranges.of_openings(names, ())
    place = {name: index for index, name in enumerate(joints.names)}
    known = [index for index, name in enumerate(names) if name in place]
    picked = [place[names[index]] for index in known]
    for own, limited in ((free.lower, joints.lower), (free.upper, joints.upper), (free.margin, joints.margin)):
        own[known] = limited[picked]
    units = tuple(joints.units[place[name]] if name in place else "" for name in names)
    return replace(free, units=units, grippers=joints.grippers)


def channel_ranges(embodiment: Embodiment) -> Ranges:
    """Of the channels of absolute joint positions: joints by their limits, grippers 0…1."""
    layout = embodiment.layout
    openings = Ranges.of_openings(layout.names, [layout.names[column] for column in layout.grippers])
    found, opens = ranges_of(embodiment, layout.names), layout.grippers
    for own, limited in (
        (found.lower, openings.lower),
        (found.upper, openings.upper),
        (found.margin, openings.margin),
    ):
        own[opens] = limited[opens]
    return replace(found, grippers=openings.grippers)
