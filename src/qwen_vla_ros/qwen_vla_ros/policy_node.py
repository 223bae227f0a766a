"""policy_node: obeys sentences. Looks through the cameras, has a Qwen-VLA predict chunks, hands them to the executor.

Callbacks store messages and nothing else, all in one thread; a goal runs in the inference thread (instruction_run).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger

from qwen_vla.image_decoding import DecodingError
from qwen_vla.latency import LatencyEstimate
from qwen_vla.observation_buffer import Observation, Waiting
from qwen_vla.observation_streams import History, Needs
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_msgs.msg import Embodiment as EmbodimentMessage
from qwen_vla_ros import camera_subscriptions, lifecycle
from qwen_vla_ros.blending import Blending
from qwen_vla_ros.camera_subscriptions import ObservationSubscriptions
from qwen_vla_ros.chunk_messages import embodiment_message, message_from_prediction, nanoseconds
from qwen_vla_ros.diagnostics import diagnostic_array
from qwen_vla_ros.embodiment_source import read_embodiment
from qwen_vla_ros.gate import Reason
from qwen_vla_ros.instruction_run import (
    Ended,
    Ending,
    InstructionRun,
    Limits,
    Outcome,
    Previous,
    Report,
    Sent,
    Verdict,
)
from qwen_vla_ros.loaded_policy import PLACEHOLDER, load_policy, state_joints
from qwen_vla_ros.overlapping_run import OverlappingRun
from qwen_vla_ros.parameters import Parameter
from qwen_vla_ros.tip_poses import TipPoses

HEARTBEAT_PERIOD = 0.1  # [s] steady
DIAGNOSTICS_PERIOD = 1.0  # [s] steady
STOP_PATIENCE = 10.0  # [s] a run that is to end may be in the middle of an inference
HOLD_PATIENCE = 1.0  # [s] for the executor to answer a request to hold
LONGEST_INSTRUCTION = 500  # characters
VERDICTS, REASONS = {int(verdict) for verdict in Verdict}, {int(reason) for reason in Reason}
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

PARAMETERS = (
    Parameter("policy", "tiny", "Checkpoint: its folder, or the name of one in checkpoints/", read_only=True),
    Parameter("device", "cpu", "Device of the model, as torch names it (cpu, cuda, cuda:1)", read_only=True),
    Parameter(
        "euler_steps", 0, "Integration steps of the action expert; 0: the checkpoint's own", 0, 100, read_only=True
    ),
    Parameter(
        "accelerate",
        "auto",
        "auto: compiled, in CUDA graphs, on a GPU; graphs: without the compiler; compile: on a CPU, too; off",
        read_only=True,
        choices=("auto", "graphs", "compile", "off"),
    ),
    Parameter(
        "quantize",
        "none",
        "fp8: weights of 8 bits in the expert and the language tower; less memory, more rounding",
        read_only=True,
        choices=("none", "fp8"),
    ),
    Parameter("torch_threads", 0, "Threads of torch; 0: its default", 0, 256, read_only=True),
    Parameter("execution_horizon", 0, "Steps of a chunk to execute before the next; 0: the policy's own", 0, 1000),
    Parameter("seed", -1, "Chunk k of a goal is drawn with seed + k; -1: differently each time", -1, 2**31 - 1),
    Parameter("default_timeout", 60.0, "Timeout of goals that name none [s, ROS time]", 0.1, 86400.0),
    Parameter("max_chunks", 0, "Chunks after which a goal ends as succeeded; 0: no limit", 0, 1_000_000),
    Parameter("observation_timeout", 2.0, "How long an observation may be missing before a goal ends [s]", 0.0, 600.0),
    *camera_subscriptions.PARAMETERS,
    Parameter("max_refusals", 5, "Refused chunks in a row after which a goal ends", 1, 1000),
    Parameter("report_timeout", 2.0, "How long the executor may be late with a report [s]", 0.1, 60.0),
    Parameter(
        "blending",
        str(Blending.SYNCHRONOUS),
        "When to look again: after a chunk, or while it is executed; as in executor_node",
        read_only=True,
        choices=tuple(Blending),
    ),
    Parameter(
        "guidance_schedule",
        "exponential",
        "Real-time chunking: how a chunk's bond with the one before it falls along the horizon",
        read_only=True,
        choices=("linear", "exponential", "ones", "zeros"),
    ),
    Parameter("report_topic", "executor_node/chunk_report", "Reports of the executor (ChunkReport)", read_only=True),
    Parameter("hold_service", "executor_node/hold", "Service that breaks off a motion (Trigger)", read_only=True),
)


class PolicyNode(lifecycle.ManagedNode):
    """Lifecycle node with the action server ~/execute_instruction; one goal at a time."""

    def __init__(self) -> None:
        """Create the node unconfigured."""
        super().__init__("policy_node", PARAMETERS)
        self._changed = threading.Condition()  # guards the streams and the current goal
        self._run: InstructionRun | None = None
        self._reserved = False
        self._work: Future[None] | None = None
        self._outcome: Outcome | None = None
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Learn the robot, load the model for it, open the eyes."""
        p = self.parameters
        self._embodiment = read_embodiment(self.wait_for_robot_description(), p.embodiment_config)
        began = time.perf_counter()
        self._policy = load_policy(
            p.policy, self._embodiment, p.device, p.euler_steps, p.torch_threads, p.accelerate, p.quantize
        )
        self.resources.callback(self._forget_policy)
        self._state_joints = state_joints(self._policy, self._embodiment)
        loaded = time.perf_counter() - began
        continues = Blending(p.blending) is Blending.REAL_TIME_CHUNKING
        prepared = self._policy.warm_up(continues=continues, progress=self._tell_progress)
        self._chunk_id = 0
        self._latest_latency_ms = float("nan")
        self._delay = LatencyEstimate()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self.resources.callback(self._worker.shutdown)
        self._connect()
        self.get_logger().info(
            f"ready for '{self._embodiment.name}': policy loaded in {loaded:.1f} s, prepared in {prepared:.1f} s"
        )

    def _tell_progress(self, done: int, total: int, what: str) -> None:
        """Log what is prepared for; InterruptedError when the process is to end."""
        if self.leaving.is_set():
            raise InterruptedError("the process is ending")
        compiles = done == 0 and self.parameters.device != "cpu"
        note = "; the first start on a GPU compiles and tunes for up to two minutes" * compiles
        self.get_logger().info(f"preparing the policy, {done + 1} of {total}: {what}{note}")

    def _forget_policy(self) -> None:
        del self._policy

    def _connect(self) -> None:
        p = self.parameters

        def publisher(kind, topic, qos=RELIABLE):
            return self.keep(self.create_publisher(kind, topic, qos), self.destroy_publisher)

        self._chunk_publisher = publisher(ActionChunk, "~/action_chunk")
        self._heartbeat_publisher = publisher(Header, "~/heartbeat")
        self._prompt_publisher = publisher(String, "~/prompt", lifecycle.LATCHED)
        self._instruction_publisher = publisher(String, "~/instruction", lifecycle.LATCHED)
        # Absolute by the convention of diagnostic_updater: one topic for all robots, which the aggregator reads.
        self._diagnostics_publisher = publisher(DiagnosticArray, "/diagnostics")
        self._embodiment_publisher = publisher(EmbodimentMessage, "~/embodiment", lifecycle.LATCHED)
        prompt, now = self._embodiment.prompt(PLACEHOLDER), self.get_clock().now().to_msg()
        self._embodiment_publisher.publish(embodiment_message(self._embodiment, prompt, now))
        self._senses = self.keep(self._open_senses(), ObservationSubscriptions.destroy)
        self.keep(
            self.create_subscription(ChunkReport, p.report_topic, self._on_report, RELIABLE), self.destroy_subscription
        )
        self._tips: TipPoses | None = None
        if p.blending == Blending.REAL_TIME_CHUNKING and self._embodiment.control_mode == "eef_delta":
            self._watch_tips()
        self._hold_client = self.keep(self.create_client(Trigger, p.hold_service), self.destroy_client)
        server = ActionServer(
            self,
            ExecuteInstruction,
            "~/execute_instruction",
            self._conclude,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._begin,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
        )
        self.keep(server, ActionServer.destroy)

    def _open_senses(self) -> ObservationSubscriptions:
        """Subscribe to what the policy reads, and, of a robot that drives, to its odometry."""
        needs = Needs(joint_states=bool(self._state_joints), odometry=self._embodiment.odometry is not None)
        config = self._policy.model.config
        history = History(config.history_frames, config.history_rate)
        return ObservationSubscriptions(
            self, self._embodiment, self._changed, self._policy.camera_tags, needs=needs, history=history
        )

    def _watch_tips(self) -> None:
        """Subscribe to the joint states: a chunk of end-effector deltas can only be continued from a known pose."""
        self._tips = TipPoses(self._embodiment)
        for source, topic in enumerate(self._tips.topics):
            subscription = self.create_subscription(
                JointState, topic, partial(self._store_joints, source), qos_profile_sensor_data
            )
            self.keep(subscription, self.destroy_subscription)

    def _store_joints(self, source: int, message: JointState) -> None:
        with self._changed:
            self._tips.push(source, message, time.monotonic_ns())

    def start(self) -> None:
        """Show signs of life."""
        self._timers_of_activation = [
            self.create_timer(HEARTBEAT_PERIOD, self._publish_heartbeat, clock=self._steady),
            self.create_timer(DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=self._steady),
        ]

    def stop(self, reason: lifecycle.StopReason) -> None:
        """End the goal, and only then the signs of life."""
        with self._changed:
            self._changed.notify_all()
        if self._work is not None and not wait([self._work], STOP_PATIENCE).done:
            self.get_logger().error(f"the goal has not ended within {STOP_PATIENCE:.0f} s")
        for timer in self._timers_of_activation:
            self.destroy_timer(timer)

    # Goals ----------------------------------------------------------------------------------------------------------

    def _on_goal(self, goal: ExecuteInstruction.Goal) -> GoalResponse:
        with self._changed:
            if not self.active or self._reserved:
                why = "another goal is being executed" if self.active else "policy_node is not active"
                self.get_logger().warning(f"goal '{goal.instruction}' rejected: {why}")
                return GoalResponse.REJECT
            self._reserved = True
        return GoalResponse.ACCEPT

    def _begin(self, handle: ServerGoalHandle) -> None:
        """Have the inference thread obey; rclpy's own way to run a goal would take up the only thread of callbacks."""
        self.get_logger().info(f"goal: '{handle.request.instruction}'")
        self._instruction_publisher.publish(String(data=handle.request.instruction.strip()))
        self._work = self._worker.submit(self._obey, handle)

    def _conclude(self, handle: ServerGoalHandle) -> ExecuteInstruction.Result:
        """Bring a goal whose work is done into its final state and write down its result."""
        outcome = self._outcome
        with self._changed:
            self._run, self._reserved = None, False
        self._instruction_publisher.publish(String())  # whatever chunk is still on its way obeys nobody
        if outcome.ending == Ending.SUCCESS:
            handle.succeed()
        elif outcome.ending == Ending.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        self.get_logger().info(
            f"goal ended: {outcome.ending.name} {outcome.message} ({outcome.executed} chunks executed, "
            f"{outcome.refused} refused)"
        )
        return ExecuteInstruction.Result(
            error_code=int(outcome.ending),
            error_msg=outcome.message,
            chunks_executed=outcome.executed,
            chunks_refused=outcome.refused,
            latency_ms_p50=outcome.latency_ms_p50,
            latency_ms_p99=outcome.latency_ms_p99,
            duration=outcome.duration,
        )

    def _obey(self, handle: ServerGoalHandle) -> None:
        """Run one goal, in the inference thread, and have it concluded among the callbacks."""
        try:
            run = self._make_run(GoalPorts(self, handle), self._limits(handle.request))
        except ValueError as error:
            nan = float("nan")
            self._outcome = Outcome(Ending.INVALID_GOAL, str(error), 0, 0, nan, nan, 0.0)
        else:
            with self._changed:
                self._run = run
            self._outcome = run.run()
        self.in_turn(handle.execute)

    def _make_run(self, ports: GoalPorts, limits: Limits) -> InstructionRun:
        mode = Blending(self.parameters.blending)
        if mode is Blending.SYNCHRONOUS:
            return InstructionRun(ports, limits, self._changed)
        every_step, continues = mode is Blending.TEMPORAL_ENSEMBLING, mode is Blending.REAL_TIME_CHUNKING
        return OverlappingRun(ports, limits, self._changed, self._delay, every_step, continues)

    def _limits(self, goal: ExecuteInstruction.Goal) -> Limits:
        p = self.parameters
        return Limits(
            timeout=goal.timeout or p.default_timeout,
            max_chunks=p.max_chunks,
            observation_timeout=p.observation_timeout,
            report_timeout=p.report_timeout,
            max_refusals=p.max_refusals,
            max_standstill=p.max_silence,
        )

    def _on_report(self, message: ChunkReport) -> None:
        with self._changed:
            run = self._run
        if run is None or message.verdict not in VERDICTS:
            return
        reasons = frozenset(Reason(code) for code in message.reason_codes if code in REASONS)
        stamp = nanoseconds(message.header.stamp)
        run.take_report(Report(message.chunk_id, Verdict(message.verdict), reasons, message.message, stamp))

    # Signs of life --------------------------------------------------------------------------------------------------

    def _publish_heartbeat(self) -> None:
        message = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._embodiment.base_frame)
        self._heartbeat_publisher.publish(message)

    def _publish_diagnostics(self) -> None:
        now = self.get_clock().now()
        with self._changed:
            problems = dict.fromkeys(self._senses.faults(now.nanoseconds), DiagnosticStatus.ERROR)
            streams = self._senses.diagnostics(now.nanoseconds, self._embodiment.name)
        values = {"goal": "running" if self._reserved else "none", "latency [ms]": self._latest_latency_ms}
        name = f"{self.get_name()}: inference"
        message = diagnostic_array(now.to_msg(), name, self._embodiment.name, problems, values)
        message.status = [*message.status, *streams]
        self._diagnostics_publisher.publish(message)


