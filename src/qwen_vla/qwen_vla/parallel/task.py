# SPDX-License-Identifier: Apache-2.0
"""What a worker process does with an item, whatever has started the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """The work failed in its process, or the process died; the message gives the reason."""


def require_here(file: Path) -> None:
    """WorkerError if a file that a worker has written is on the disk of another machine."""
    if not file.exists():
        raise WorkerError(
            f"{file} was written on another machine; with --engine ray, --out must be a folder that all machines share"
        )


_states: dict[str, Any] = {}  # at most one: that of the call that this process works for


def perform(call: str, prepare: Callable[[], State], work: Callable[[State, Item], Result], item: Item) -> Result:
    """`work(state, item)`; the state is made once for every `call`, an identifier. WorkerError if anything fails."""
    try:
        if call not in _states:
            _states.clear()
            _states[call] = prepare()
        return work(_states[call], item)
    except Exception as error:  # any error, as a type that can be pickled
        raise WorkerError(str(error) or type(error).__name__) from error
