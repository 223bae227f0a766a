"""What a judge sees of a task: whether it is done, how far it is, and why it is not done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
