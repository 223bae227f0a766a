# SPDX-License-Identifier: Apache-2.0
"""How a launch ends: no process is left behind, a process that died causes an exit code other than 0, controllers last.

However the process of `ros2 launch` itself ends, even by kill -9, the kernel ends the processes that it started (Linux
only; on other systems they stay).
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence

from launch import LaunchContext, LaunchDescriptionEntity, SomeSubstitutionsType
from launch.actions import EmitEvent, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.events import Shutdown as ShutdownEvent
from launch.events import matches_action
from launch.events.process import ProcessExited, SignalProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


class PartDied(RuntimeError):
    """Processes exited with a code other than 0 before the shutdown; the message names them."""


def with_launch(own_group: bool = False) -> list[SomeSubstitutionsType]:
    """Prefix of a command: it ends together with the launch.

    Args:
        own_group: it does not receive Ctrl-C of the terminal; `last` ends it.
    """
    bound = ["setpriv", "--pdeathsig", "INT" if own_group else "TERM"] if shutil.which("setpriv") else []
    words = [*bound, *(["setsid"] if own_group and shutil.which("setsid") else [])]
    return [" ".join([*words, ""]), LaunchConfiguration("launch-prefix", default="")]


def end_with(what: str, only_failed: bool = False) -> Callable[[ProcessExited, LaunchContext], Shutdown | None]:
    """Handler for `on_exit`: shuts down, as nothing works without this process. Does nothing during a shutdown."""

    def handler(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        expected = context.is_shutdown or (only_failed and event.returncode == 0)
        return None if expected else Shutdown(reason=f"{what} ended")

    return handler


def last(processes: Sequence[Node], first: Node) -> list[RegisterEventHandler]:
    """End processes in their own group once another one, which brings the robot to rest, has exited in a shutdown."""

    def handler(event: ProcessExited, context: LaunchContext) -> list[EmitEvent]:
        if not context.is_shutdown:
            return []
        return [
            EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(process)))
            for process in processes
        ]

    return [RegisterEventHandler(OnProcessExit(target_action=first, on_exit=handler))]


def exit_code() -> LaunchDescriptionEntity:
    """Make the launch return 1, and print why, if a process died before the shutdown."""
    died: list[str] = []

    def note(event: ProcessExited, context: LaunchContext) -> None:
        if event.returncode and not context.is_shutdown:
            died.append(f"{event.process_name} exited with code {event.returncode}")

    def report(event: ShutdownEvent, context: LaunchContext) -> None:
        if died:
            raise PartDied("; ".join(died))

    def register(context: LaunchContext) -> None:
        context.register_event_handler(OnProcessExit(on_exit=note))
        # After all others: an exception ends the round of handlers, and those of the processes end them.
        context.register_event_handler(OnShutdown(on_shutdown=report), append=True)

    return OpaqueFunction(function=register)
