"""How a launch ends: nobody is left behind, a part that died gives a code other than 0, and controllers go last.

Whatever ends the process of `ros2 launch` itself, kill -9 included, the kernel ends the processes that it started
(Linux; elsewhere they stay).
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
    """Processes ended with a code other than 0 before the launch was over; the message names them."""


def with_launch(own_group: bool = False) -> list[SomeSubstitutionsType]:
    """Prefix of a command: it ends when the launch does.

    Args:
        own_group: Ctrl-C in the terminal does not reach it; `last` ends it.
    """
    bound = ["setpriv", "--pdeathsig", "INT" if own_group else "TERM"] if shutil.which("setpriv") else []
    words = [*bound, *(["setsid"] if own_group and shutil.which("setsid") else [])]
    return [" ".join([*words, ""]), LaunchConfiguration("launch-prefix", default="")]


def end_with(what: str, only_failed: bool = False) -> Callable[[ProcessExited, LaunchContext], Shutdown | None]:
    """Handler for `on_exit`: without this process nothing is left to do. During a shutdown its exit is no news."""

    def handler(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        expected = context.is_shutdown or (only_failed and event.returncode == 0)
        return None if expected else Shutdown(reason=f"{what} ended")

    return handler


def last(processes: Sequence[Node], first: Node) -> list[RegisterEventHandler]:
    """Ends processes in their own group as soon as another one has ended in a shutdown: it brings the robot to rest."""

    def handler(event: ProcessExited, context: LaunchContext) -> list[EmitEvent]:
        if not context.is_shutdown:
            return []
        return [
            EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(process)))
            for process in processes
        ]

    return [RegisterEventHandler(OnProcessExit(target_action=first, on_exit=handler))]


def exit_code() -> LaunchDescriptionEntity:
    """Makes the launch return 1, and say why, where a part died before the shutdown."""
    died: list[str] = []

    def note(event: ProcessExited, context: LaunchContext) -> None:
        if event.returncode and not context.is_shutdown:
            died.append(f"{event.process_name} ended with code {event.returncode}")

    def report(event: ShutdownEvent, context: LaunchContext) -> None:
        if died:
            raise PartDied("; ".join(died))

    def register(context: LaunchContext) -> None:
        context.register_event_handler(OnProcessExit(on_exit=note))
        # After all others: an exception ends the round of handlers, and those of the processes end them.
        context.register_event_handler(OnShutdown(on_shutdown=report), append=True)

    return OpaqueFunction(function=register)
