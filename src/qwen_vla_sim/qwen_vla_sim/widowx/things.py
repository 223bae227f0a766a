# SPDX-License-Identifier: Apache-2.0
"""The things on the WidowX's table: shapes, sizes and colors of those that are moved and of their goals.

Plain data. Every kind has designs and colors to train on, and others that are never trained on. Lengths are in meters.
The origin of a movable thing is at its grip, that of a fixed one is on the table under its center; x is along a thing's
length, y across it, where the gripper closes on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Color = tuple[float, float, float]
Shape = Literal["box", "ellipsoid", "cylinder", "capsule"]

COLORS: dict[str, Color] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.25, 0.90),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.55, 0.15, 0.75),
    "cyan": (0.10, 0.80, 0.85),
}
UNSEEN_SHADES: dict[str, tuple[Color, ...]] = {  # darker and paler ones of the same name
    "red": ((0.60, 0.03, 0.06), (0.95, 0.32, 0.28)),
    "green": ((0.04, 0.42, 0.10), (0.42, 0.80, 0.30)),
    "blue": ((0.06, 0.12, 0.55), (0.35, 0.50, 0.98)),
    "yellow": ((0.78, 0.68, 0.04), (1.00, 0.94, 0.48)),
    "purple": ((0.40, 0.10, 0.52), (0.70, 0.42, 0.88)),
    "cyan": ((0.04, 0.56, 0.62), (0.48, 0.92, 0.94)),
}
CUBE_SIZE = 0.040  # edge: fits the gripper's 30–74 mm opening with 17 mm of clearance on each side
GRASP_HEIGHT = 0.020  # of the gripper's tip above what the thing lies on
LEAF: Color = (0.15, 0.50, 0.12)
WHITE: Color = (0.93, 0.93, 0.92)


@dataclass(frozen=True)
class Part:
    """One primitive.

    Attributes:
        size: half sizes as in MuJoCo.
        at, turned: its center, and roll, pitch, yaw [rad], in the frame of the thing.
        paint: its own color, or a factor of the thing's color.
    """

    shape: Shape
    size: tuple[float, ...]
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turned: tuple[float, float, float] = (0.0, 0.0, 0.0)
    paint: Color | float = 1.0


@dataclass(frozen=True)
class Design:
    """The geometry of a thing.

    Attributes:
        collision: collision geometry; mostly boxes, so that nothing rolls away. It is visible if `visual` is empty.
        visual: visual geometry.
        extent: (x from, x to, half width in y) of the area that it covers on the table.
        rest: height of the origin above what it lies on.
        top: of a goal: height above the table of what lies on it.
        drop: of a goal: height above rest at which a thing is released.
        inside: of a goal: half extents in x and y within which the center of a thing counts as on or in it.
    """

    collision: tuple[Part, ...]
    visual: tuple[Part, ...]
    extent: tuple[float, float, float]
    rest: float = 0.0
    top: float = 0.0
    drop: float = 0.002
    inside: tuple[float, float] = (0.0, 0.0)

    @property
    def grip(self) -> float:
        """Height of the gripper's tip above the origin when it takes the thing."""
        return GRASP_HEIGHT - self.rest


@dataclass(frozen=True)
class Kind:
    """Things of one name. Cubes have the named COLORS instead of `colors`."""

    movable: bool
    designs: tuple[Design, ...]
    unseen_designs: tuple[Design, ...]
    colors: tuple[Color, ...] = ()
    unseen_colors: tuple[Color, ...] = ()


def cube(edge: float = CUBE_SIZE) -> Design:
    half = edge / 2
    return Design((Part("box", (half, half, half)),), (), (-half, half, half), half, edge, inside=(half, half))


