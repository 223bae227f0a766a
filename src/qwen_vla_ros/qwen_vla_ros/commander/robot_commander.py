# SPDX-License-Identifier: Apache-2.0
"""A running robot as a Python object: instructions, services, joint positions, what its gate reported.

Example:
    with RobotCommander() as robot:
        robot.go_home()
        print(robot.say("pick up the red cube", timeout=30.0))
"""

from __future__ import annotations

import os
import time
from collections import deque
from functools import cached_property, partial
from typing import Self

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodiment_descriptions import Embodiment
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_rclpy.printable import printable
from qwen_vla_rclpy.qos import LATCHED, reliable
from qwen_vla_ros.commander.instruction_client import InstructionClient, InstructionResult, Show
from qwen_vla_ros.ros.chunk_messages import report_from_message
from qwen_vla_ros.ros.embodiment_source import read_embodiment
from qwen_vla_ros.ros.names import resolve
from qwen_vla_ros.ros.reports import Report, Verdict
from qwen_vla_ros.ros.running_nodes import ANSWER_TIMEOUT, explain, read_parameters, wait_until_active
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode

POLICY, EXECUTOR = "policy_node", "executor_node"
SERVICES = ("go_home", "stop", "resume", "hold", "reset_estop", "resynchronize")  # of executor_node
REPORTS_KEPT = 256
OWN_MOTION = 0  # the number of the chunk in reports about motions of the executor's own


class CommandRefused(RuntimeError):
    """executor_node refused a command, or did not complete it; the message has the reason with its value."""


