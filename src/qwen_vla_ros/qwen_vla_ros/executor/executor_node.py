# SPDX-License-Identifier: Apache-2.0
"""executor_node: chunks in, checked commands out. Stops the robot when anything it relies on falls silent.

Owns its ROS interface (parameters, lifecycle, topics, services, reports, diagnostics), and whether anything may move at
all. How a chunk moves arms or a base is defined in `execution`.

It must never import torch: it runs on the robot's own computer, beside the controllers.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import Trigger

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.chunk_schema import check_age
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.motion.timed_path import Path
from qwen_vla_control.node_interface import answer_options
from qwen_vla_control.reasons import Reason, Refused, Violation
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.guarded_node import ANY_SIZE
from qwen_vla_rclpy.qos import LATCHED, RELIABLE
from qwen_vla_ros.executor import executor_parameters as offered
from qwen_vla_ros.executor.clock_watch import ClockWatch
from qwen_vla_ros.executor.execution import Execution, Source, execution_of
from qwen_vla_ros.executor.executor_status import problems_of, values_of
from qwen_vla_ros.executor.freeze_watch import FreezeWatch
from qwen_vla_ros.executor.loop_timing import LoopTiming
from qwen_vla_ros.executor.policy_monitor import PolicyMonitor
from qwen_vla_ros.executor.stop_latch import StopLatch
from qwen_vla_ros.ros import lifecycle
from qwen_vla_ros.ros.chunk_messages import LARGEST_CHUNK, ChunkReporter, chunk_from_message
from qwen_vla_ros.ros.diagnostics import diagnostic_array
from qwen_vla_ros.ros.environment import adopt, without_shared_memory
from qwen_vla_ros.ros.publishers import publisher_of, publishers_on

WATCH_PERIOD = 0.02  # [s] steady; reaction time of the watchdogs, and period of the setpoints
DIAGNOSTICS_PERIOD = 1.0  # [s] steady
REFUSAL_LOG_PERIOD = 1.0  # [s] between two refusals in the log; every one is reported
DELIVERY_TIMEOUT = 0.5  # [s] for the devices to acknowledge the last stop before the process exits


class ExecutorNode(lifecycle.ManagedNode):
    """Lifecycle node; commands the robot only while active. The emergency stop is subscribed to in every state.

    After one of its callbacks has raised, the robot holds, and nothing may move until the watchdogs have completed a
    round without a fault.
    """

    def __init__(self) -> None:
        """Create the node unconfigured."""
        super().__init__(offered.INTERFACE.name, offered.PARAMETERS)
        p = self.parameters
        self._latch = StopLatch(p.estop_required, p.estop_timeout)
        self._watchdogs: list = []
        self._raised = ""  # exception of a callback since the last round of the watchdogs
        # One subscription per quality of service: for publishers that pressed before this node started (latched), that
        # resend lost messages (reliable), and that do neither (best effort).
        for qos in (LATCHED, RELIABLE, qos_profile_sensor_data):
            self.create_subscription(offered.ESTOP.kind, p.estop_topic, self._on_estop, qos, largest=ANY_SIZE)

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Load the embodiment, then subscribe."""
        embodiment = self.read_embodiment()
        self._execution = self.keep(execution_of(self, embodiment), Execution.destroy)
        self._reporter = ChunkReporter(embodiment.base_frame)
        self._policy = PolicyMonitor()
        self._clock_watch = ClockWatch()
        self._unready: list[str] = []
        self._connect()
        self.get_logger().info(f"ready for '{embodiment.name}': {self._execution.moves}")
        # Subscribers may determine the message type of a command: discovery starts early.
        self._execution.unready()

    def _connect(self) -> None:
        self._accepted_publisher = self.publish_on(offered.ACCEPTED_CHUNK, RELIABLE)
        self._report_publisher = self.publish_on(offered.CHUNK_REPORT, RELIABLE)
        self._diagnostics_publisher = self.publish_on(lifecycle.DIAGNOSTICS, RELIABLE)
        for source in self._execution.sources:
            self.listen_to(source.endpoint, _taken_by(source), qos_profile_sensor_data, source.topic)
        self.listen_to(offered.HEARTBEAT, self._on_heartbeat, RELIABLE)
        self.listen_to(offered.INSTRUCTION, self._on_instruction, LATCHED)
        self.listen_to(offered.CHUNK, self._on_chunk, RELIABLE, largest=LARGEST_CHUNK)
        self.serve(offered.STOP, self._on_stop)
        self.serve(offered.RESUME, self._on_resume)
        self.serve(offered.RESET_ESTOP, self._on_reset_estop)
        self.serve(offered.HOLD, self._on_hold)
        self.serve(offered.GO_HOME, self._on_go_home)
        self.serve(offered.RESYNCHRONIZE, self._on_resynchronize)

    def start(self) -> None:
        """Start the watchdogs, on the steady clock, which cannot be stopped."""
        self._execution.forget()
        self._timing = LoopTiming(WATCH_PERIOD)
        self._freeze_watch, self._streamed_ns = FreezeWatch(time.monotonic_ns()), self._now()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._watchdogs = [
            self.create_timer(WATCH_PERIOD, self._watch, clock=steady),
            self.create_timer(DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=steady),
        ]

    def stop(self, reason: lifecycle.StopReason) -> None:
        """Stop the robot, and wait until the devices have acknowledged it."""
        for timer in self._watchdogs:
            self.destroy_timer(timer)
        self._watchdogs = []
        self._hold(Reason.DEACTIVATED, reason.value)
        if not self._execution.commands.wait_until_delivered(DELIVERY_TIMEOUT):
            self.get_logger().error("not every command interface has acknowledged the last stop")

    def on_failure(self, text: str) -> None:
        """Hold: the callback did not complete."""
        self._raised = text
        if self.active:
            self._hold(Reason.INTERNAL, text)

    # Inputs ---------------------------------------------------------------------------------------------------------

    def _on_heartbeat(self, _message: Header) -> None:
        self._policy.on_heartbeat(time.monotonic_ns(), self.parameters.heartbeat_timeout)

    def _on_instruction(self, message: String) -> None:
        self._policy.on_instruction(message.data)

    def _on_estop(self, message: Bool, info: Mapping) -> None:
        publisher, now = publisher_of(info), time.monotonic_ns()
        if message.data and self._latch.press(publisher, now):
            self._trip("the emergency stop was pressed")
        # Only while a button is pressed: the graph is queried for every message.
        buttons = publishers_on(self, self.parameters.estop_topic) if self._latch.pressed else {}
        if message.data:
            self._latch.look(buttons)
        else:
            self._latch.release(publisher, buttons, now)

    def _on_chunk(self, message: ActionChunk, info: Mapping) -> None:
        began = time.perf_counter()
        chunk = chunk_from_message(message, publisher_of(info))
        replaced: Motion | None = None
        violations: tuple[Violation, ...] = ()
        try:
            path = self._decide(chunk)
            replaced = self._execution.begin(path, chunk)
        except Refused as refused:
            violations = refused.violations
        except Exception as error:  # deny by default: what could not be checked is refused
            trace = traceback.format_exc()
            self.get_logger().error(f"chunk {chunk.chunk_id}: {trace}", throttle_duration_sec=REFUSAL_LOG_PERIOD)
            violations = (Violation(Reason.INTERNAL, f"the check failed: {error}"),)
        now, decision_ms = self._now(), (time.perf_counter() - began) * 1e3  # the command has been sent
        self._policy.on_verdict(chunk, accepted=not violations)
        if violations:
            self._report(self._reporter.refuse(chunk, violations, now, decision_ms))
            text = f"chunk {chunk.chunk_id} refused: {'; '.join(v.message for v in violations)}"
            self.get_logger().warning(text, throttle_duration_sec=REFUSAL_LOG_PERIOD)
            self._give_up_after_refusals()
            return
        self._accepted_publisher.publish(message)
        if replaced is not None:
            self._report(self._replaced(replaced, chunk))
        self._report(self._reporter.accept(chunk, now, decision_ms))

    def _replaced(self, motion: Motion, chunk: Chunk) -> ChunkReport:
        """Report that a chunk replaced another: aborted, or, where chunks overlap, complete as intended."""
        now, text = self._now(), f"chunk {chunk.chunk_id} took over"
        if not self._execution.overlaps:
            return self._reporter.hold(motion.chunk, Violation(Reason.REPLACED, text), now)
        return self._reporter.complete(motion.chunk, now, text, round((now - motion.start_ns) / 1e9 / chunk.period))

    # Decision -------------------------------------------------------------------------------------------------------

    def _decide(self, chunk: Chunk) -> Path:
        """Return the path of a chunk that may be executed now; Refused otherwise."""
        p, now = self.parameters, self._now()
        if not self.active:
            raise Refused.because(Reason.NOT_ACTIVE, "executor_node is not active")
        found = self._objections() + self._policy.objections(chunk, time.monotonic_ns(), p.heartbeat_timeout)
        found += check_age(chunk.stamp_ns, now, p.max_observation_age, p.max_stamp_lead)
        if found:
            raise Refused(found)
        return self._execution.decide(chunk, now)

    def _objections(self) -> list[Violation]:
        """Reasons in the state of the executor and the devices not to move."""
        found = [stopped] if (stopped := self._latch.objection(time.monotonic_ns())) else []
        if self._raised:
            found.append(Violation(Reason.INTERNAL, f"a callback has failed: {self._raised}"))
        motion = self._execution.motion
        if motion is not None and motion.chunk is None:
            found.append(Violation(Reason.NOT_ACTIVE, f"a {motion.name} is in progress"))
        return found + [Violation(Reason.NOT_READY, problem) for problem in self._execution.unready()]

    # Motion ---------------------------------------------------------------------------------------------------------

    def _hold(self, reason: Reason, why: str, at_ns: int | None = None) -> str:
        """Stop and report the current motion; returns what was done, as text.

        Joints hold at their commanded position at ROS time `at_ns` [ns], by default now.
        """
        held = self._execution.hold(at_ns)
        if held.failures:
            failures = ", ".join(map(repr, held.failures))
            self.get_logger().error(f"not every command interface could be stopped: {failures}")
        text = f"{why}; {held.text}"
        if held.broken_off is not None:
            self._report(self._reporter.hold(held.broken_off.chunk, Violation(reason, text), self._now()))
            self.get_logger().warning(text)
        return text

    def _trip(self, why: str) -> None:
        """Stop because of the emergency stop."""
        self.get_logger().error(f"{why}; nothing moves until ~/reset_estop")
        if self.active:
            self._hold(Reason.EMERGENCY_STOP, why)

    def _give_up_after_refusals(self) -> None:
        motion, limit = self._execution.motion, self.parameters.max_refusals
        if self.active and motion is not None and motion.chunk is not None and self._policy.refusals >= limit:
            self._hold(Reason.REFUSED_TOO_OFTEN, f"{self._policy.refusals} chunks in a row were refused")

    # Watchdogs ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        now, steady = self._now(), time.monotonic_ns()
        self._timing.tick(steady)
        self._hold_after_freeze(steady)
        if self._freeze_watch.catching_up(steady):
            return
        if self._latch.watch(steady):
            self._trip("the emergency stop has fallen silent")
        motion = self._execution.motion
        if motion is not None:
            broken = self._broken(motion, now, steady)
            if broken is not None:
                self._hold_after_freeze(time.monotonic_ns())  # it may have been frozen within this turn
                if not self._freeze_watch.catching_up(time.monotonic_ns()):
                    self._hold(broken.reason, broken.message)
            elif motion.is_over(now):
                self._complete(motion, now)
        else:
            self._execution.settle()
        self._execution.commands.stream(now)
        self._streamed_ns, self._raised = now, ""

    def _complete(self, motion: Motion, now_ns: int) -> None:
        if unfinished := self._execution.unfinished():
            self._hold(unfinished.reason, unfinished.message)
            return
        self._execution.finish(now_ns)
        message = "" if motion.chunk else f"{motion.name} completed"
        steps = motion.path.steps if self._execution.overlaps and motion.chunk else None
        self._report(self._reporter.complete(motion.chunk, now_ns, message, steps))

    def _hold_after_freeze(self, steady_ns: int) -> None:
        """Detect that this process was frozen until just now.

        It then knows neither the current time, where that is simulated, nor the messages sent in the meantime: holding
        at once would pull the robot back to the commanded position at which the process was frozen. A device that
        takes one setpoint at a time has stopped at the last one, and stays there.
        """
        frozen = self._freeze_watch.frozen(steady_ns)
        if not frozen:
            return
        text = f"this process was frozen for {frozen:.2f} s"
        self.get_logger().warning(text)
        if self._execution.commands.stand and self._execution.motion is not None:
            self._hold(Reason.STALLED, text, self._streamed_ns)

    def _broken(self, motion: Motion, now_ns: int, steady_ns: int) -> Violation | None:
        """Why the motion must not continue; None when it may."""
        p = self.parameters
        still = self._clock_watch.standstill(now_ns, steady_ns)
        if still > p.clock_timeout:
            return Violation(Reason.CLOCK_STOPPED, f"ROS time has not advanced for {still:.1f} s; is /clock published?")
        if bad := self._execution.lost() or self._execution.not_following():
            return bad
        silent = self._policy.silent_text(steady_ns, p.heartbeat_timeout)
        if silent and motion.chunk is not None:
            return Violation(Reason.POLICY_SILENT, silent)
        fault = self._execution.fault()
        return Violation(Reason.NOT_READY, fault) if fault else None

    # Services -------------------------------------------------------------------------------------------------------

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._latch.stopped = True
        text = self._hold(Reason.STOPPED, "stopped by service") if self.active else "stopped; the node is not active"
        response.success, response.message = True, f"{text}; chunks are refused until ~/resume"
        self.get_logger().warning(response.message)
        return response

    def _on_resume(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        stopped = self._latch.stopped
        response.success, response.message = True, "chunks are accepted again" if stopped else "was not stopped"
        self._latch.stopped = False
        return response

    def _on_reset_estop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        why_not = self._latch.reset(time.monotonic_ns())
        response.success, response.message = not why_not, why_not or "the emergency stop is reset"
        return response

    def _on_hold(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "executor_node is not active"
        elif self._execution.motion is None:
            response.success, response.message = True, "nothing was being executed"
        else:
            response.success, response.message = True, self._hold(Reason.CANCELED, "canceled")
        return response

    def _on_go_home(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._refuse_own_motion()
            path = self._execution.home_path()
            self._execution.begin(path, None)
        except Refused as refused:
            response.success, response.message = False, f"home motion refused: {refused}"
        else:
            response.success, response.message = True, f"home motion of {path.duration:.1f} s started"
        return response

    def _on_resynchronize(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._refuse_own_motion()
            response.success, response.message = True, self._execution.resynchronize(self._on_resynchronized)
        except Refused as refused:
            response.success, response.message = False, f"not resynchronized: {refused}"
        self.get_logger().info(response.message)
        return response

    def _on_resynchronized(self, good: bool, text: str) -> None:
        """Controllers were restarted, or could not be."""
        if good:
            self.get_logger().info(text)
            self._report(self._reporter.complete(None, self._now(), text))
        else:
            self.get_logger().error(text)
            self._report(self._reporter.hold(None, Violation(Reason.NOT_READY, text), self._now()))

    def _refuse_own_motion(self) -> None:
        """Raise Refused unless a motion of the executor's own may begin."""
        if not self.active:
            raise Refused.because(Reason.NOT_ACTIVE, "executor_node is not active")
        if self._execution.motion is not None:
            raise Refused.because(Reason.NOT_ACTIVE, "another motion is in progress; cancel it or wait until it ends")
        objections = self._objections()
        if objections:
            raise Refused(objections)

    # State ----------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _report(self, report: ChunkReport) -> None:
        self._report_publisher.publish(report)

    def _publish_diagnostics(self) -> None:
        steady, p, execution = time.monotonic_ns(), self.parameters, self._execution
        unready = execution.unready()
        for problem in unready if unready != self._unready else ():
            self.get_logger().warning(problem)
        self._unready = unready
        found = [violation.message for violation in (execution.lost(), execution.mismatch()) if violation]
        faults = [fault for fault in (*found, execution.commands.fault(), *unready) if fault]
        stopped, silent = self._latch.objection(steady), self._policy.silent_text(steady, p.heartbeat_timeout)
        problems = problems_of(stopped, faults, silent, self._policy.refusals, p.max_refusals)
        values = values_of(execution.motion, self._reporter, self._timing)
        values["policy silence [s]"] = self._policy.silence(steady)
        values[execution.age_name] = execution.age()
        stamp = self.get_clock().now().to_msg()
        name = f"{self.get_name()}: execution"
        message = diagnostic_array(stamp, name, execution.gate.schema.embodiment, problems, values)
        self._diagnostics_publisher.publish(message)


def _taken_by(source: Source) -> Callable[[Any, Mapping], object]:
    """The callback that passes the messages of a topic to the reader of the robot's state."""
    return lambda message, info: source.take(message, time.monotonic_ns(), publisher_of(info))


def main(args: list[str] | None = None) -> None:
    """Run executor_node as a process."""
    answer_options(offered.INTERFACE, args)
    adopt(without_shared_memory())
    sys.exit(lifecycle.run(ExecutorNode, args=args))
