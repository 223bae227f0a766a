"""All command interfaces of one robot as one: everything is prepared before anything is sent."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from nav_msgs.msg import Path as PathMessage
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import (
    BaseVelocityCommand,
    Command,
    ForwardCommand,
    GripperActionCommand,
    JointTrajectoryCommand,
    Nav2FollowPathCommand,
    Nav2PoseCommand,
    XsGroupCommand,
    XsSingleCommand,
)
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.node_interface import Endpoint
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_ros.executor.command_interfaces.base_velocity import KINDS as TWISTS
from qwen_vla_ros.executor.command_interfaces.base_velocity import BaseVelocityBackend
from qwen_vla_ros.executor.command_interfaces.command_interface import Backend, Path
from qwen_vla_ros.executor.command_interfaces.gripper_action import ACTIONS as GRIPPER_ACTIONS
from qwen_vla_ros.executor.command_interfaces.gripper_action import GripperActionBackend
from qwen_vla_ros.executor.command_interfaces.joint_trajectory import JointTrajectoryBackend
from qwen_vla_ros.executor.command_interfaces.nav2 import (
    FOLLOW_PATH,
    NAVIGATE_TO_POSE,
    Nav2FollowPathBackend,
    Nav2PoseBackend,
)
from qwen_vla_ros.executor.command_interfaces.path_topic import PathTopicBackend
from qwen_vla_ros.executor.command_interfaces.setpoints import (
    GROUP_COMMAND,
    SINGLE_COMMAND,
    ForwardBackend,
    XsGroupBackend,
    XsSingleBackend,
)

BASE_PATH = Endpoint("~/base_path", PathMessage, "Of a robot with a base: the way that it is to drive")
COMMAND_TOPICS = Endpoint(
    "<commands>",
    (
        *(JointTrajectory, Float64MultiArray, GROUP_COMMAND, SINGLE_COMMAND),
        *TWISTS.values(),
    ),
    "What the robot is told, by the `commands` of its YAML",
)
COMMAND_GOALS = Endpoint(
    "<commands>",
    (*GRIPPER_ACTIONS.values(), FOLLOW_PATH, NAVIGATE_TO_POSE),
    "Where the robot's YAML commands grippers or the base through an action",
)
Pose = Callable[[], np.ndarray | None]


def make_backend(node: Node, command: Command, embodiment: Embodiment, pose: Pose) -> Backend:
    """Create the backend of one entry of `commands`.

    Args:
        node: owner of publishers and clients.
        command: the entry.
        embodiment: its robot.
        pose: returns the pose (3,) of the base by the odometry [m, m, rad], None when it is unknown.

    Raises:
        MissingInterface: a message package is not installed; the text names it.
    """
    match command:
        case JointTrajectoryCommand():
            return JointTrajectoryBackend(node, command)
        case ForwardCommand():
            return ForwardBackend(node, command)
        case GripperActionCommand():
            return GripperActionBackend(node, command)
        case XsGroupCommand():
            return XsGroupBackend(node, command)
        case XsSingleCommand():
            return XsSingleBackend(node, command, embodiment)
        case BaseVelocityCommand():
            return BaseVelocityBackend(node, command, embodiment, pose)
        case Nav2FollowPathCommand():
            return Nav2FollowPathBackend(node, command)
        case Nav2PoseCommand():
            return Nav2PoseBackend(node, command)
    raise ValueError(f"no backend is called {command.backend!r}")


class CommandInterfaces:
    """Sends one path after another to all interfaces that it concerns.

    Attributes:
        stand: without a further set-point a device of them stays where it is; see Capabilities.
    """

    def __init__(self, node: Node, embodiment: Embodiment, pose: Pose) -> None:
        """Create the backends of a robot; see make_backend.

        Raises:
            ValueError: the robot's YAML has no `commands`.
            MissingInterface: as make_backend; nothing is left on the graph.
        """
        if not embodiment.commands:
            raise ValueError(f"'{embodiment.name}' has no `commands` in its YAML; nothing can be sent to it")
        self._backends: list[Backend] = []
        try:
            for command in embodiment.commands:
                self._backends.append(make_backend(node, command, embodiment, pose))
            if embodiment.base is not None:
                self._backends.append(PathTopicBackend(node, BASE_PATH.name))
        except Exception:
            self.destroy()
            raise
        drives = embodiment.control_mode.moves_base
        self._used = (
            [b for b in self._backends if not b.capabilities.joints]
            if drives
            else [b for b in self._backends if b.capabilities.joints]
        )
        self._streams = [backend for backend in self._used if backend.capabilities.streams]
        self.stand = any(backend.capabilities.stands for backend in self._used)

    def preflight(self) -> list[str]:
        """Say what keeps the robot from moving as a whole; empty when everything is ready."""
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
        """Feed the devices that take set-points: all are computed before the first is sent."""
        for backend in self._streams:
            backend.sample(now_ns)
        for backend in self._streams:
            backend.publish()

    def stop(self, standing: JointPath | None) -> None:
        """End everything that was sent; see Backend.stop. An interface that fails does not keep the others from it."""
        failures = []
        for backend in self._backends:
            try:
                backend.stop(standing)
            except Exception as error:
                failures.append(error)
        if failures:
            raise ExceptionGroup("not every command interface could be stopped", failures)

    def fault(self) -> str:
        """Say why what was sent is not being executed; empty when it is."""
        return "; ".join(fault for backend in self._used if (fault := backend.fault()))

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait until all have acknowledged what was sent; False when one has not within `seconds` altogether."""
        limit = time.monotonic() + seconds
        answers = [backend.wait_until_delivered(max(0.0, limit - time.monotonic())) for backend in self._backends]
        return all(answers)

    def destroy(self) -> None:
        """Leave the graph."""
        for backend in self._backends:
            backend.destroy()
        self._backends.clear()
