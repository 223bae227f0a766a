# SPDX-License-Identifier: Apache-2.0
"""The surroundings of the nodes in graph tests: a robot, and processes that are started and ended."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from action_msgs.msg import GoalStatus
from commanded_joints import CommandedJoints
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from spinning_peer import PATIENCE, ExecutorPeer
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.simulation.child_processes import LAUNCHER

AUTOSTART_PATIENCE = 5.0  # [s]
TRANSITIONS_UP = {
    "unconfigured": Transition.TRANSITION_CONFIGURE,
    "inactive": Transition.TRANSITION_ACTIVATE,
}
JOINT_RATE, HEARTBEAT_RATE, CAMERA_RATE = 50.0, 20.0, 10.0  # [Hz]
HEARTBEAT_LATE = 0.2  # [s] between two heartbeats: half of what the executor allows


class Peer(ExecutorPeer):
    """A policy's heartbeat and chunks, a robot's description, joint states and images; stores what it receives.

    Without a simulator the arm is always at its last command.

    Attributes:
        received: messages by topic, as (monotonic time, message).
        silent: names of the streams that are off (a part of the joint states, "heartbeat", or a camera tag).
        frozen: tags of cameras that repeat their last image, including its stamp.
        still: tags of cameras that repeat their last image under new stamps.
        shifted: offset of camera clocks into the future, by tag [s].
        wrapped: names of the joints that are reported within -pi .. pi.
    """

    def __init__(
        self,
        simulated: bool = False,
        embodiment: Embodiment | None = None,
        parts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Act as the robot, by default a WidowX, too, unless a simulator does; then follow its time.

        Args:
            simulated: a simulator is the robot.
            embodiment: the robot.
            parts: joints by the stream that reports them, each from a publisher of its own; by default all of them are
                in "joint_states".
        """
        super().__init__("peer", use_sim_time=simulated)
        self._simulated = simulated
        self.embodiment = embodiment or load_robot("widowx")
        self.joints = dict(self.embodiment.home)
        self._parts = parts or {"joint_states": tuple(self.joints)}
        self._commanded = CommandedJoints(self.joints)
        self.received: dict[str, list[tuple[float, object]]] = defaultdict(list)
        self.silent, self.frozen = {"heartbeat"}, set()
        self.still, self.shifted = set(), {}
        self.wrapped: set[str] = set()
        self.heartbeats: list[float] = []
        self._chunk_id = 0
        self._action = ActionClient(self.node, ExecuteInstruction, "policy_node/execute_instruction")
        self._be_a_policy()
        if simulated:
            self.hear(JointState, "joint_states", self._on_joints, 10)
        else:
            self._be_the_robot()
        self._listen()

    # Streams --------------------------------------------------------------------------------------------------------

    def _be_a_policy(self) -> None:
        self._heartbeat_publisher = self.node.create_publisher(Header, "policy_node/heartbeat", 10)
        self.chunks = self.node.create_publisher(ActionChunk, "policy_node/action_chunk", 10)
        self.every(1 / HEARTBEAT_RATE, self._publish_heartbeat)

    def _on_joints(self, message: JointState) -> None:
        self.joints = dict(zip(message.name, message.position, strict=True))

    def _be_the_robot(self) -> None:
        self._description = self.node.create_publisher(String, "robot_description", LATCHED)
        self._description.publish(String(data=self.embodiment.urdf))
        self._joint_publishers = {
            part: self.node.create_publisher(JointState, "joint_states", 10) for part in self._parts
        }
        self._cameras = {
            camera.tag: self.node.create_publisher(Image, camera.topic, qos_profile_sensor_data)
            for camera in self.embodiment.cameras
        }
        pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8).tobytes()
        self._images = {
            tag: Image(height=240, width=320, encoding="rgb8", step=960, data=pixels) for tag in self._cameras
        }
        self.every(1 / JOINT_RATE, self._publish_joints)
        self.every(1 / CAMERA_RATE, self._publish_images)

    def _publish_joints(self) -> None:
        self.joints = self._commanded.positions
        told = {n: math.remainder(q, math.tau) if n in self.wrapped else q for n, q in self.joints.items()}
        for part, names in self._parts.items():
            if part not in self.silent:
                message = JointState(name=list(names), position=[told[name] for name in names])
                message.header.stamp = self.stamp()
                self._joint_publishers[part].publish(message)

    def _publish_heartbeat(self) -> None:
        if "heartbeat" not in self.silent:
            self.heartbeats.append(time.monotonic())
            self._heartbeat_publisher.publish(Header(stamp=self.stamp()))

    def _publish_images(self) -> None:
        for tag, publisher in self._cameras.items():
            if tag not in self.silent:
                image = self._images[tag]
                if tag not in self.frozen:
                    ahead = Duration(seconds=self.shifted.get(tag, 0.0))
                    image.header.stamp = (self.node.get_clock().now() + ahead).to_msg()
                if tag not in self.still:
                    image.data[0] = (image.data[0] + 1) % 256  # a sensor has noise
                publisher.publish(image)

    # Records --------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        for kind, topic in (
            *((JointTrajectory, command.topic) for command in self.embodiment.commands if not command.moves_base),
            (ActionChunk, "executor_node/accepted_chunk"),
            (ActionChunk, "policy_node/action_chunk"),
            (DiagnosticArray, "/diagnostics"),
        ):
            self.hear(kind, topic, partial(self._record, topic), 50)

    def _record(self, topic: str, message) -> None:
        self.received[topic].append((time.monotonic(), message))
        if isinstance(message, JointTrajectory) and not self._simulated:
            self._commanded.play(message)
            self.joints = self._commanded.positions

    @property
    def arm_commands(self) -> list[tuple[float, JointTrajectory]]:
        return self.received[self.embodiment.commands[0].topic]

    @property
    def gripper_commands(self) -> list[tuple[float, JointTrajectory]]:
        return self.received[self.embodiment.commands[1].topic]

    def latest_diagnostics(self, name: str) -> DiagnosticStatus | None:
        arrays = [message for _, message in self.received["/diagnostics"]]
        return next((status for array in reversed(arrays) for status in array.status if status.name == name), None)

    def send(self, chunk: ActionChunk) -> int:
        """Publish a chunk; returns its number."""
        self.chunks.publish(chunk)
        return chunk.chunk_id

    def have_accepted(self, **changes) -> int:
        """Have a good chunk accepted, with these changes of its fields; returns its number.

        On a busy machine, this process may be suspended long enough for the executor to miss a heartbeat or a joint
        state and rightly refuse; then the next one is sent.
        """
        for _ in range(20):
            number = self.send(self.chunk(**changes))
            if self.verdict(number).verdict == ChunkReport.ACCEPTED:
                return number
        raise AssertionError(f"no chunk was accepted: {self.reports}")

    def start_moving(self) -> int:
        """Have a chunk accepted and wait until the arm moves; returns the number of the chunk.

        Where this process was suspended meanwhile, so that the executor rightly holds, it begins anew.
        """
        for _ in range(5):
            self.clear()
            began = time.monotonic()
            number = self.have_accepted()
            start = self.wait(lambda: self.arm_commands, "arm command")[0][0]
            self.wait(lambda start=start: time.monotonic() - start > 0.4, "the arm to move")
            alive = [began, *(beat for beat in self.heartbeats if beat > began), time.monotonic()]
            if max(np.diff(alive)) < HEARTBEAT_LATE:
                return number
            self.trigger("executor_node/hold")
        raise AssertionError(f"this process was suspended again and again: {self.reports}")

    # Requests -------------------------------------------------------------------------------------------------------

    def call(self, kind, name: str, request=None, timeout: float = PATIENCE):
        """Call a service and return its response."""
        client = self.node.create_client(kind, name)
        try:
            return super().call(client, kind.Request() if request is None else request, timeout)
        finally:
            self.in_turn(lambda: self.node.destroy_client(client))

    def trigger(self, name: str) -> Trigger.Response:
        return self.call(Trigger, name)

    def transition(self, node: str, transition: int, timeout: float = PATIENCE) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, f"{node}/change_state", request, timeout=timeout).success

    def restart(self, node: str) -> None:
        """Deactivate and activate a node: an executor takes the robot as it stands then."""
        assert self.transition(node, Transition.TRANSITION_DEACTIVATE)
        assert self.transition(node, Transition.TRANSITION_ACTIVATE)

    def move_by_hand(self, **joints: float) -> None:
        """Put joints somewhere else than where they were commanded to be."""
        with self.changed:
            self._commanded.put(joints)

    def set_parameter(self, node: str, name: str, value: object) -> bool:
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, f"{node}/set_parameters", request).results[0].successful

    def state_of(self, node: str, timeout: float = PATIENCE) -> str:
        return self.call(GetState, f"{node}/get_state", timeout=timeout).current_state.label

    def wait_until_active(self, node: str) -> None:
        """Wait for autostart; activate the node where an aborted test has left it in another state."""
        began = time.monotonic()
        state = ""
        while state != "active":
            waited = time.monotonic() - began
            assert waited < PATIENCE, f"{node} is not active but {state!r}"
            try:
                state = self.state_of(node, timeout=2.0)
                if state in TRANSITIONS_UP and waited > AUTOSTART_PATIENCE:
                    self.transition(node, TRANSITIONS_UP[state], timeout=2.0)
            except AssertionError:  # busy configuring, a response of a killed one; Jazzy answers no invalid transition
                continue

    def wait_until_the_executor_hears(self, heartbeat: bool) -> None:
        """By its diagnostics whether it receives the policy's heartbeat: each topic is discovered separately."""

        def hears() -> bool:
            status = self.latest_diagnostics("executor_node: execution")
            return status is not None and ("no heartbeat" not in status.message) == heartbeat

        self.wait(hears, f"executor_node {'with' if heartbeat else 'without'} the heartbeat of policy_node")

    def wait_until_connected(self) -> None:
        """Wait until executor_node receives chunks, heartbeat and joint states, and its reports arrive.

        Chunks for another robot are sent until one is refused only for that reason.
        """

        def only_for_nobody():
            self.send(self.chunk(embodiment="nobody"))
            return any(r.reason_codes.tolist() == [ChunkReport.WRONG_EMBODIMENT] for r in self.reports)

        self.wait(only_for_nobody, "a connection to executor_node")
        last = self._chunk_id
        self.report(last, ChunkReport.REFUSED)

    def send_goal(self, instruction: str, timeout: float = 0.0, feedback=None):
        """Send a goal to policy_node and return its handle."""
        self.wait(self._action.server_is_ready, "action server of policy_node")
        goal = ExecuteInstruction.Goal(instruction=instruction, timeout=timeout)
        sent = self.in_turn(lambda: self._action.send_goal_async(goal, feedback))
        return self.result(sent, "response to the goal", PATIENCE)

    def result_of(self, handle, timeout: float = PATIENCE) -> tuple[int, ExecuteInstruction.Result]:
        """Wait for the end of a goal; returns its status (GoalStatus) and its result."""
        response = self.result(self.in_turn(handle.get_result_async), "result of the goal", timeout)
        return response.status, response.result

    # Chunks ---------------------------------------------------------------------------------------------------------

    def chunk(self, **changes) -> ActionChunk:
        """8 cm down in 16 steps from the arm's position, observed now, with the next number; `changes` are fields."""
        e = self.embodiment
        self._chunk_id += 1
        rows = np.zeros((16, 7), np.float32)
        rows[:, 0] = 0.005 * np.arange(1, 17)
        rows[:, 6] = 1.0
        message = ActionChunk(
            chunk_id=self._chunk_id,
            embodiment=e.name,
            control_mode=e.control_mode,
            channel_names=list(e.channel_names),
            instruction="pick up the red cube",
            horizon=16,
            execution_horizon=8,
            period=e.period,
            data=rows.reshape(-1).tolist(),
        )
        message.header.stamp, message.header.frame_id = self.stamp(), e.base_frame
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def clear(self) -> None:
        """Clear the records."""
        with self.changed:
            self.received.clear()
            self.reports.clear()

    def forget(self) -> None:
        """Return to the initial state: at home, every stream on except the heartbeat, nothing received.

        The joint states follow at once: a chunk sent next is anchored there, not at the arm's previous position. An
        executor that has moved the arm must be restarted, or it notices that the arm was moved.
        """
        with self.changed:
            self.silent, self.frozen = {"heartbeat"}, set()
            self.still, self.shifted = set(), {}
            self._commanded.put(self.embodiment.home)
            self._publish_joints()
            self.clear()


