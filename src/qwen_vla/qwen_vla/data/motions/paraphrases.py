# SPDX-License-Identifier: Apache-2.0
"""Instructions for arm motions: many paraphrases that state a motion exactly.

Directions are words for the axes of the arm's base link (REP-103: forward is +x, left +y, up +z). Rotations and arcs
are described from a viewpoint, about an axis, or (rotations) by the direction in which the top of the tool leans.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qwen_vla.data.motions.motion_templates import Arc, Grip, Motion, Move, Reach, Return, Step, Turn

TOOLS = ("gripper", "hand", "tool", "end effector", "arm")
MOVE = (
    "move the {tool} {length} {way}",
    "move the {tool} {way} by {length}",
    "move {way} by {length}",
    "shift the {tool} {length} {way}",
    "slide the {tool} {way} by {length}",
    "bring the {tool} {length} {way}",
    "please go {length} {way}",
    "go {way} {length}",
    "translate the {tool} by {length} {along}",
    "the {tool} should move {length} {way}",
)
WAYS = {
    "forward": ("forward", "forwards", "ahead", "to the front"),
    "backward": ("backward", "backwards", "back", "to the rear"),
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upward", "upwards"),
    "down": ("down", "downward", "downwards"),
}
ALONG = {
    "forward": "in the positive x direction",
    "backward": "in the negative x direction",
    "left": "in the positive y direction",
    "right": "in the negative y direction",
    "up": "in the positive z direction",
    "down": "in the negative z direction",
}
TURN = (
    "turn the {tool} by {angle} {sense}",
    "rotate the {tool} {sense} by {angle}",
    "rotate the {tool} by {signed} about the {axis} axis",
    "turn the {tool} {signed} around the {axis} axis",
    "please rotate the {tool} {angle} {sense}",
    "{sense_first} by {angle}",
)
# Descriptions of a rotation by the right-hand rule: (positive, negative).
TURN_SENSE = {
    "x": ("so that its top leans right", "so that its top leans left"),
    "y": ("so that its top leans forward", "so that its top leans backward"),
    "z": ("counter-clockwise seen from above", "clockwise seen from above"),
}
TURN_FIRST = {
    "x": ("roll the top of the {tool} to the right", "roll the top of the {tool} to the left"),
    "y": ("tilt the top of the {tool} forward", "tilt the top of the {tool} backward"),
    "z": ("swivel the {tool} to the left", "swivel the {tool} to the right"),
}
REACH_PLACE = (
    "move the {tool} to the {depth} {side} of the workspace, {height}",
    "go to the {depth} {side} of the workspace, {height}",
    "bring the {tool} {height} over the {depth} {side} of the workspace",
    "reach for the {depth} {side} of the workspace, {height}",
)
HEIGHTS = {"low": "low", "high": "high"}
REACH_POINT = (
    "move the {tool} to x {x}, y {y}, z {z} {unit}",
    "go to the point ({x}, {y}, {z}) {unit}",
    "bring the {tool} to position x = {x}, y = {y}, z = {z} {unit}",
    "reach for ({x}, {y}, {z}) {unit} from the base",
)
ARC = (
    "draw {circle} of radius {length} around a point {where}, {sense}",
    "move the {tool} along {circle} with radius {length}, {sense}, centered {where}",
    "trace {circle} with radius {length} around a center {where}, {sense}",
    "follow {circle} {sense}; its center is {length} {where}",
)
CIRCLES = {
    90: ("a quarter circle", "a quarter of a circle", "an arc of 90 degrees"),
    180: ("a half circle", "half a circle", "an arc of 180 degrees"),
    360: ("a full circle", "a whole circle", "a circle of 360 degrees"),
}
WHERE = {
    "forward": ("in front of it", "ahead of it"),
    "backward": ("behind it",),
    "left": ("to the left of it", "left of it"),
    "right": ("to the right of it", "right of it"),
    "up": ("above it",),
    "down": ("below it",),
}
# Seen against the axis, a positive rotation is counter-clockwise, seen along it clockwise: (positive, negative).
ARC_SENSE = {
    "x": ("clockwise seen from behind the robot", "counter-clockwise seen from behind the robot"),
    "y": ("counter-clockwise seen from the robot's left", "clockwise seen from the robot's left"),
    "z": ("counter-clockwise seen from above", "clockwise seen from above"),
}
GRIP_OPEN = ("open the {jaw}", "open the {jaw} fully", "let go with the {jaw}", "release with the {jaw}")
GRIP_CLOSED = ("close the {jaw}", "close the {jaw} fully", "shut the {jaw}", "grip with the {jaw}")
GRIP_TO = (
    "set the {jaw} to {percent} percent open",
    "bring the {jaw} to {percent} % open",
    "set the opening of the {jaw} to {percent} %",
    "adjust the opening of the {jaw} to {percent} percent",
)
JAWS = ("gripper", "fingers", "jaws")
RETURN = ("come back to where you started", "return to the start", "go back to the starting point", "go straight back")
JOIN = (", then ", " and then ", ", after that ", ", next ")
PACES = {
    "quickly": ("quickly", "fast", "swiftly"),
    "slowly": ("slowly", "gently", "without haste"),
}
TIME = ("in {seconds} seconds", "within {seconds} s", "taking {seconds} seconds")
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()


def paraphrase(motion: Motion, arm_name: str | None, rng: np.random.Generator) -> str:
    """A random instruction for the motion, in lower case and without a final period.

    arm_name: word that distinguishes a robot's arms ("left"); None for a single arm.
    """
    words = _Words(rng, f"{arm_name} " if arm_name else "")
    parts = [words.step(step) for step in motion.steps]
    sentence = parts[0]
    for part in parts[1:]:
        sentence += words.one(JOIN) + part
    if motion.pace and rng.random() < 0.8:
        pace = words.one(PACES[motion.pace])
        sentence = f"{pace} {sentence}" if rng.random() < 0.5 else f"{sentence}, {pace}"
    if rng.random() < 0.2:
        sentence += ", " + words.one(TIME).format(seconds=f"{motion.duration:.1f}")
    return sentence


def corpus(arm_names: Iterable[str | None]) -> list[str]:
    """Every word of every instruction, for a tokenizer."""
    tables = [WAYS, ALONG, TURN_SENSE, TURN_FIRST, CIRCLES, WHERE, ARC_SENSE, PACES, HEIGHTS]
    texts = [
        text for table in tables for texts in table.values() for text in ([texts] if isinstance(texts, str) else texts)
    ]
    for templates in (MOVE, TURN, REACH_PLACE, REACH_POINT, ARC, GRIP_OPEN, GRIP_CLOSED, GRIP_TO, RETURN, JOIN, TIME):
        texts += templates
    texts += [
        "near far left center right low high over",
        "centimeters centimeter cm mm millimeters meters m degrees degree",
    ]
    texts += [
        " ".join((*TOOLS, *JAWS)),
        " ".join(NUMBERS),
        "a quarter turn, half a turn, a right angle, -1 2 3 4 5 6 7 8 9 0.5",
    ]
    return texts + [f"the {name} gripper" for name in arm_names if name]


class _Words:
    """Random choices for one instruction; `whose` is "left " or "" and goes before the tool."""

    def __init__(self, rng: np.random.Generator, whose: str) -> None:
        self.rng, self.whose = rng, whose

    def one(self, options) -> str:
        return options[int(self.rng.integers(len(options)))]

    def step(self, step: Step) -> str:
        return getattr(self, f"_{type(step).__name__.lower()}")(step)

    def _tool(self) -> str:
        return self.whose + self.one(TOOLS)

    def _move(self, step: Move) -> str:
        way, along = self.one(WAYS[step.direction]), ALONG[step.direction]
        template = self.one(MOVE if not self.whose else [text for text in MOVE if "{tool}" in text])
        return template.format(tool=self._tool(), length=self._length(step.centimeters), way=way, along=along)

    def _turn(self, step: Turn) -> str:
        negative = step.degrees < 0
        first = TURN_FIRST[step.axis][negative].format(tool=self._tool())
        return self.one(TURN).format(
            tool=self._tool(),
            angle=self._angle(abs(step.degrees)),
            signed=f"{step.degrees} degrees",
            axis=step.axis,
            sense=TURN_SENSE[step.axis][negative],
            sense_first=first,
        )

    def _reach(self, step: Reach) -> str:
        if step.place is not None:
            depth, side, height = step.place
            templates = REACH_PLACE if not self.whose else [text for text in REACH_PLACE if "{tool}" in text]
            return self.one(templates).format(tool=self._tool(), depth=depth, side=side, height=HEIGHTS[height])
        unit, scale = self.one((("cm", 1), ("centimeters", 1), ("mm", 10), ("m", 0.01)))
        x, y, z = (f"{value * scale:.2f}" if unit == "m" else str(value * scale) for value in step.point)
        templates = REACH_POINT if not self.whose else [text for text in REACH_POINT if "{tool}" in text]
        return self.one(templates).format(tool=self._tool(), x=x, y=y, z=z, unit=unit)

    def _arc(self, step: Arc) -> str:
        tool = self._tool()
        text = self.one(ARC).format(
            tool=tool,
            circle=self.one(CIRCLES[abs(step.degrees)]),
            length=self._length(step.centimeters),
            where=self.one(WHERE[step.center]),
            sense=ARC_SENSE[step.axis][step.degrees < 0],
        )
        return text if not self.whose or tool in text else f"with the {tool} {text}"

    def _grip(self, step: Grip) -> str:
        templates = {0: GRIP_CLOSED, 100: GRIP_OPEN}.get(step.percent, GRIP_TO)
        if step.percent in (0, 100) and self.rng.random() < 0.2:
            templates = GRIP_TO
        return self.one(templates).format(jaw=self.whose + self.one(JAWS), percent=step.percent)

    def _return(self, step: Return) -> str:
        return self.one(RETURN)

    def _length(self, centimeters: int) -> str:
        plural = "" if centimeters == 1 else "s"
        options = [f"{centimeters} cm", f"{centimeters} centimeter{plural}", f"{centimeters * 10} mm"]
        options += [f"{centimeters / 100:.2f} m", f"{centimeters} cm"]
        if centimeters < len(NUMBERS):
            options.append(f"{NUMBERS[centimeters]} centimeter{plural}")
        return self.one(options)

    def _angle(self, degrees: int) -> str:
        options = [f"{degrees} degrees"] * 3
        options += {90: ["a quarter turn", "a right angle"]}.get(degrees, [])
        return self.one(options)
