# SPDX-License-Identifier: Apache-2.0
"""policy_node: executes instructions. Observes, has a policy predict chunks, and sends them to the executor.

Callbacks only store messages, all in one thread; a goal runs in the inference thread (instruction_run).
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from action_msgs.srv import CancelGoal
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger

from embodiment_descriptions import ControlMode, Kinematics
from qwen_vla.policies import ContinuingPolicy, PolicyOptions, PreparedPolicy, close_policy, open_policy, warm_up
from qwen_vla.policies.checkpoint import PLACEHOLDER
from qwen_vla.policies.identity import identity_of
from qwen_vla.policies.latency import LatencyEstimate
from qwen_vla_control.motion.blending import Blending
from qwen_vla_control.node_interface import Endpoint, NodeInterface, answer_options
from qwen_vla_control.observation.robot_streams import Needs
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ActionChunk, ChunkReport, PolicyIdentity
from qwen_vla_msgs.msg import Embodiment as EmbodimentMessage
from qwen_vla_msgs.srv import StartPolicy
from qwen_vla_rclpy.printable import printable
from qwen_vla_rclpy.qos import LATCHED, RELIABLE
from qwen_vla_ros.policy import camera_subscriptions
from qwen_vla_ros.policy.camera_subscriptions import ObservationSubscriptions
from qwen_vla_ros.policy.executor_client import ExecutorClient, identity_message
from qwen_vla_ros.policy.goal_context import NodeGoalContext, Parts
from qwen_vla_ros.policy.instruction_run import GoalContext, InstructionRun, Limits, Outcome, RunEnded
from qwen_vla_ros.policy.observation_reader import ObservationReader
from qwen_vla_ros.policy.overlapping_run import OverlappingRun
from qwen_vla_ros.ros import lifecycle
from qwen_vla_ros.ros.chunk_messages import (
    checked_instruction,
    checked_timeout,
    embodiment_message,
    report_from_message,
)
from qwen_vla_ros.ros.diagnostics import diagnostic_array
from qwen_vla_ros.ros.parameters import Parameter
from qwen_vla_ros.ros.reports import Ending

HEARTBEAT_PERIOD = 0.1  # [s] steady
DIAGNOSTICS_PERIOD = 1.0  # [s] steady
STOP_PATIENCE = 10.0  # [s] a run that must end may be in the middle of an inference
LONGEST_STATE = 120  # characters

PARAMETERS = (
    Parameter(
        "policy",
        "tiny",
        "Checkpoint: its folder, or the name of one in checkpoints/; or NAME://ADDRESS of an installed policy",
        read_only=True,
    ),
    Parameter("device", "cpu", "Device of the model, as torch names it (cpu, cuda, cuda:1)", read_only=True),
    Parameter(
        "euler_steps", 0, "Integration steps of the action expert; 0: the checkpoint's own", 0, 100, read_only=True
    ),
    Parameter(
        "accelerate",
        "auto",
        "auto: compiled, in CUDA graphs, on a GPU; graphs: CUDA graphs only; compile: also on a CPU; off",
        read_only=True,
        choices=("auto", "graphs", "compile", "off"),
    ),
    Parameter(
        "quantize",
        "none",
        "fp8: 8-bit weights in the action expert and the language tower; less memory, more rounding",
        read_only=True,
        choices=("none", "fp8"),
    ),
    Parameter("torch_threads", 0, "Number of torch threads; 0: torch's default", 0, 256, read_only=True),
    Parameter("execution_horizon", 0, "Steps of a chunk to execute before the next; 0: the policy's own", 0, 1000),
    Parameter("seed", -1, "Chunk k of a goal is sampled with seed + k; -1: a random seed", -1, 2**31 - 1),
    Parameter("default_timeout", 60.0, "Timeout of goals without one of their own [s, ROS time]", 0.1, 86400.0),
    Parameter("max_chunks", 0, "Chunks after which a goal ends as succeeded; 0: no limit", 0, 1_000_000),
    Parameter("observation_timeout", 2.0, "How long an observation may be missing before a goal ends [s]", 0.0, 600.0),
    *camera_subscriptions.PARAMETERS,
    Parameter("max_refusals", 5, "Refused chunks in a row after which a goal ends", 1, 1000),
    Parameter("report_timeout", 2.0, "How late a report of the executor may be [s]", 0.1, 60.0),
    Parameter(
        "blending",
        str(Blending.SYNCHRONOUS),
        "When to observe again: after a chunk, or during its execution; as in executor_node",
        read_only=True,
        choices=tuple(Blending),
    ),
    Parameter(
        "guidance_schedule",
        "exponential",
        "Real-time chunking: how the guidance toward the previous chunk decays along the horizon",
        read_only=True,
        choices=("linear", "exponential", "ones", "zeros"),
    ),
    Parameter("report_topic", "executor_node/chunk_report", "Reports of the executor (ChunkReport)", read_only=True),
    Parameter("hold_service", "executor_node/hold", "Service that aborts a motion (Trigger)", read_only=True),
    Parameter("state_service", "executor_node/get_state", "Service of the executor's state (GetState)", read_only=True),
)

ACTION_CHUNK = Endpoint("~/action_chunk", ActionChunk, "Predicted chunks, for the executor")
HEARTBEAT = Endpoint("~/heartbeat", Header, "Heartbeat, ten times a second while active")
PROMPT = Endpoint("~/prompt", String, "The prompt of the current goal, latched")
INSTRUCTION = Endpoint("~/instruction", String, "The current instruction, latched; empty: none")
EMBODIMENT = Endpoint("~/embodiment", EmbodimentMessage, "The robot as the policy knows it, latched")
IDENTITY = Endpoint("~/identity", PolicyIdentity, "Which policy predicts, latched; also in every chunk")
CHUNK_REPORT = Endpoint("{report_topic}", ChunkReport, "The executor's reports on each chunk")
HOLD = Endpoint("{hold_service}", Trigger, "Aborts a motion when a goal ends")
EXECUTOR_STATE = Endpoint("{state_service}", GetState, "Asked when a goal begins: whoever answers has found this node")
EXECUTE = Endpoint("~/execute_instruction", ExecuteInstruction, "Execute an instruction until canceled or finished")
START = Endpoint("~/start_policy", StartPolicy, "Send a goal to ~/execute_instruction, for user interfaces")
CANCEL = Endpoint("~/cancel_policy", Trigger, "Cancel the goal of ~/execute_instruction, whoever sent it")
CANCEL_GOAL = Endpoint(f"{EXECUTE.name}/_action/cancel_goal", CancelGoal, "Cancellation, part of the action")

INTERFACE = NodeInterface(
    package="qwen_vla_ros",
    name="policy_node",
    docstring=__doc__,
    parameters=(*lifecycle.COMMON_PARAMETERS, *PARAMETERS),
    publishes=(ACTION_CHUNK, HEARTBEAT, PROMPT, INSTRUCTION, EMBODIMENT, IDENTITY, lifecycle.DIAGNOSTICS),
    subscribes=(
        *(lifecycle.ROBOT_DESCRIPTION, camera_subscriptions.IMAGES, camera_subscriptions.CAMERA_INFO),
        *(camera_subscriptions.JOINT_STATES, camera_subscriptions.ODOMETRY, CHUNK_REPORT),
    ),
    services=(START, CANCEL),
    actions=(EXECUTE,),
    calls=(HOLD, EXECUTOR_STATE),
    managed=True,
    example="-p autostart:=true",
)


class PolicyNode(lifecycle.ManagedNode):
    """Lifecycle node with the action server ~/execute_instruction; one goal at a time."""

    def __init__(self) -> None:
        """Create the node unconfigured."""
        super().__init__(INTERFACE.name, PARAMETERS)
        self._changed = threading.Condition()  # guards the streams and the current goal
        self._run: InstructionRun | None = None
        self._reserved = False
        self._work: Future[None] | None = None
        self._outcome: Outcome | None = None
        self._parts: Parts | None = None
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Load the embodiment and the policy, subscribe."""
        p = self.parameters
        self._embodiment = self.read_embodiment()
        began = time.perf_counter()
        options = PolicyOptions(p.device, p.euler_steps, p.torch_threads, accelerate=p.accelerate, quantize=p.quantize)
        self._policy = open_policy(p.policy, self._embodiment, options)
        self._identity = identity_of(p.policy, self._policy, self._embodiment)
        self.resources.callback(self._forget_policy)
        continues = p.blending == Blending.REAL_TIME_CHUNKING
        if continues and not isinstance(self._policy, ContinuingPolicy):
            raise ValueError(
                f"{p.policy} cannot continue a chunk, which blending '{p.blending}' requires; choose another"
            )
        loaded = time.perf_counter() - began
        prepared = warm_up(self._policy, continues, self._tell_progress)
        self._delay = LatencyEstimate()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self.resources.callback(self._worker.shutdown)
        self._connect()
        self.get_logger().info(
            f"ready for '{self._embodiment.name}': policy loaded in {loaded:.1f} s, prepared in {prepared:.1f} s"
        )

    def _tell_progress(self, done: int, total: int, what: str) -> None:
        """Log what is being prepared; InterruptedError when the process is exiting."""
        if self.leaving.is_set():
            raise InterruptedError("the process is exiting")
        compiles = done == 0 and self.parameters.device != "cpu"
        note = "; the first start on a GPU compiles and tunes , which takes up to two minutes" * compiles
        self.get_logger().info(f"preparing the policy, {done + 1} of {total}: {what}{note}")

    def _forget_policy(self) -> None:
        self._parts = None
        close_policy(self._policy)
        del self._policy

    def _connect(self) -> None:
        chunk_publisher = self.publish_on(ACTION_CHUNK, RELIABLE)
        self._heartbeat_publisher = self.publish_on(HEARTBEAT, RELIABLE)
        self._prompt_publisher = self.publish_on(PROMPT, LATCHED)
        self._instruction_publisher = self.publish_on(INSTRUCTION, LATCHED)
        self._diagnostics_publisher = self.publish_on(lifecycle.DIAGNOSTICS, RELIABLE)
        self._embodiment_publisher = self.publish_on(EMBODIMENT, LATCHED)
        prompt, now = self._embodiment.prompt(PLACEHOLDER), self.get_clock().now().to_msg()
        self._embodiment_publisher.publish(embodiment_message(self._embodiment, prompt, now))
        identity = identity_message(self._identity)
        self._identity_publisher = self.publish_on(IDENTITY, LATCHED)
        self._identity_publisher.publish(identity)
        self._streams = self.keep(self._subscribe(), ObservationSubscriptions.destroy)
        self.listen_to(CHUNK_REPORT, self._on_report, RELIABLE)
        reader = ObservationReader(self._streams, self._policy.state_names, self._kinematics_of_tips(), self._changed)
        self._executor_client = ExecutorClient(
            self,
            chunk_publisher,
            self._heartbeat_publisher,
            self.parameters.report_topic,
            hold=self.client_of(HOLD),
            state=self.client_of(EXECUTOR_STATE),
            base_frame=self._embodiment.base_frame,
            policy=identity,
            is_active=lambda: self.active,
            beat=self._publish_heartbeat,
        )
        self._parts = Parts(
            now=lambda: self.get_clock().now().nanoseconds,
            reader=reader,
            policy=self._policy,
            chunk_size=self._embodiment.chunk_size,
            executor=self._executor_client,
            parameters=self.parameters,
        )
        server = ActionServer(
            self,
            EXECUTE.kind,
            EXECUTE.name,
            self._conclude,
            goal_callback=self._on_goal,  # pyright: ignore[reportArgumentType]  # rclpy's hint names a cancel request
            handle_accepted_callback=self._begin,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
        )
        self.keep(server, ActionServer.destroy)
        self._own_goals = self.keep(ActionClient(self, EXECUTE.kind, EXECUTE.name), ActionClient.destroy)
        self._own_cancel = self.client_of(CANCEL_GOAL)
        group = MutuallyExclusiveCallbackGroup()  # they wait for the action server, which is in the default one
        self.serve(START, self._on_start_policy, callback_group=group)
        self.serve(CANCEL, self._on_cancel_policy, callback_group=group)

    def _subscribe(self) -> ObservationSubscriptions:
        """Subscribe to the policy's input, and, for a mobile base, to its odometry."""
        needs = Needs(joint_states=bool(self._policy.state_names), odometry=self._embodiment.odometry is not None)
        return ObservationSubscriptions(
            self, self._embodiment, self._changed, self._policy.camera_tags, needs=needs, history=self._policy.history
        )

    def _kinematics_of_tips(self) -> list[Kinematics]:
        """Kinematics of every arm, if required: a chunk of end-effector deltas is continued only from a known pose."""
        robot = self._embodiment
        continues = self.parameters.blending == Blending.REAL_TIME_CHUNKING
        by_pose = robot.control_mode is ControlMode.EEF_DELTA
        return [Kinematics(robot, arm=index) for index in range(len(robot.arms))] if continues and by_pose else []

    def start(self) -> None:
        """Start the heartbeat."""
        self._timers_of_activation = [
            self.create_timer(HEARTBEAT_PERIOD, self._publish_heartbeat, clock=self._steady),
            self.create_timer(DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=self._steady),
        ]

    def stop(self, reason: lifecycle.StopReason) -> None:
        """End the goal, and only then the heartbeat."""
        with self._changed:
            self._changed.notify_all()
        if self._work is not None and not wait([self._work], STOP_PATIENCE).done:
            self.get_logger().error(f"the goal has not ended within {STOP_PATIENCE:.0f} s")
        for timer in self._timers_of_activation:
            self.destroy_timer(timer)

    # Goals ----------------------------------------------------------------------------------------------------------

    def _on_goal(self, goal: ExecuteInstruction.Goal) -> GoalResponse:
        with self._changed:
            if why := self._refusal():
                self.get_logger().warning(f"goal '{goal.instruction}' rejected: {why}")
                return GoalResponse.REJECT
            self._reserved = True
        return GoalResponse.ACCEPT

    def _refusal(self) -> str:
        """Why a goal would be rejected now; empty if it would not."""
        if not self.active:
            return "policy_node is not active"
        return "another goal is being executed" if self._reserved else ""

    async def _on_start_policy(
        self, request: StartPolicy.Request, response: StartPolicy.Response
    ) -> StartPolicy.Response:
        """Send the goal to this node's own action server, so that there is one way to execute an instruction."""
        goal = ExecuteInstruction.Goal(instruction=request.instruction, timeout=request.timeout)
        try:
            instruction_of(goal)
        except ValueError as error:
            response.message = printable(error)
            return response
        response.message = self._refusal()
        if not response.message and not self._own_goals.server_is_ready():
            response.message = "policy_node has not found its own action server yet; try again"
        if not response.message:
            handle = await self._own_goals.send_goal_async(goal)
            response.success = handle is not None and handle.accepted
            response.message = "" if response.success else "another goal came first"
        return response

    async def _on_cancel_policy(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Cancel all goals, which is what an action server does for a request that names none."""
        if not self._reserved:
            response.message = "no goal is being executed"
            return response
        canceled = await self._own_cancel.call_async(CancelGoal.Request())
        response.success = canceled is not None and bool(canceled.goals_canceling)
        response.message = "" if response.success else "the goal had just ended"
        return response

    def _begin(self, handle: ServerGoalHandle) -> None:
        """Execute in the inference thread; rclpy's default would block the only callback thread for the whole goal."""
        self.get_logger().info(f"goal: '{handle.request.instruction}'")
        self._work = self._worker.submit(self._execute, handle)

    def _conclude(self, handle: ServerGoalHandle) -> ExecuteInstruction.Result:
        """Set the final state and result of a goal whose run is over."""
        outcome = self._outcome or Outcome.before_it_began(Ending.INTERNAL, "the goal was not run")
        with self._changed:
            self._run, self._reserved = None, False
        self._instruction_publisher.publish(String())  # chunks still in flight have no instruction
        if outcome.ending == Ending.SUCCESS:
            handle.succeed()
        elif outcome.ending == Ending.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        self.get_logger().info(
            f"goal ended: {outcome.ending.name} {outcome.message} (chunks: {outcome.executed} executed, "
            f"{outcome.refused} refused)"
        )
        return ExecuteInstruction.Result(
            error_code=int(outcome.ending),
            error_msg=printable(outcome.message),
            chunks_executed=outcome.executed,
            chunks_refused=outcome.refused,
            latency_ms_p50=outcome.latency_ms_p50,
            latency_ms_p99=outcome.latency_ms_p99,
            duration=outcome.duration,
        )

    def _execute(self, handle: ServerGoalHandle) -> None:
        """Run one goal, in the inference thread, and have it concluded in the callback thread."""
        try:
            self._executor_client.find_executor()
            run = self._make_run(self._goal_context(handle), self._limits(handle.request))
            with self._changed:
                self._run = run
            self._outcome = run.run()
        except ValueError as error:
            self._outcome = Outcome.before_it_began(Ending.INVALID_GOAL, str(error))
        except Exception as error:  # in any case, the next goal must not wait for this one
            self.get_logger().error(traceback.format_exc())
            self._outcome = Outcome.before_it_began(Ending.INTERNAL, f"{type(error).__name__}: {error}")
        self.in_turn(handle.execute)

    def _goal_context(self, handle: ServerGoalHandle) -> GoalContext:
        """Check the goal and publish its prompt; ValueError when it is invalid."""
        if self._parts is None:
            raise RuntimeError("policy_node is not configured")
        instruction = instruction_of(handle.request)
        if isinstance(self._policy, PreparedPolicy):
            self._policy.check_instruction(instruction)
        prompt = self._embodiment.prompt(instruction)  # ValueError where it could be taken for a special token
        self._prompt_publisher.publish(String(data=prompt))
        self._instruction_publisher.publish(String(data=instruction))
        return NodeGoalContext(
            self._parts, instruction, partial(self._interruption, handle), partial(send_feedback, handle)
        )

    def _interruption(self, handle: ServerGoalHandle) -> RunEnded | None:
        """Return why a goal must end at once, None while it may continue."""
        if handle.is_cancel_requested:
            return RunEnded(Ending.CANCELED, "canceled by the client")
        if not self.active:
            return RunEnded(Ending.NOT_ACTIVE, self.stop_reason.value if self.stop_reason else "never activated")
        return None

    def _make_run(self, context: GoalContext, limits: Limits) -> InstructionRun:
        mode = Blending(self.parameters.blending)
        if mode is Blending.SYNCHRONOUS:
            return InstructionRun(context, limits, self._changed)
        every_step, continues = mode is Blending.TEMPORAL_ENSEMBLING, mode is Blending.REAL_TIME_CHUNKING
        return OverlappingRun(context, limits, self._changed, self._delay, every_step, continues)

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
        report = report_from_message(message)
        if run is not None and report is not None:
            run.take_report(report)

    # Heartbeat ------------------------------------------------------------------------------------------------------

    def _publish_heartbeat(self) -> None:
        message = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._embodiment.base_frame)
        self._heartbeat_publisher.publish(message)

    def _publish_diagnostics(self) -> None:
        now = self.get_clock().now()
        with self._changed:
            problems = dict.fromkeys(self._streams.faults(now.nanoseconds), DiagnosticStatus.ERROR)
            streams = self._streams.diagnostics(now.nanoseconds, self._embodiment.name)
        latency = self._executor_client.latest_latency_ms
        values = {"goal": "running" if self._reserved else "none", "latency [ms]": latency}
        name = f"{self.get_name()}: inference"
        message = diagnostic_array(now.to_msg(), name, self._embodiment.name, problems, values)
        message.status = [*message.status, *streams]
        self._diagnostics_publisher.publish(message)


def instruction_of(goal: ExecuteInstruction.Goal) -> str:
    """The instruction of a goal; ValueError when the goal is invalid."""
    checked_timeout(goal.timeout)
    return checked_instruction(str(goal.instruction))


def send_feedback(handle: ServerGoalHandle, state: str, executed: int, refused: int, latency_ms: float) -> None:
    """Send feedback to the client of a goal."""
    feedback = ExecuteInstruction.Feedback(
        state=printable(state, LONGEST_STATE), chunks_executed=executed, chunks_refused=refused, latency_ms=latency_ms
    )
    handle.publish_feedback(feedback)  # pyright: ignore[reportArgumentType]  # rclpy's hint names the whole message


def main(args: list[str] | None = None) -> None:
    """Run policy_node as a process."""
    answer_options(INTERFACE, args)
    code = lifecycle.run(PolicyNode, args=args)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is stopped and released. Destroying torch would take seconds, and launch kills after five.
    os._exit(code)
