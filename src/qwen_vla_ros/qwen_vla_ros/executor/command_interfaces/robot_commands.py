# SPDX-License-Identifier: Apache-2.0
"""All command interfaces of one robot as one: everything is prepared before anything is sent."""

from __future__ import annotations

import time

from nav_msgs.msg import Path as PathMessage
from rclpy.node import Node

from embodiment_descriptions.commands import KINDS, CommandInterface, make_part
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.node_interface import Endpoint
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_ros.executor.command_interfaces.command_interface import Backend, CommandedRobot, Path
from qwen_vla_ros.executor.command_interfaces.path_topic import PathTopicBackend

BASE_PATH = Endpoint("~/base_path", PathMessage, "Of a robot with a base: its planned path")
COMMAND_TOPICS = Endpoint(
    "<commands>",
    tuple(name for kind in KINDS if not kind.is_action for name in kind.message_types),
    "Commands to the robot, by the `commands` of its YAML",
)
COMMAND_GOALS = Endpoint(
    "<commands>",
    tuple(name for kind in KINDS if kind.is_action for name in kind.message_types),
    "Goals for grippers or the base, where the robot's YAML commands them through an action",
)
OFFERED = (
    *("capabilities", "preflight", "prepare", "stop", "sample", "publish"),
    *("fault", "wait_until_delivered", "destroy"),
)


def make_backend(node: Node, command: CommandInterface, robot: CommandedRobot) -> Backend:
    """Create the backend of one entry of `commands`; `node` owns its publishers and clients.

    Raises:
        ValueError: the kind of interface has no backend, or it cannot be imported; names the kind.
        MissingInterface: a message package is not installed; the text names it.
    """
    return make_part(command, "ros_side", OFFERED, node, command, robot)


class CommandInterfaces:
    """Sends each path to all interfaces that it concerns.

    Attributes:
        stand: one of the devices stays where it is without new setpoints; see Capabilities.
        streamed: joints whose devices take one setpoint at a time; others interpolate from their own reference.
    """

    def __init__(self, node: Node, robot: CommandedRobot) -> None:
        """Create the backends of a robot; see make_backend. Only those for what its control mode moves are used.

        Raises:
            ValueError: the robot's YAML has no `commands`, or as make_backend; nothing stays in the graph.
            MissingInterface: as make_backend.
        """
        embodiment = robot.embodiment
        if not embodiment.commands:
            raise ValueError(f"'{embodiment.name}' has no `commands` in its YAML; it cannot be commanded")
        self._backends: list[Backend] = []
        self._used: list[Backend] = []
        self.streamed: set[str] = set()
        try:
            self._create(node, robot)
        except Exception:
            self.destroy()
            raise
        self._streams = [backend for backend in self._used if backend.capabilities.streams]
        self.stand = any(backend.capabilities.stands for backend in self._used)

    def _create(self, node: Node, robot: CommandedRobot) -> None:
        drives = robot.embodiment.control_mode.moves_base
        for command in robot.embodiment.commands:
            backend = make_backend(node, command, robot)
            self._add(backend, command.moves_base == drives)
            if backend.capabilities.streams:
                self.streamed.update(command.commanded)
        if robot.embodiment.base is not None:
            self._add(PathTopicBackend(node, BASE_PATH.name), drives)

    def _add(self, backend: Backend, used: bool) -> None:
        self._backends.append(backend)
        if used:
            self._used.append(backend)

    def preflight(self) -> list[str]:
        """Return the problems that prevent motion of the robot as a whole; empty when everything is ready."""
        return [problem for backend in self._used for problem in backend.preflight()]

    def send(self, path: Path, now_ns: int) -> None:
        """Send a path that starts at ROS time `now_ns` [ns], to all interfaces or to none.

        Raises:
            Refused: nothing was sent.
        """
        problems = self.preflight()
        if problems:
            raise Refused.because(Reason.NOT_READY, "; ".join(problems))
        commits = [backend.prepare(path, now_ns) for backend in self._used]
        for commit in commits:
            commit()

    def stream(self, now_ns: int) -> None:
        """Feed the devices that take setpoints: all are computed before the first is sent."""
        for backend in self._streams:
            backend.sample(now_ns)
        for backend in self._streams:
            backend.publish()

    def stop(self, standing: JointPath | None) -> None:
        """End everything that was sent; see Backend.stop. If one interface fails, the others are still stopped."""
        failures = []
        for backend in self._backends:
            try:
                backend.stop(standing)
            except Exception as error:
                failures.append(error)
        if failures:
            raise ExceptionGroup("not every command interface could be stopped", failures)

    def fault(self) -> str:
        """Return why what was sent is not being executed; empty when it is."""
        return "; ".join(fault for backend in self._used if (fault := backend.fault()))

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait until all have acknowledged what was sent; False when one has not within `seconds` in total."""
        limit = time.monotonic() + seconds
        answers = [backend.wait_until_delivered(max(0.0, limit - time.monotonic())) for backend in self._backends]
        return all(answers)

    def destroy(self) -> None:
        """Remove publishers and clients."""
        for backend in self._backends:
            backend.destroy()
        self._backends.clear()