def spoon(bowl: tuple[float, float] = (0.030, 0.021), handle: float = 0.075, thick: float = 0.006) -> Design:
    """A bowl, grasped across its width, with a handle along +x."""
    long, wide, deep = *bowl, 0.014
    end = long + handle
    collision = (
        Part("box", (long - 0.007, wide - 0.001, deep)),
        Part("box", (handle / 2, thick, thick), (long - 0.007 + handle / 2, 0, thick - deep)),
    )
    visual = (
        Part("ellipsoid", (long, wide, deep)),
        Part("ellipsoid", (long - 0.008, wide - 0.007, 0.004), (0, 0, deep - 0.003), paint=0.55),
        Part("box", (handle / 2, thick, thick * 0.7), (end - handle / 2 - 0.004, 0, thick - deep)),
        Part("ellipsoid", (0.013, thick * 1.6, thick * 0.8), (end - 0.008, 0, thick - deep)),
    )
    return Design(collision, visual, (-long, end + 0.005, wide), deep)


def carrot(thick: float = 0.020, length: float = 0.075) -> Design:
    """A root that tapers along +x, with leaves at its thick end, where it is grasped."""
    collision = (
        Part("box", (0.024, thick - 0.001, thick)),
        Part("box", (length * 0.33, thick * 0.5, thick * 0.5), (length * 0.55, 0, -thick * 0.5)),
    )
    root = tuple(
        Part("ellipsoid", (length * reach, thick * share, thick * share), (length * at, 0, thick * (share - 1)))
        for at, reach, share in ((0.0, 0.42, 1.0), (0.36, 0.40, 0.72), (0.68, 0.34, 0.42))
    )
    leaves = tuple(
        Part("capsule", (0.0055, 0.016), (-length * 0.42 - 0.012, y, lift), (0, 1.35, turn), LEAF)
        for y, lift, turn in ((0.0, 0.004, 0.0), (0.010, 0.0, -0.6), (-0.010, 0.0, 0.6))
    )
    return Design(collision, root + leaves, (-length * 0.42 - 0.03, length * 1.02, thick), thick)


def eggplant(thick: float = 0.0215, length: float = 0.030) -> Design:
    """A belly, where it is grasped, that narrows along -x to a neck with a green cap."""
    neck = length + 0.004
    collision = (
        Part("box", (length - 0.006, thick - 0.001, thick)),
        Part("box", (0.016, thick * 0.62, thick * 0.62), (-neck + 0.004, 0, -thick * 0.38)),
    )
    visual = (
        Part("ellipsoid", (length + 0.004, thick, thick)),
        Part("ellipsoid", (0.028, thick * 0.70, thick * 0.70), (-neck + 0.006, 0, -thick * 0.30)),
        Part("ellipsoid", (0.010, thick * 0.62, thick * 0.62), (-neck - 0.014, 0, -thick * 0.30), paint=LEAF),
        Part("capsule", (0.004, 0.007), (-neck - 0.027, 0, -thick * 0.2), (0, 1.57, 0), LEAF),
    )
    return Design(collision, visual, (-neck - 0.038, length + 0.004, thick), thick)


def towel(long: float = 0.070, wide: float = 0.060) -> Design:
    """A cloth with a stripe along both ends."""
    cloth = Part("box", (long, wide, 0.002), (0, 0, 0.002))
    stripes = tuple(
        Part("box", (0.006, wide, 0.0004), (side * (long - at), 0, 0.0042), paint=shade)
        for side in (-1, 1)
        for at, shade in ((0.014, 0.55), (0.032, 0.75))
    )
    fit = (long - 0.010, wide - 0.010)
    return Design((cloth,), (cloth, *stripes), (-long, long, wide), top=0.004, inside=fit)


def plate(radius: float = 0.064) -> Design:
    """A round plate with a colored rim."""
    disc = Part("cylinder", (radius, 0.004), (0, 0, 0.004))
    visual = (disc, Part("cylinder", (radius - 0.013, 0.0004), (0, 0, 0.0082), paint=WHITE))
    fit = 0.6 * radius  # the corners of that square are within the rim
    return Design((disc,), visual, (-radius, radius, radius), top=0.008, inside=(fit, fit))


