# SPDX-License-Identifier: Apache-2.0
"""The exceptions of this package, and how several of them are said at once."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class EmbodimentError(ValueError):
    """A description (URDF, xacro or YAML) is wrong; the message names what is wrong, its value and the remedy."""


class Problems:
    """Collects what is wrong with a description, so that all of it is said at once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._found: dict[str, None] = {}  # in order; what is found twice is said once

    def check(self, function: Callable[..., T], *arguments: object) -> T | None:
        """Return what a function returns, or None when it raises EmbodimentError, which is kept."""
        try:
            return function(*arguments)
        except EmbodimentError as error:
            self._found[str(error)] = None
            return None

    def refuse_any(self, what: str) -> None:
        """Raise EmbodimentError when there was any; `what` is wrong where there are several."""
        if len(self._found) == 1:
            raise EmbodimentError(*self._found)
        if self._found:
            raise EmbodimentError("\n  ".join([f"{what} has {len(self._found)} problems:", *self._found]))


class ResourceError(FileNotFoundError):
    """A file that ships with the suite is missing; the message names every place that was searched."""


class KinematicsError(ValueError):
    """A pose cannot be reached.

    Attributes:
        step: index of the pose in the requested path (0 for a single pose).
        error: remaining position error of the best configuration found [m].
        rotation_error: remaining rotation error of the best configuration found [rad].
    """

    def __init__(self, message: str, step: int, error: float, rotation_error: float) -> None:
        """Store where the path failed and by how much."""
        super().__init__(message, step, error, rotation_error)  # all of them, so that it can be pickled
        self.step = step
        self.error = error
        self.rotation_error = rotation_error

    def __str__(self) -> str:
        """Return the message alone."""
        return self.args[0]
