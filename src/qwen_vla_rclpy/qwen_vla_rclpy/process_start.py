# SPDX-License-Identifier: Apache-2.0
"""The start of a node's process: what ROS refuses of its command line ends it in one line, with exit code 2."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import rclpy
from rclpy.exceptions import ParameterException

_PLACES = re.compile(r",? at /\S+:\d+")  # in the sources of rcl


def init(args: list[str] | None, **options: Any) -> None:
    """`rclpy.init`; SystemExit for arguments that ROS cannot read, such as -p without a value."""
    try:
        rclpy.init(args=args, **options)
    except RuntimeError as error:  # what rcl and rmw raise has no public type of its own
        if "parse" not in str(error) and "unknown" not in str(error).lower():
            raise
        _end(str(error).removeprefix("failed to initialize rcl: "))


@contextmanager
def checked_parameters() -> Iterator[None]:
    """Around a node's construction: SystemExit for a parameter of the wrong type, or outside its range."""
    try:
        yield
    except ParameterException as error:
        _end(str(error))


def _end(reason: str) -> NoReturn:
    name = Path(sys.argv[0]).name
    print(f"{name}: {' '.join(_PLACES.sub('', reason).split())}; see {name} --help", file=sys.stderr)
    raise SystemExit(2)
