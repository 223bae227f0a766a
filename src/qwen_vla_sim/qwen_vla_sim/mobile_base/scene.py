"""What a seed decides about a room and the hall behind its door: sizes, colours, furniture, start and sentence.

Free of MuJoCo. The frame of the world has its origin where the middle of the wall between room and hall stands: the
room lies at x < 0, the hall at x > 0, y is left. Every room has a coloured floor, every hall a grey one, and a dark mat
lies in the hall before the door: where the base is can be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qwen_vla_sim.mobile_base.furniture import FURNITURE, RGB, UNCOLOURED, Furniture
from qwen_vla_sim.mobile_base.sentences import HELD_OUT, TASKS, TRAINED

COLOURS: dict[str, RGB] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.25, 0.90),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.55, 0.15, 0.75),
}
UNSEEN_COLOURS: dict[str, RGB] = {"orange": (0.95, 0.50, 0.05), "cyan": (0.10, 0.80, 0.85), "pink": (0.95, 0.45, 0.70)}
# Floor and wall of the room; the hall is always grey and white.
ROOMS: tuple[tuple[RGB, RGB], ...] = (
    ((0.76, 0.62, 0.42), (0.88, 0.82, 0.70)),
    ((0.50, 0.66, 0.45), (0.76, 0.86, 0.72)),
    ((0.72, 0.42, 0.32), (0.90, 0.74, 0.66)),
    ((0.42, 0.58, 0.75), (0.74, 0.82, 0.92)),
    ((0.62, 0.50, 0.72), (0.84, 0.76, 0.90)),
    ((0.80, 0.74, 0.35), (0.93, 0.90, 0.66)),
)
UNSEEN_ROOMS: tuple[tuple[RGB, RGB], ...] = (
    ((0.30, 0.58, 0.56), (0.64, 0.82, 0.80)),
    ((0.78, 0.52, 0.60), (0.92, 0.78, 0.82)),
    ((0.45, 0.32, 0.24), (0.70, 0.60, 0.50)),
)
ROOM_EDGE, HALL_EDGE = (2.8, 3.6), (2.7, 3.5)  # inner edges of either [m]
WALL = 0.1  # thickness of walls [m]
DOOR_WIDTH = 0.9  # the base is 0.31 m wide
DOOR_OFFSET, UNSEEN_DOOR_OFFSET = (0.0, 0.5), (0.6, 0.8)  # of the door from the middle of its wall, either way [m]
MAT_DEPTH = 0.6  # of the mat in the hall, as wide as the door [m]
IN_ROOM, IN_HALL = 3, 2  # things in either
FROM_WALL = (0.36, 0.75)  # centre of a thing to the wall that is nearest to it [m]
FROM_WALL_UNSEEN = 1.05  # to all walls: in the middle
APART = 1.3  # centres of two things [m]: who stops at the one has not reached the other
DOORWAY = (1.1, 0.75)  # depth and half width of what is kept free on both sides of the door [m]
SIGHT = 0.12  # around a line of sight and between a start and things no less than this is free [m]
START_FROM_WALL, START_FROM_THING = 0.42, 0.50  # centre of the base to walls and to the rim of things [m]
LEAST_WAY = 0.9  # from the start to the rim of the target [m]
DRIFT_SPEED = 0.05  # of a target that moves [m/s]
DRIFT = 0.35  # to either side of where it begins [m]
TRIES = 400


@dataclass(frozen=True)
class Thing:
    """A piece of furniture: where it stands [m, rad] in the frame of the world. instance: index into FURNITURE[kind].

    drift: direction in which it moves, of length 1; None: it stands still.
    """

    kind: str
    colour: str | None
    x: float
    y: float
    yaw: float
    instance: int = 0
    drift: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}" if self.colour else self.kind

    @property
    def form(self) -> Furniture:
        return FURNITURE[self.kind][self.instance]

    @property
    def rgb(self) -> RGB | None:
        return (COLOURS | UNSEEN_COLOURS)[self.colour] if self.colour else None

    def place_at(self, time: float) -> np.ndarray:
        """(2,) where it is [m] `time` [s] after the start: to and fro between the ends of its drift."""
        place = np.array([self.x, self.y])
        if self.drift is None:
            return place
        phase = (time * DRIFT_SPEED / DRIFT) % 4.0
        return place + DRIFT * (phase if phase < 1 else 2 - phase if phase < 3 else phase - 4) * np.array(self.drift)


@dataclass(frozen=True)
class Scene:
    """Everything that a seed decides. Lengths in m, angles in rad, light intensities in 0..1.

    room, hall: inner size along x and y; both are centred on y = 0. door: y of its middle. target: index into `things`,
    None when the sentence names none. start: x, y, heading.
    """

    seed: int
    task: str
    instruction: str
    sentence: str
    room: tuple[float, float]
    hall: tuple[float, float]
    door: float
    things: tuple[Thing, ...]
    target: int | None
    start: tuple[float, float, float]
    room_floor: RGB
    room_wall: RGB
    hall_floor: RGB
    hall_wall: RGB
    light_intensity: float
    light_direction: tuple[float, float, float]

    @property
    def target_name(self) -> str:
        """What the base is to reach in the end."""
        return "door" if self.target is None else self.things[self.target].name

    def with_things_at(self, places: np.ndarray) -> Scene:
        """The same scene with its things at `places` (n, 2)."""
        moved = zip(self.things, np.asarray(places).tolist(), strict=True)
        return replace(self, things=tuple(replace(thing, x=x, y=y) for thing, (x, y) in moved))

    def instruction_for(self, thing: int) -> str:
        """The sentence with another thing named; from the room it is to be left for it only if it is in the hall."""
        task = "two_legs" if self.task != "go_to_object" and in_hall(self.things[thing]) else "go_to_object"
        sentence = self.sentence if task == self.task else TRAINED[task][self.seed % len(TRAINED[task])]
        return sentence.format(thing=self.things[thing].name)


def in_hall(thing: Thing) -> bool:
    """Whether a thing stands in the hall."""
    return thing.x > 0


def sample_scene(seed: int, shift: str | None = None) -> Scene:
    """The scene of a seed; the same seed gives the same scene on every machine (NumPy's PCG64).

    shift: what is to be as it never is in training; see `qwen_vla.suites.Shift`.
    """
    rng = np.random.default_rng(seed)
    task = TASKS[seed % len(TASKS)]
    while True:
        scene = _attempt(rng, seed, task, shift)
        if scene is not None:
            return scene


def sample_start(rng: np.random.Generator, scene: Scene, hall: bool, far: float = LEAST_WAY) -> tuple | None:
    """A pose (x, y, heading) from which what is to be reached first is seen after turning; None if none was found."""
    low, high = space(scene, hall)
    goal = np.array([0.0, scene.door]) if scene.target is None or hall != in_hall(scene.things[scene.target]) else None
    for _ in range(TRIES):
        place = rng.uniform(low + START_FROM_WALL, high - START_FROM_WALL)
        rims = [np.hypot(*(place - (t.x, t.y))) - t.form.radius for t in scene.things]
        if min(rims) < START_FROM_THING:
            continue
        if goal is None:
            if rims[scene.target] >= far and sees(scene, place, scene.target):
                break
        elif np.hypot(*(place - goal)) >= 0.8 and sees(scene, place, None):
            break
    else:
        return None
    return (float(place[0]), float(place[1]), float(rng.uniform(-np.pi, np.pi)))


def space(scene: Scene, hall: bool) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest x and y [m] between the walls of the room or of the hall."""
    depth, width = scene.hall if hall else scene.room
    near, far = WALL / 2, WALL / 2 + depth
    x = (near, far) if hall else (-far, -near)
    return np.array([x[0], -width / 2]), np.array([x[1], width / 2])


def sees(scene: Scene, place: np.ndarray, thing: int | None) -> bool:
    """Whether no other thing stands between a place (2,) and a thing, None: the door; walls do not count."""
    end = np.array([0.0, scene.door]) if thing is None else np.array([scene.things[thing].x, scene.things[thing].y])
    way = end - place
    for other, t in enumerate(scene.things):
        if other == thing:
            continue
        share = np.clip((np.array([t.x, t.y]) - place) @ way / max(way @ way, 1e-9), 0, 1)
        if np.hypot(*(place + share * way - (t.x, t.y))) < t.form.radius + SIGHT:
            return False
    return True


def _attempt(rng: np.random.Generator, seed: int, task: str, shift: str | None) -> Scene | None:
    room, hall = rng.uniform(*ROOM_EDGE, 2), rng.uniform(*HALL_EDGE, 2)
    offset = rng.uniform(*(UNSEEN_DOOR_OFFSET if shift == "position" else DOOR_OFFSET))
    target = _target(rng, task)
    floor, wall = _pick(rng, UNSEEN_ROOMS if shift == "background" else ROOMS)
    grey, white = rng.uniform(0.50, 0.66), rng.uniform(0.84, 0.94)
    light = rng.uniform(0.35, 0.5) if shift == "background" else rng.uniform(0.6, 0.9)
    scene = Scene(
        seed=seed,
        task=task,
        instruction="",
        sentence=str(_pick(rng, (HELD_OUT if shift == "instruction" else TRAINED)[task])),
        room=tuple(room.tolist()),
        hall=tuple(hall.tolist()),
        door=float(offset * rng.choice([-1, 1])),
        things=_things(rng, target, shift),
        target=target,
        start=(0.0, 0.0, 0.0),
        room_floor=_tinted(rng, floor),
        room_wall=_tinted(rng, wall),
        hall_floor=_tinted(rng, (grey,) * 3, 0.01),
        hall_wall=_tinted(rng, (white,) * 3, 0.01),
        light_intensity=float(light),
        light_direction=tuple(rng.uniform((-0.6, -0.6, -1.0), (0.6, 0.6, -0.6)).tolist()),
    )
    scene = _furnished(rng, scene, shift)
    if scene is None:
        return None
    in_the_hall = task == "go_to_object" and in_hall(scene.things[target])
    start = sample_start(rng, scene, in_the_hall)
    if start is None:
        return None
    return replace(scene, start=start, instruction=scene.sentence.format(thing=_phrase(rng, scene, shift)))


def _target(rng: np.random.Generator, task: str) -> int | None:
    """Index of the target: things in the room come first."""
    if task == "leave_room":
        return None
    hall = task == "two_legs" or rng.random() < 0.35
    return int(rng.integers(IN_ROOM, IN_ROOM + IN_HALL) if hall else rng.integers(IN_ROOM))


def _things(rng: np.random.Generator, target: int | None, shift: str | None) -> tuple[Thing, ...]:
    """Kinds and colours, no two with the same name, no kind more than twice; places come later.

    Whose colour is unseen is named by its kind alone, so that kind must be the only one.
    """
    palette = list(UNSEEN_COLOURS if shift == "colour" else COLOURS)
    while True:
        kinds = [str(_pick(rng, list(FURNITURE))) for _ in range(IN_ROOM + IN_HALL)]
        colours = [None if kind in UNCOLOURED else str(_pick(rng, palette)) for kind in kinds]
        names = set(zip(kinds, colours, strict=True))
        once = [kind for kind in kinds if kinds.count(kind) == 1]
        if len(names) < len(kinds) or any(kinds.count(kind) > 2 for kind in kinds):
            continue
        if shift == "colour" and target is not None and (kinds[target] not in once or colours[target] is None):
            continue
        instance = int(shift == "instance")
        yaws = rng.uniform(-np.pi, np.pi, len(kinds))
        return tuple(
            Thing(kind, colour, 0.0, 0.0, float(yaw), instance)
            for kind, colour, yaw in zip(kinds, colours, yaws, strict=True)
        )


def _furnished(rng: np.random.Generator, scene: Scene, shift: str | None) -> Scene | None:
    """Give every thing its place; None when they found none."""
    moving = None
    if shift == "dynamic":
        moving = int(rng.integers(IN_ROOM)) if scene.target is None else scene.target
    placed: list[Thing] = []
    for number, thing in enumerate(scene.things):
        middle = shift == "position" and number == scene.target
        low, high = space(scene, number >= IN_ROOM)
        for _ in range(TRIES // 4):
            place = rng.uniform(low, high)
            angle = rng.uniform(-np.pi, np.pi)
            drift = (float(np.cos(angle)), float(np.sin(angle))) if number == moving else None
            candidate = replace(thing, x=float(place[0]), y=float(place[1]), drift=drift)
            if _fits(scene, candidate, placed, low, high, middle):
                placed.append(candidate)
                break
        else:
            return None
    return replace(scene, things=tuple(placed))


def _fits(scene: Scene, thing: Thing, placed: list[Thing], low: np.ndarray, high: np.ndarray, middle: bool) -> bool:
    """Whether a thing may stand where it is, with all of its drift."""
    begin = np.array([thing.x, thing.y])
    near = float(min(np.minimum(begin - low, high - begin)))
    if near < FROM_WALL_UNSEEN if middle else not FROM_WALL[0] <= near <= FROM_WALL[1]:
        return False
    reach = [begin] if thing.drift is None else [begin + s * DRIFT * np.array(thing.drift) for s in (-1, 0, 1)]
    for place in reach:
        if min(np.minimum(place - low, high - place)) < FROM_WALL[0] - 0.05:
            return False
        if abs(place[0]) < DOORWAY[0] and abs(place[1] - scene.door) < DOORWAY[1]:
            return False
        if any(np.hypot(place[0] - other.x, place[1] - other.y) < APART for other in placed):
            return False
    return True


def _phrase(rng: np.random.Generator, scene: Scene, shift: str | None) -> str:
    """How the sentence calls the target: without its colour, sometimes, where only one is of that kind."""
    if scene.target is None:
        return ""
    thing = scene.things[scene.target]
    alone = sum(other.kind == thing.kind for other in scene.things) == 1
    if alone and (shift == "colour" or rng.random() < 0.35):
        return thing.kind
    return thing.name


def _pick(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


def _tinted(rng: np.random.Generator, rgb: RGB, spread: float = 0.04) -> RGB:
    return tuple(float(v) for v in np.clip(np.array(rgb) + rng.uniform(-spread, spread, 3), 0, 1))