class RobotCommander:
    """Commands the robot of one namespace; to be used as a context manager, by one thread.

    Every method returns when it is done, or raises with the remedy; none waits for ever. Ctrl-C during `say` or
    `go_home` ends the motion before KeyboardInterrupt is raised.

    Attributes:
        policy_node: full name of that node of the robot.
        executor_node: the same.
        client: the node of this commander, for subscriptions of one's own (`client.hear`).
    """

    def __init__(
        self,
        namespace: str = "",
        domain: int | None = None,
        patience: float = ANSWER_TIMEOUT,
        name: str = "qwen_vla_commander",
    ) -> None:
        """Join the graph.

        Args:
            namespace: of the robot's nodes.
            domain: ROS domain; by default ROS_DOMAIN_ID.
            patience: how long a node may take to be found and active, and then to answer [s].
            name: of this node; one that begins with qwen_vla_ is allowed by config/sros2/policy.xml.
        """
        self._namespace, self._patience = namespace, patience
        self.policy_node, self.executor_node = resolve(namespace, POLICY), resolve(namespace, EXECUTOR)
        self.client = SpinningNode(name, int(os.environ.get("ROS_DOMAIN_ID") or 0) if domain is None else domain)
        self._reports: deque[Report] = deque(maxlen=REPORTS_KEPT)
        self._own_motion: Report | None = None  # the latest about one
        self._hears_joints = False
        # Before the clients: DDS announces endpoints in this order, and an executor that answers knows all of them.
        self.client.hear(ChunkReport, f"{self.executor_node}/chunk_report", self._on_report, reliable(50))
        self._services = {s: self.client.node.create_client(Trigger, f"{self.executor_node}/{s}") for s in SERVICES}
        self._instructions = InstructionClient(self.client, self.policy_node)

    def __enter__(self) -> Self:
        """Start to receive."""
        self.client.__enter__()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Leave the graph; what the robot does continues."""
        self.client.close()

    def wait_until_active(self) -> None:
        """Wait until the robot can execute instructions.

        Raises:
            NoAnswer: executor_node or policy_node is not active; the message has its state, and the remedy.
        """
        for node in (self.executor_node, self.policy_node):
            wait_until_active(self.client, node, self._patience)

    def say(self, instruction: str, timeout: float = 0.0, show: Show | None = None) -> InstructionResult:
        """Have the policy execute an instruction until its end; Ctrl-C cancels it, and the robot holds.

        Args:
            instruction: what the robot should do.
            timeout: when to end it [s, the robot's time]; 0: policy_node's default, 60 s.
            show: called with the instruction's state and its figures, as two texts, as they change.

        Raises:
            ValueError: the instruction is empty, too long or unprintable, or the timeout is impossible.
            Rejected: policy_node executes another instruction.
            Lost: it was restarted meanwhile.
            NoAnswer: it is not there, not active, or has gone.
        """
        wait_until_active(self.client, self.policy_node, self._patience)
        return self._instructions.send(instruction, timeout, show).result()

    def go_home(self, timeout: float = 120.0) -> None:
        """Go to the home pose, slowly; returns when it is reached.

        Args:
            timeout: for the whole motion [s]; the robot holds when it is over, as after Ctrl-C.

        Raises:
            CommandRefused: the gate refused the motion, or the robot was held on the way.
            NoAnswer: executor_node does not answer, or the motion took longer.
        """
        try:
            end = self._end_of_home_motion(timeout)
        except (KeyboardInterrupt, SystemExit):
            self.hold()
            raise
        if end.verdict != Verdict.COMPLETED:
            raise CommandRefused(f"{self.executor_node} did not complete the home motion: {end.message}")

    def stop(self) -> str:
        """Stop the robot; chunks are refused until `resume`. Returns what was done, as do the following.

        All of them raise CommandRefused with the reason, or NoAnswer with what is wrong with executor_node.
        """
        return self._trigger("stop")

    def resume(self) -> str:
        """Accept chunks again after `stop`."""
        return self._trigger("resume")

    def hold(self) -> str:
        """Abort the current motion; the next chunk is accepted."""
        return self._trigger("hold")

    def reset_estop(self) -> str:
        """Release the latched emergency stop, once it is no longer pressed."""
        return self._trigger("reset_estop")

    def resynchronize(self) -> str:
        """Bring together where the controllers would start and where the joints are, after somebody moved the robot.

        Where that takes time it continues, and `reports` will have its end, as chunk 0.
        """
        return self._trigger("resynchronize")

    def joint_positions(self, timeout: float = 5.0) -> dict[str, float]:
        """Where the commanded joints are: URDF name to position [rad | m], measured after this call.

        Raises:
            ValueError: the robot is a base, without commanded joints.
            NoAnswer: a joint has not been reported within `timeout` [s]; the message names the topic.
            EmbodimentError, ResourceError: the robot's description is invalid, or its YAML is not on this machine.
        """
        robot = self.embodiment
        if not robot.joint_names:
            raise ValueError(f"robot '{robot.name}' has no commanded joints; its pose is in its odometry")
        with self.client.changed:
            self._joints = JointReader(robot, resolve=partial(resolve, self._namespace))
        self._hear_joints()
        try:
            self.client.wait(lambda: not np.isnan(self._joints.latest().vector).any(), "joint positions", timeout)
        except NoAnswer as error:
            raise NoAnswer(f"{error}: {self._joints.fault(0, time.monotonic_ns())}") from None
        with self.client.changed:
            positions = self._joints.latest().positions.tolist()
        return dict(zip(robot.joint_names, positions[: len(robot.joint_names)], strict=True))

    @cached_property
    def embodiment(self) -> Embodiment:
        """The robot, from robot_description and the YAML that executor_node uses; raises as `joint_positions`."""
        topic = resolve(self._namespace, "robot_description")
        texts: list[str] = []
        self.client.hear(String, topic, lambda message: texts.append(message.data), LATCHED)
        config = read_parameters(self.client, self.executor_node, ("embodiment_config",))["embodiment_config"]
        self.client.wait(lambda: texts, f"robot_description on {topic}", self._patience)
        return read_embodiment(texts[-1], config)

    @property
    def reports(self) -> tuple[Report, ...]:
        """What executor_node has reported since this commander joined: the latest 256, oldest first."""
        with self.client.changed:
            return tuple(self._reports)

    def _on_report(self, message: ChunkReport) -> None:
        report = report_from_message(message)
        if report is None:
            return
        self._reports.append(report)
        if report.chunk_id == OWN_MOTION:
            self._own_motion = report

    def _hear_joints(self) -> None:
        """Subscribe to the robot's joint states, once."""
        if self._hears_joints:
            return
        self._hears_joints = True
        for index, source in enumerate(self.embodiment.joint_states):
            topic = resolve(self._namespace, source.topic)
            self.client.hear(JointState, topic, partial(self._on_joints, index), qos_profile_sensor_data)

    def _on_joints(self, source: int, message: JointState) -> None:
        self._joints.take(source, message, time.monotonic_ns())

    def _end_of_home_motion(self, timeout: float) -> Report:
        with self.client.changed:
            self._own_motion = None
        began = self._trigger("go_home")
        try:
            return self.client.wait(lambda: self._own_motion, f"report of the end ({began})", timeout)
        except NoAnswer:
            self.hold()
            raise

    def _trigger(self, service: str) -> str:
        """Call a service of executor_node; returns what it did."""
        try:
            reply = self.client.call(self._services[service], Trigger.Request(), self._patience)
        except NoAnswer as error:
            raise NoAnswer(f"{error}: {explain(self.client, self.executor_node)}") from None
        if not reply.success:
            raise CommandRefused(f"{self.executor_node}/{service}: {printable(reply.message)}")
        return printable(reply.message)