class Processes:
    """Console scripts of this package in processes of their own.

    Attributes:
        logs: output of each, by name.
    """

    def __init__(self) -> None:
        self._running: list[tuple[str, subprocess.Popen]] = []
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_exc) -> None:
        for log, process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()
            print(f"--- {Path(log).name}\n{Path(log).read_text()}")  # pytest shows it when a test failed
        self._folder.cleanup()

    def start(self, name: str, remap: Mapping[str, str] | None = None, **parameters) -> subprocess.Popen:
        """Start a script with autostart and the given parameters; the kernel ends it if this process is killed."""
        values = {"autostart": True, **parameters}
        if name not in ("policy_node", "executor_node", "episode_recorder"):
            values.pop("autostart")
        arguments = [part for key, value in values.items() for part in ("-p", f"{key}:={_yaml(value)}")]
        arguments += [part for old, new in (remap or {}).items() for part in ("-r", f"{old}:={new}")]
        script = Path(sys.executable).parent / name
        command = [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), script, "--ros-args", *arguments]
        with open(Path(self._folder.name, f"{name}_{len(self._running)}.log"), "wb") as log:
            process = subprocess.Popen(command, env=ros_environment(), stdout=log, stderr=subprocess.STDOUT)
        self._running.append((log.name, process))
        return process

    def log_of(self, process: subprocess.Popen) -> str:
        """Return a process's output so far."""
        return next(Path(log).read_text() for log, running in self._running if running is process)

    def end(self, process: subprocess.Popen, number: signal.Signals, timeout: float = PATIENCE) -> int:
        """Send a signal, wait for the end and return the exit code; nothing of the process may remain."""
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        code = process.wait(timeout)
        assert not [child for child in children if child.is_running()]
        return code


def _yaml(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


SUCCEEDED, CANCELED, ABORTED = GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED
