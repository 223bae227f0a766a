"""What a judge sees of a task: whether it is done, how far it is, and why it is not done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

# Kinds of scenes that nothing was trained on: each is the usual scene with one thing changed.
Shift = Literal["colour", "instance", "position", "background", "instruction", "dynamic"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)
# Plays in an environment from an observation and its info on, before an expert takes over; returns the last ones.
Lead = Callable[[Any, dict, dict], tuple[dict, dict]]


@dataclass(frozen=True)
class TaskState:
    """State of the task at one moment.

    Attributes:
        instruction: the sentence of the episode.
        task: name of the task within its suite, for instance "pick_cube".
        target: what the sentence names, for instance "red cube".
        success: it is done.
        distance: from the tip, or the base, to where it has to go next [m].
        failure: how far it got, as a category for statistics ("not touched", "dropped"); empty when it is done.
        metrics: further figures of the suite by name, for instance spl.
    """

    instruction: str
    task: str
    target: str
    success: bool
    distance: float
    failure: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


def shift_of(name: str | None) -> Shift | None:
    """The shift of that name; None for None and "". ValueError lists the known ones."""
    if name and name not in SHIFTS:
        raise ValueError(f"unknown shift {name!r}; choose one of: {', '.join(SHIFTS)}, or none")
    return name or None
