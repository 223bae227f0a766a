# SPDX-License-Identifier: Apache-2.0
"""The simulator's side of a public benchmark. It runs in the benchmark's own environment and needs only NumPy.

    the benchmark's environment                              ours
    World ◄── serve_world ◄──── a socket ────► WorldProcess ◄── episodes, demonstrations

Requests and replies are plain Python values; arrays travel as bytes, because a pickled array of NumPy 2 may not load
in NumPy 1.
"""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

ARRAY = "ndarray"  # first element of an array's tuple
METHODS = ("start", "execute", "demonstrate", "take_over", "snapshot")


class World(Protocol):
    """The simulator of one benchmark.

    An observation is {"images": {tag: (H, W, 3) uint8 RGB}, "state": (s,) in the order of the embodiment's joints or
    None, "instruction": str}.
    """

    def start(self, task: str, start: int) -> dict:
        """Reset to start state number `start` of a task; returns the first observation."""
        ...

    def execute(self, rows: np.ndarray, film: bool) -> dict:
        """Execute rows (N, channels) of a chunk, until success or the end of the episode.

        Returns {"observation", "success": bool, "over": bool, "seconds": simulated time since the start, "failure": how
        far it got, empty on success, "distance": from the goal [m], "looks": [{"seconds", "images"}, …] of every row,
        if `film`, "elapsed": share of the longest episode, "free": whether the expert can take over here, with an
        empty hand and something to do}. `over` is true on success, too.
        """
        ...

    def demonstrate(self, task: str, start: int, size: list[int] | None) -> dict:
        """Run the scripted expert: {"success": bool, "instruction": str, "frames": {column: (N, …)}}.

        size: height and width of the images observation.images.TAG; None: the frames have none.
        """
        ...

    def take_over(self, size: list[int] | None) -> dict:
        """The same from where `execute` has led, with the time of a new episode and undisturbed."""
        ...

    def snapshot(self, task: str, start: int, size: list[int]) -> dict:
        """One labeled frame from the first part of the expert's work, as `demonstrate` returns many.

        Only worlds whose images are labeled have it; where things are is learned from many start states, and a frame
        costs a fraction of a demonstration.
        """
        ...


def serve_world(world: World) -> None:
    """Answer requests on the socket whose descriptor is the last argument of this process, until it is closed."""
    with Connection(int(sys.argv[-1])) as connection:
        while (request := _received(connection)) is not None:
            try:
                connection.send(_answer(world, *request))
            except BrokenPipeError:
                return  # the caller was interrupted meanwhile


def sendable(value: Any) -> Any:
    """A value whose arrays are tuples of plain types, at any depth."""
    if isinstance(value, np.ndarray):
        return ARRAY, value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: sendable(each) for key, each in value.items()}
    return [sendable(each) for each in value] if isinstance(value, (list, tuple)) else value


def received(value: Any) -> Any:
    """The inverse of `sendable`; arrays are writable."""
    if isinstance(value, tuple) and value and value[0] == ARRAY:
        _, dtype, shape, content = value
        return np.frombuffer(bytearray(content), dtype).reshape(shape)
    if isinstance(value, dict):
        return {key: received(each) for key, each in value.items()}
    return [received(each) for each in value] if isinstance(value, list) else value


def _received(connection: Connection) -> tuple | None:
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None  # the caller is done, or gone


def _answer(world: World, method: str, arguments: list) -> tuple[str, Any]:
    """("result", value), or ("error", the traceback): the caller decides what a failed request means."""
    try:
        if method not in METHODS:
            raise ValueError(f"a world has no method {method!r}; it has {', '.join(METHODS)}")
        return "result", sendable(getattr(world, method)(*received(arguments)))
    except Exception:  # any error of the simulator is the caller's to handle
        return "error", traceback.format_exc()


def use_software_rendering() -> None:
    """Render off-screen, in one thread: each of several simulators would else start one per core."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ["LP_NUM_THREADS"] = "1"