def basket(long: float = 0.074, wide: float = 0.062, high: float = 0.034) -> Design:
    """An open box; `long` and `wide` are its inner half extents."""
    wall, half = 0.004, high / 2
    floor = Part("box", (long, wide, 0.0015), (0, 0, 0.0015), paint=0.6)
    walls = tuple(
        part
        for side in (-1, 1)
        for part in (
            Part("box", (wall / 2, wide + wall, half), (side * (long + wall / 2), 0, half)),
            Part("box", (long, wall / 2, half), (0, side * (wide + wall / 2), half)),
        )
    )
    bands = tuple(  # of its weave
        part
        for side in (-1, 1)
        for level in (0.30, 0.75)
        for part in (
            Part("box", (0.0006, wide + wall, 0.003), (side * (long + wall), 0, high * level), paint=0.65),
            Part("box", (long + wall, 0.0006, 0.003), (0, side * (wide + wall), high * level), paint=0.65),
        )
    )
    collision, reach = (floor, *walls), (long + wall, wide + wall)
    return Design(collision, collision + bands, (-reach[0], *reach), top=0.003, drop=high + 0.010, inside=(long, wide))


KINDS: dict[str, Kind] = {
    "cube": Kind(True, (cube(),), (cube(0.036), cube(0.045))),
    "spoon": Kind(
        True,
        (spoon(), spoon((0.027, 0.022), 0.065, 0.007)),
        (spoon((0.033, 0.020), 0.085, 0.005), spoon((0.026, 0.023), 0.055, 0.009)),
        ((0.78, 0.78, 0.80), (0.62, 0.42, 0.22), (0.30, 0.52, 0.32), (0.20, 0.55, 0.60)),
        ((0.88, 0.40, 0.55), (0.25, 0.42, 0.72)),
    ),
    "carrot": Kind(
        True,
        (carrot(), carrot(0.0185, 0.085)),
        (carrot(0.022, 0.060), carrot(0.0180, 0.098)),
        ((0.95, 0.45, 0.08), (0.90, 0.38, 0.05), (0.98, 0.55, 0.15)),
        ((0.78, 0.28, 0.12), (0.97, 0.72, 0.28)),
    ),
    "eggplant": Kind(
        True,
        (eggplant(), eggplant(0.0200, 0.036)),
        (eggplant(0.0230, 0.026), eggplant(0.0190, 0.042)),
        ((0.32, 0.09, 0.38), (0.40, 0.13, 0.46), (0.25, 0.07, 0.24)),
        ((0.14, 0.10, 0.17), (0.58, 0.36, 0.66)),
    ),
    "towel": Kind(
        False,
        (towel(), towel(0.065, 0.065)),
        (towel(0.080, 0.056), towel(0.056, 0.070)),
        ((0.82, 0.50, 0.52), (0.50, 0.66, 0.84), (0.92, 0.87, 0.72), (0.55, 0.70, 0.56)),
        ((0.56, 0.44, 0.72), (0.90, 0.62, 0.25)),
    ),
    "plate": Kind(
        False,
        (plate(), plate(0.060)),
        (plate(0.056), plate(0.070)),
        ((0.22, 0.42, 0.78), (0.72, 0.73, 0.76), (0.72, 0.26, 0.22)),
        ((0.22, 0.56, 0.36), (0.25, 0.22, 0.24)),
    ),
    "basket": Kind(
        False,
        (basket(), basket(0.070, 0.066)),
        (basket(0.080, 0.062), basket(0.070, 0.064, 0.044)),
        ((0.86, 0.66, 0.22), (0.62, 0.42, 0.22), (0.82, 0.77, 0.66)),
        ((0.40, 0.58, 0.80), (0.80, 0.40, 0.38)),
    ),
}
# All names in instructions and labels.
NAMES = (*(f"{color} cube" for color in COLORS), *(kind for kind in KINDS if kind != "cube"))
