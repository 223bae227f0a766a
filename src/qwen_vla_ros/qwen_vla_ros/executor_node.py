"""executor_node: chunks in, checked joint trajectories out. Holds the robot when anything it relies on falls silent.

It must never import torch: it runs on the robot's own computer, beside the controllers.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from qwen_vla.observation_buffer import Stream
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_ros import lifecycle
from qwen_vla_ros.chunk_decision import ChunkDecision, joint_vector
from qwen_vla_ros.chunk_messages import Ledger, chunk_from_message, nanoseconds
from qwen_vla_ros.diagnostics import diagnostic_array
from qwen_vla_ros.embodiment_source import read_embodiment
from qwen_vla_ros.gate import Chunk, Reason, Refused, Violation, check_age
from qwen_vla_ros.image_memory import release_image_memory
from qwen_vla_ros.joint_path import JointPath
from qwen_vla_ros.loop_timing import LoopTiming
from qwen_vla_ros.motion import Commanded, Motion
from qwen_vla_ros.parameters import Parameter
from qwen_vla_ros.trajectory_backend import TrajectoryBackend

WATCH_PERIOD = 0.02  # [s] steady; how late the watchdogs may notice
DIAGNOSTICS_PERIOD = 1.0  # [s] steady
DELIVERY_TIMEOUT = 0.5  # [s] to wait for the controllers to take the last hold before the process goes
HOLD_NEAR = (
    0.1  # [rad] more than a servo lags at rest; farther from its last command the arm was moved by somebody else
)
JOINT_STATES_KEPT = 1024  # several seconds at the rate of any controller manager
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

PARAMETERS = (
    Parameter("chunk_topic", "policy_node/action_chunk", "Chunks of the policy (ActionChunk)", read_only=True),
    Parameter("heartbeat_topic", "policy_node/heartbeat", "Sign of life of the policy (Header)", read_only=True),
    Parameter("heartbeat_timeout", 0.4, "Silence of the policy after which the robot holds [s, steady]", 0.15, 10.0),
    Parameter("joint_state_timeout", 0.5, "Silence of joint_states after which the robot holds [s]", 0.02, 10.0),
    Parameter("max_observation_age", 1.0, "Chunks made from an older observation are refused [s]", 0.01, 60.0),
    Parameter("max_stamp_lead", 0.1, "Chunks whose observation lies farther in the future are refused [s]", 0.0, 10.0),
    Parameter("max_anchor_gap", 0.1, "Largest distance from the observation to its joint state [s]", 0.0, 1.0),
    Parameter("hold_time", 0.1, "Time given to the controllers to come to rest when holding [s]", 0.02, 1.0),
    Parameter("home_speed_share", 0.25, "Share of the speed limits used by ~/go_home", 0.01, 1.0),
)


class ExecutorNode(lifecycle.ManagedNode):
    """Lifecycle node; publishes to the controllers only while active."""

    def __init__(self) -> None:
        """Create the node unconfigured."""
        super().__init__("executor_node", PARAMETERS)
        self._stopped = False
        self._watchdogs: list = []

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Learn the robot, then listen."""
        p = self.parameters
        embodiment = read_embodiment(self.wait_for_robot_description(), p.embodiment_config)
        self._decision = ChunkDecision(embodiment)
        joints = self._decision.joints
        grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
        controllers = {command.topic: command.joints for command in embodiment.commands}
        self._backend = self.keep(TrajectoryBackend(self, controllers), TrajectoryBackend.destroy)
        is_gripper = np.array([name in grippers for name in joints])
        self._commanded = Commanded(keep=is_gripper, near=HOLD_NEAR)
        self._ledger = Ledger(self._decision.form.base_frame)
        topic = self.resolve_topic_name("joint_states")
        self._joint_states = Stream("joint states", topic, p.joint_state_timeout, JOINT_STATES_KEPT)
        self._joint_state_fault = ""
        self._heartbeat_ns: int | None = None
        self._last_chunk_id = 0
        self._connect()
        self.get_logger().info(f"ready for '{embodiment.name}': {', '.join(joints)}")

    def _connect(self) -> None:
        p = self.parameters

        def publisher(kind, topic):
            return self.keep(self.create_publisher(kind, topic, RELIABLE), self.destroy_publisher)

        def subscription(kind, topic, callback, qos):
            self.keep(self.create_subscription(kind, topic, callback, qos), self.destroy_subscription)

        self._accepted_publisher = publisher(ActionChunk, "~/accepted_chunk")
        self._report_publisher = publisher(ChunkReport, "~/chunk_report")
        # Absolute by the convention of diagnostic_updater: one topic for all robots, which the aggregator reads.
        self._diagnostics_publisher = publisher(DiagnosticArray, "/diagnostics")
        subscription(JointState, "joint_states", self._on_joint_state, qos_profile_sensor_data)
        subscription(Header, p.heartbeat_topic, self._on_heartbeat, RELIABLE)
        subscription(ActionChunk, p.chunk_topic, self._on_chunk, RELIABLE)
        services = {
            "~/stop": self._on_stop,
            "~/resume": self._on_resume,
            "~/hold": self._on_hold,
            "~/go_home": self._on_go_home,
        }
        for name, callback in services.items():
            self.keep(self.create_service(Trigger, name, callback), self.destroy_service)

    def start(self) -> None:
        """Start the watchdogs, on a clock that nobody can stop."""
        self._timing = LoopTiming(WATCH_PERIOD)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._watchdogs = [
            self.create_timer(WATCH_PERIOD, self._watch, clock=steady),
            self.create_timer(DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=steady),
        ]

    def stop(self, reason: lifecycle.StopReason) -> None:
        """Hold, and see to it that the controllers know before the node may go."""
        for timer in self._watchdogs:
            self.destroy_timer(timer)
        self._watchdogs = []
        self._hold(Reason.DEACTIVATED, reason.value)
        if not self._backend.wait_until_delivered(DELIVERY_TIMEOUT):
            self.get_logger().error("not every controller has confirmed the last hold")

    # Inputs ---------------------------------------------------------------------------------------------------------

    def _on_joint_state(self, message: JointState) -> None:
        try:
            positions = joint_vector(message.name, message.position, self._decision.joints)
        except Refused as refused:
            self._joint_state_fault = str(refused)  # told when no better message comes
            return
        self._joint_state_fault = ""
        self._joint_states.push(nanoseconds(message.header.stamp), positions, time.monotonic_ns())

    def _on_heartbeat(self, _message: Header) -> None:
        if self._policy_silence() > self.parameters.heartbeat_timeout:
            self._last_chunk_id = 0  # it may be another process now, which counts from 1 again
        self._heartbeat_ns = time.monotonic_ns()

    def _on_chunk(self, message: ActionChunk) -> None:
        began = time.perf_counter()
        chunk = chunk_from_message(message)
        try:
            path = self._decide(chunk)
            replaced = self._begin(path, chunk)
        except Refused as refused:
            violations = refused.violations
        except Exception as error:  # deny by default: whatever could not be checked does not pass
            self.get_logger().error(f"chunk {chunk.chunk_id}: {error!r}")
            violations = (Violation(Reason.INTERNAL, f"the check failed: {error}"),)
        else:
            self._accepted_publisher.publish(message)
            violations = ()
        decision_ms = (time.perf_counter() - began) * 1e3
        if violations:
            self._report_publisher.publish(self._ledger.refuse(chunk, violations, self._now(), decision_ms))
            self.get_logger().warning(f"chunk {chunk.chunk_id} refused: {'; '.join(v.message for v in violations)}")
            return
        if replaced is not None:
            why = Violation(Reason.REPLACED, f"chunk {chunk.chunk_id} took over")
            self._report_publisher.publish(self._ledger.hold(replaced.chunk, why, self._now()))
        self._report_publisher.publish(self._ledger.accept(chunk, self._now(), decision_ms))

    # Decision -------------------------------------------------------------------------------------------------------

    def _decide(self, chunk: Chunk) -> JointPath:
        """Return the path of a chunk that may be executed now; Refused otherwise."""
        p, now = self.parameters, self._now()
        if not self.active:
            raise Refused.because(Reason.NOT_ACTIVE, "executor_node is not active")
        found = self._objections(chunk) + check_age(chunk.stamp_ns, now, p.max_observation_age, p.max_stamp_lead)
        if found:
            raise Refused(found)
        measured = self._measured(now)
        anchor = self._anchor(chunk.stamp_ns)
        velocity = self._commanded.motion.commanded(now)[1] if self._commanded.motion else None
        return self._decision.path_of(chunk, anchor, measured, velocity)

    def _objections(self, chunk: Chunk) -> list[Violation]:
        """Reasons that lie in the state of the executor and its peers, not in the chunk."""
        found = []
        if self._stopped:
            found.append(Violation(Reason.STOPPED, "stopped; call ~/resume to go on"))
        if self._commanded.motion is not None and self._commanded.motion.chunk is None:
            found.append(Violation(Reason.NOT_ACTIVE, "a home motion is on its way"))
        if self._policy_silence() > self.parameters.heartbeat_timeout:
            found.append(Violation(Reason.POLICY_SILENT, self._policy_silent_text()))
        if chunk.chunk_id <= self._last_chunk_id:
            text = f"chunk {chunk.chunk_id} comes after chunk {self._last_chunk_id}"
            found.append(Violation(Reason.WRONG_ORDER, text))
        deaf = self._backend.deaf_topics()
        if deaf:
            text = f"no controller subscribes to {', '.join(deaf)}; are the controllers active?"
            found.append(Violation(Reason.INTERNAL, text))
        return found

    def _measured(self, now_ns: int) -> np.ndarray:
        """Return the joint positions now; Refused when they are unknown."""
        fault = self._joint_states_fault(now_ns)
        if fault:
            raise Refused.because(Reason.NO_JOINT_STATE, fault)
        return self._joint_states.latest.message

    def _anchor(self, stamp_ns: int) -> np.ndarray:
        """Return the joint positions at the observation; Refused when none was measured near it."""
        nearest = self._joint_states.nearest(stamp_ns)
        gap = abs(nearest.stamp_ns - stamp_ns) / 1e9
        if gap > self.parameters.max_anchor_gap:
            raise Refused.because(
                Reason.NO_JOINT_STATE,
                f"the joint state nearest to the observation is {gap:.2f} s away from it "
                f"(limit {self.parameters.max_anchor_gap:.2f} s)",
            )
        return nearest.message

    # Motion ---------------------------------------------------------------------------------------------------------

    def _begin(self, path: JointPath, chunk: Chunk | None) -> Motion | None:
        """Send a path; returns the motion that it replaces."""
        self._backend.send(path)
        replaced = self._commanded.end()
        self._commanded.begin(Motion(path, self._now(), chunk))
        if chunk is not None:
            self._last_chunk_id = chunk.chunk_id
        return replaced

    def _hold(self, reason: Reason, why: str) -> str:
        """Stop whatever the controllers are executing, and report it; returns what was done, in words."""
        now = self._now()
        measured = None if self._joint_states_fault(now) else self._joint_states.latest.message
        was_moving = self._commanded.motion is not None
        positions = self._commanded.hold_positions(now, measured)
        if positions is None:
            return f"{why}; nothing to hold: nothing was commanded and no joint state is known"
        self._backend.hold(self._decision.joints, positions, self.parameters.hold_time)
        broken_off = self._commanded.hold(positions)
        text = f"{why}; holding the last commanded position"
        if was_moving:
            report = self._ledger.hold(broken_off.chunk, Violation(reason, text), now)
            self._report_publisher.publish(report)
            self.get_logger().warning(text)
        return text

    def _watch(self) -> None:
        self._timing.tick(time.monotonic_ns())
        motion, now = self._commanded.motion, self._now()
        if motion is None:
            return
        fault = self._joint_states_fault(now)
        if fault:
            self._hold(Reason.JOINT_STATE_LOST, fault)
        elif motion.chunk is not None and self._policy_silence() > self.parameters.heartbeat_timeout:
            self._hold(Reason.POLICY_SILENT, self._policy_silent_text())
        elif motion.is_over(now):
            self._commanded.end()
            message = "" if motion.chunk else "home motion completed"
            self._report_publisher.publish(self._ledger.complete(motion.chunk, now, message))

    # Services -------------------------------------------------------------------------------------------------------

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stopped = True
        text = self._hold(Reason.STOPPED, "stopped by service") if self.active else "stopped; the node is not active"
        response.success, response.message = True, f"{text}; chunks are refused until ~/resume"
        self.get_logger().warning(response.message)
        return response

    def _on_resume(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, "chunks are accepted again" if self._stopped else "was not stopped"
        self._stopped = False
        return response

    def _on_hold(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "executor_node is not active"
        elif self._commanded.motion is None:
            response.success, response.message = True, "nothing was being executed"
        else:
            response.success, response.message = True, self._hold(Reason.CANCELED, "cancelled")
        return response

    def _on_go_home(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            path = self._home_path()
            self._begin(path, None)
        except Refused as refused:
            response.success, response.message = False, f"no home motion: {refused}"
        else:
            response.success, response.message = True, f"home motion of {path.duration:.1f} s started"
        return response

    def _home_path(self) -> JointPath:
        if not self.active:
            raise Refused.because(Reason.NOT_ACTIVE, "executor_node is not active")
        if self._stopped:
            raise Refused.because(Reason.STOPPED, "stopped; call ~/resume first")
        if self._commanded.motion is not None:
            raise Refused.because(Reason.NOT_ACTIVE, "another motion is on its way; cancel it or wait for its end")
        deaf = self._backend.deaf_topics()
        if deaf:
            raise Refused.because(Reason.INTERNAL, f"no controller subscribes to {', '.join(deaf)}")
        return self._decision.home_path(self._measured(self._now()), self.parameters.home_speed_share)

    # State ----------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _policy_silence(self) -> float:
        """Time since the last heartbeat [s, steady]."""
        return math.inf if self._heartbeat_ns is None else (time.monotonic_ns() - self._heartbeat_ns) / 1e9

    def _policy_silent_text(self) -> str:
        silence, limit = self._policy_silence(), self.parameters.heartbeat_timeout
        since = "yet" if math.isinf(silence) else f"for {silence:.2f} s (limit {limit:.2f} s)"
        return f"policy_node: no heartbeat {since}"

    def _joint_states_fault(self, now_ns: int) -> str:
        """Say why the joint states cannot be relied on; empty when they can."""
        limit = self.parameters.joint_state_timeout
        fault = self._joint_states.fault(now_ns, time.monotonic_ns(), limit, limit)
        return (self._joint_state_fault or fault) if fault else ""

    def _publish_diagnostics(self) -> None:
        now = self._now()
        problems: dict[str, bytes] = {}
        if self._stopped:
            problems["stopped by service"] = DiagnosticStatus.WARN
        if self._joint_states_fault(now):
            problems[self._joint_states_fault(now)] = DiagnosticStatus.ERROR
        if self._policy_silence() > self.parameters.heartbeat_timeout:
            problems[self._policy_silent_text()] = DiagnosticStatus.WARN
        for topic in self._backend.deaf_topics():
            problems[f"no controller subscribes to {topic}"] = DiagnosticStatus.ERROR
        motion = self._commanded.motion
        values = {
            "executing": "nothing" if motion is None else f"chunk {motion.chunk.chunk_id}" if motion.chunk else "home",
            "accepted": self._ledger.accepted,
            "refused": self._ledger.refused,
            **{f"reason {reason.name}": count for reason, count in self._ledger.reasons.items()},
            "decision [ms]": self._ledger.decision_ms,
            "policy silence [s]": self._policy_silence(),
            "joint state age [s]": self._joint_states.age(now),
            **{f"loop jitter {name} [ms]": value for name, value in self._timing.jitter_ms().items()},
        }
        stamp = self.get_clock().now().to_msg()
        name = f"{self.get_name()}: execution"
        message = diagnostic_array(stamp, name, self._decision.form.embodiment, problems, values)
        self._diagnostics_publisher.publish(message)


def main(args: list[str] | None = None) -> None:
    """Run executor_node as a process."""
    release_image_memory()
    sys.exit(lifecycle.run(ExecutorNode, args=args))
