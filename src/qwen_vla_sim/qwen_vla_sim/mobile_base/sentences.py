"""What the base is told: instructions with one and two legs, those trained on and others held out."""

from __future__ import annotations

TASKS = ("go_to_object", "leave_room", "two_legs")

TRAINED: dict[str, tuple[str, ...]] = {
    "go_to_object": (
        "go to the {thing}",
        "drive to the {thing}",
        "move to the {thing}",
        "find the {thing} and stop there",
    ),
    "leave_room": (
        "leave the room",
        "go out of the room",
        "drive through the door",
        "leave through the door and stop",
    ),
    "two_legs": (
        "leave the room, then go to the {thing}",
        "go out of the room and drive to the {thing}",
        "drive through the door, then find the {thing}",
        "leave the room and stop at the {thing}",
    ),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "go_to_object": (
        "to the {thing}, go",
        "drive until the {thing} is there",
        "stop in front of the {thing}",
    ),
    "leave_room": (
        "out of the room, through the door",
        "get out of this room",
        "find the door and go out",
    ),
    "two_legs": (
        "go to the {thing} when out of the room",
        "out through the door, and then to the {thing}",
        "the {thing} is outside, drive there",
    ),
}