class GoalPorts:
    """What one goal needs of the node (instruction_run.Ports); lives in the inference thread."""

    def __init__(self, node: PolicyNode, handle: ServerGoalHandle) -> None:
        """Check the goal and publish its prompt; ValueError when it makes no sense."""
        self._node, self._handle = node, handle
        goal = handle.request
        self._instruction = goal.instruction.strip()
        if len(self._instruction) > LONGEST_INSTRUCTION:
            raise ValueError(f"the instruction has {len(self._instruction)} characters (limit {LONGEST_INSTRUCTION})")
        node._policy.check_instruction(self._instruction)
        if not 0.0 <= goal.timeout < float("inf"):
            raise ValueError(f"timeout {goal.timeout} s must be a number, 0 for the node's default or more")
        prompt = node._embodiment.prompt(self._instruction)  # ValueError where it could pass for a special token
        node._prompt_publisher.publish(String(data=prompt))
        self._drawn = 0
        self._began_ns = self.now()

    def now(self) -> int:
        """ROS time [ns]."""
        return self._node.get_clock().now().nanoseconds

    def interruption(self) -> Ended | None:
        """Why the goal must end at once."""
        if self._handle.is_cancel_requested:
            return Ended(Ending.CANCELED, "cancelled by the client")
        if not self._node.active:
            return Ended(Ending.NOT_ACTIVE, self._node.stop_reason.value)
        return None

    def observe(self, not_before_ns: int) -> Observation | Waiting:
        """Choose what the policy is given; its history begins with the goal."""
        return self._node._senses.select(self.now(), not_before_ns, history_from_ns=self._began_ns)

    def infer(self, observation: Observation, previous: Previous | None = None):
        """Decode the images that were chosen and predict a chunk."""
        node, seen = self._node, self._perceive(observation)
        first = node.parameters.seed
        seed = None if first < 0 else first + self._drawn
        self._drawn += 1
        horizon = node._embodiment.chunk_size
        if previous is None or previous.consumed >= horizon:
            return node._policy.infer(seen, seed=seed)
        steps = node.parameters.execution_horizon or previous.chunk.execution_horizon
        steps = min(steps, horizon)
        return node._policy.predict_action_chunk(
            seen,
            previous.chunk,
            inference_delay=min(previous.delay, steps, horizon - steps),
            execution_horizon=steps,
            schedule=node.parameters.guidance_schedule,
            consumed=previous.consumed,
            seed=seed,
        )

    def _perceive(self, observation: Observation):
        """Decode the images that were chosen, and bring the joints into the order of the policy's state."""
        from qwen_vla import Observation as PolicyObservation

        senses, joints = self._node._senses, self._node._state_joints
        try:
            images = senses.decode(observation)
            tips = self._tip_poses(observation)
        except (DecodingError, ValueError) as error:
            raise Ended(Ending.INFERENCE_STOPPED, str(error)) from error
        positions = senses.streams.positions(observation)
        state = np.array([positions[joint] for joint in joints]) if joints else None
        return PolicyObservation(images, self._instruction, observation.stamp_ns, state, tips)

    def _tip_poses(self, observation: Observation):
        tips = self._node._tips
        if tips is None:
            return None
        with self._node._changed:
            return tips.at(observation.stamp_ns)

    def publish(self, chunk) -> Sent:
        """Number a chunk and publish it."""
        node = self._node
        node._chunk_id += 1
        base, steps = node._embodiment.base_frame, node.parameters.execution_horizon
        message = message_from_prediction(chunk, node._chunk_id, base, steps)
        node._chunk_publisher.publish(message)
        node._latest_latency_ms = (self.now() - chunk.stamp_ns) / 1e6
        executed, whole = message.execution_horizon * message.period, message.horizon * message.period
        return Sent(node._chunk_id, executed, node._latest_latency_ms, whole, message.period)

    def hold(self) -> None:
        """Have the executor break off what it is doing."""
        future = self._node._hold_client.call_async(Trigger.Request())
        if not self._node.active:
            return  # a transition waits for this thread, and as long as it does, no answer is received
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(HOLD_PATIENCE):
            self._node._hold_client.remove_pending_request(future)
            self._node.get_logger().error(
                f"{self._node._hold_client.srv_name} has not answered; the arm stops at the end of the chunk"
            )

    def tell(self, state: str, executed: int, refused: int, latency_ms: float) -> None:
        """Give feedback to the client of the goal."""
        self._handle.publish_feedback(
            ExecuteInstruction.Feedback(
                state=state, chunks_executed=executed, chunks_refused=refused, latency_ms=latency_ms
            )
        )


def main(args: list[str] | None = None) -> None:
    """Run policy_node as a process."""
    code = lifecycle.run(PolicyNode, args=args)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is stopped and released. To take torch apart would cost seconds, and launch kills after five.
    os._exit(code)
