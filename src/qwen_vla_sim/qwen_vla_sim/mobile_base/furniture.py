# SPDX-License-Identifier: Apache-2.0
"""The furniture as plain data: each kind of thing from a few primitive shapes, in two instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RGB = tuple[float, float, float]
WOOD: RGB = (0.42, 0.27, 0.15)
CLAY: RGB = (0.62, 0.36, 0.24)
LEAVES: RGB = (0.16, 0.42, 0.14)
STEEL: RGB = (0.30, 0.30, 0.32)


@dataclass(frozen=True)
class Part:
    """One primitive.

    Attributes:
        size: half edges of a box, half axes of an ellipsoid, radius and half height of a cylinder [m].
        place: of its center, relative to the thing's position on the floor [m].
        rgb: None for the color of the thing.
    """

    shape: Literal["box", "cylinder", "ellipsoid"]
    size: tuple[float, ...]
    place: tuple[float, float, float]
    rgb: RGB | None = None


@dataclass(frozen=True)
class Furniture:
    """The shape of a thing: radius of the circle around its footprint [m], height [m], and parts."""

    radius: float
    height: float
    parts: tuple[Part, ...]


def _legs(spread: float, height: float, thickness: float = 0.018) -> tuple[Part, ...]:
    corners = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    size = (thickness, thickness, height / 2)
    return tuple(Part("box", size, (x * spread, y * spread, height / 2), WOOD) for x, y in corners)


def _chair(half: float, seat: float, back: float) -> Furniture:
    """Seat and back in the chair's color on four wooden legs."""
    rest = Part("box", (0.02, half, (back - seat) / 2), (-half + 0.02, 0, (back + seat) / 2))
    parts = (*_legs(half - 0.02, seat), Part("box", (half, half, 0.025), (0, 0, seat)), rest)
    return Furniture(round(half * 1.42, 3), back, parts)


def _box(half: tuple[float, float, float]) -> Furniture:
    return Furniture(round((half[0] ** 2 + half[1] ** 2) ** 0.5, 3), 2 * half[2], (Part("box", half, (0, 0, half[2])),))


def _ball(radius: float) -> Furniture:
    return Furniture(radius, 2 * radius, (Part("ellipsoid", (radius,) * 3, (0, 0, radius)),))


def _lamp(shade: Part, height: float) -> Furniture:
    """A colored shade on a thin steel pole with a round, colored foot."""
    foot = Part("cylinder", (0.13, 0.02), (0, 0, 0.02))
    pole = Part("cylinder", (0.018, height / 2 - 0.05), (0, 0, height / 2), STEEL)
    return Furniture(0.16, height, (foot, pole, shade))


def _plant(pot: Part, leaves: tuple[Part, ...], height: float) -> Furniture:
    return Furniture(0.2, height, (pot, *leaves))


# Kind -> (instance to train on, another instance of the same thing).
FURNITURE: dict[str, tuple[Furniture, Furniture]] = {
    "chair": (_chair(0.16, 0.26, 0.58), _chair(0.19, 0.20, 0.46)),
    "box": (_box((0.14, 0.14, 0.14)), _box((0.10, 0.17, 0.20))),
    "ball": (_ball(0.17), _ball(0.21)),
    "pillar": (
        Furniture(0.12, 0.9, (Part("cylinder", (0.12, 0.45), (0, 0, 0.45)),)),
        Furniture(0.14, 0.7, (Part("box", (0.10, 0.10, 0.35), (0, 0, 0.35)),)),
    ),
    "lamp": (
        _lamp(Part("cylinder", (0.15, 0.10), (0, 0, 0.50)), 0.60),
        _lamp(Part("ellipsoid", (0.14, 0.14, 0.14), (0, 0, 0.40)), 0.54),
    ),
    "plant": (
        _plant(
            Part("cylinder", (0.13, 0.11), (0, 0, 0.11), CLAY),
            (Part("ellipsoid", (0.19, 0.19, 0.17), (0, 0, 0.38), LEAVES),),
            0.55,
        ),
        _plant(
            Part("box", (0.12, 0.12, 0.09), (0, 0, 0.09), CLAY),
            (
                Part("ellipsoid", (0.13, 0.13, 0.13), (0.04, 0, 0.28), LEAVES),
                Part("ellipsoid", (0.11, 0.11, 0.20), (-0.04, 0, 0.42), LEAVES),
            ),
            0.62,
        ),
    ),
}
UNCOLORED = ("plant",)  # it has natural colors, and instructions name none
