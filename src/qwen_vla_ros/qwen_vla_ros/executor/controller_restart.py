# SPDX-License-Identifier: Apache-2.0
"""Deactivates controllers and activates them again, through their controller manager: they then start where the joints
are. Nothing waits: answers come as callbacks of the node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from rclpy.task import Future

from qwen_vla_control.node_interface import Endpoint
from qwen_vla_rclpy.optional_interfaces import MissingInterface, interface
from qwen_vla_ros.executor.controller_watch import Controller
from qwen_vla_ros.ros.lifecycle import ManagedNode

SWITCH_TYPE = "controller_manager_msgs/srv/SwitchController"
SWITCH = Endpoint("<controller_manager>/switch_controller", SWITCH_TYPE, "Restarts a controller for ~/resynchronize")
PATIENCE = 5.0  # [s] steady; a controller manager that has not answered by then will not

Done = Callable[[bool, str], None]


class ControllerRestart:
    """Clients of the controller managers of one robot."""

    def __init__(self, node: ManagedNode, managers: Iterable[str]) -> None:
        """Create the clients where the interface is installed."""
        self._node = node
        self._began_ns: int | None = None
        try:
            self._kind = interface(SWITCH_TYPE)
        except MissingInterface:
            self._clients = {}
            return
        self._clients = {
            manager: node.create_client(self._kind, f"{manager}/switch_controller") for manager in sorted(set(managers))
        }

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._began_ns is not None and (time.monotonic_ns() - self._began_ns) / 1e9 < PATIENCE

    def can(self, controllers: Iterable[Controller]) -> bool:
        """Whether every controller manager that could restart them is available."""
        return all(c.manager in self._clients and self._clients[c.manager].service_is_ready() for c in controllers)

    def restart(self, controllers: Sequence[Controller], done: Done) -> None:
        """Restart controllers, those of one manager after those of another; `done` is called with the outcome."""
        self._began_ns = time.monotonic_ns()
        managers = sorted({controller.manager for controller in controllers})
        steps = [
            (manager, [c.name.rpartition("/")[2] for c in controllers if c.manager == manager], activate)
            for manager in managers
            for activate in (False, True)
        ]
        self._continue(steps, done)

    def destroy(self) -> None:
        """Destroy the clients."""
        for client in self._clients.values():
            self._node.destroy_client(client)
        self._clients = {}

    def _continue(self, steps: list[tuple[str, list[str], bool]], done: Done) -> None:
        if not steps:
            self._began_ns = None
            done(True, "")
            return
        (manager, names, activate), *rest = steps
        request = self._kind.Request(strictness=self._kind.Request.STRICT)
        if activate:
            request.activate_controllers = names
        else:
            request.deactivate_controllers = names

        def on_answer(future: Future) -> None:
            answer = future.result()
            if answer is not None and answer.ok:
                self._continue(rest, done)
                return
            self._began_ns = None
            did = "activate" if activate else "deactivate"
            why = getattr(answer, "message", "") or "see its log"
            done(False, f"{manager} could not {did} {', '.join(names)}: {why}")

        self._clients[manager].call_async(request).add_done_callback(on_answer)
