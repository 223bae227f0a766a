# SPDX-License-Identifier: Apache-2.0
"""Common handling of the transitions of all managed nodes, and of the start and stop of their processes.

A node defines its work in three methods; this module determines when they run. `set_up` raises to refuse configuration;
`stop` is called exactly once per activation, however it ends, with the reason. What they create is added to
`resources`, which are released at cleanup, also after a set_up that failed midway. Errors are logged here, because
rclpy drops them. A callback that raises does not end the node: see GuardedNode.

All callbacks of a node, including transitions, run in its default callback group, one at a time, so that a node needs
no locks; other threads call into a node through `in_turn`.
"""

from __future__ import annotations

import gc
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from enum import Enum
from typing import Any, TypeVar, cast

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.client import Client
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from embodiment_descriptions import Embodiment, embodiment_file
from qwen_vla_control.node_interface import Endpoint
from qwen_vla_rclpy import process_start
from qwen_vla_rclpy.guarded_executor import GuardedExecutor
from qwen_vla_rclpy.guarded_node import GuardedNode
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.embodiment_source import read_embodiment
from qwen_vla_ros.ros.parameters import Parameter, Parameters

LARGEST_DESCRIPTION = 8_000_000  # [bytes]
DESCRIPTION_LOG_PERIOD = 10.0  # [s] between two log messages about a changed description
RETRY_PERIOD = 1.0  # [s] between two attempts to configure under autostart
# A goal that was ended is concluded in the first turn, has its result in the second and sends it in the third.
TURNS_TO_SEND = 3
SIGNALS = {signal.SIGINT, signal.SIGTERM}

COMMON_PARAMETERS = (
    Parameter("autostart", False, "Configure and activate automatically, as soon as possible", read_only=True),
    Parameter(
        "embodiment_config",
        "",
        "The robot: path of its embodiment YAML, or its name; empty: the name of the robot in its URDF",
        read_only=True,
    ),
    Parameter("robot_description_timeout", 10.0, "How long configuration waits for robot_description [s]", 0.0, 600.0),
)
ROBOT_DESCRIPTION = Endpoint("robot_description", String, "URDF of the robot, latched")
# Absolute by the convention of diagnostic_updater: one topic for all robots, which the aggregator reads.
DIAGNOSTICS = Endpoint("/diagnostics", DiagnosticArray, "Status of the node, once a second")

Entity = TypeVar("Entity")


class StopReason(Enum):
    """Why an active node stopped, as text for logs and results."""

    DEACTIVATED = "the node was deactivated"
    SHUT_DOWN = "the node was shut down"
    INTERRUPTED = "the process received SIGINT"
    TERMINATED = "the process received SIGTERM"
    FAILED = "the node failed"


class ManagedNode(GuardedNode, LifecycleNode):
    """A lifecycle node that works only while `active`.

    Attributes:
        active: True between a successful activation and the first reason to stop.
        stop_reason: why the latest activation ended.
        parameters: current values by name.
        leaving: set when the process is to exit; waiting transitions give up.
        resources: what set_up acquired, released in reverse order at cleanup.
    """

    def __init__(self, name: str, table: Iterable[Parameter]) -> None:
        """Declare the parameters and subscribe to the robot's description."""
        super().__init__(name)
        self.parameters = Parameters(self, (*COMMON_PARAMETERS, *table))
        self.active = False
        self.stop_reason: StopReason | None = None
        self.leaving = threading.Event()
        self.resources = ExitStack()
        self._calls: queue.SimpleQueue[tuple[Callable, Future]] = queue.SimpleQueue()
        self._call_guard = self.create_guard_condition(self._serve_calls)
        self._listen_for_description()

    # Defined by a node ----------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Acquire everything; raise with a message for the user to refuse."""

    def start(self) -> None:
        """Start working; `active` becomes True when this returns. May raise to refuse."""

    def stop(self, reason: StopReason) -> None:
        """Stop working and leave the robot safe; `active` is already False."""

    # For use by a node ----------------------------------------------------------------------------------------------

    def keep(self, entity: Entity, destroy: Callable[[Entity], object]) -> Entity:
        """Have an entity destroyed at cleanup; returns it."""
        self.resources.callback(destroy, entity)
        return entity

    def publish_on(self, topic: Endpoint, qos: QoSProfile | int) -> Publisher:
        """Create a publisher that is destroyed at cleanup."""
        name = topic.name_for(self.parameters)
        return self.keep(self.create_publisher(topic.kind, name, qos), self.destroy_publisher)

    def listen_to(
        self,
        topic: Endpoint,
        callback: Callable[..., Any],
        qos: QoSProfile,
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Subscribe until cleanup; `name` if the robot's YAML defines the topic; options of GuardedNode."""
        name = name or topic.name_for(self.parameters)
        self.keep(self.create_subscription(topic.kind, name, callback, qos, **options), self.destroy_subscription)

    def serve(self, service: Endpoint, callback: Callable[[Any, Any], Any], **options: Any) -> None:
        """Provide a service until cleanup; `options` are those of create_service."""
        name = service.name_for(self.parameters)
        self.keep(self.create_service(service.kind, name, callback, **options), self.destroy_service)

    def client_of(self, service: Endpoint) -> Client:
        """Create a client that is destroyed at cleanup."""
        name = service.name_for(self.parameters)
        return self.keep(self.create_client(service.kind, name), self.destroy_client)

    def read_embodiment(self) -> Embodiment:
        """The robot of robot_description and of its YAML. The YAML is looked for first, since it takes no waiting.

        Raises:
            EmbodimentError, ResourceError: the text or the file is missing or invalid.
            TimeoutError, InterruptedError: as `wait_for_robot_description`.
        """
        config = self.parameters.embodiment_config
        if config:
            embodiment_file(config)
        return read_embodiment(self.wait_for_robot_description(), config)

    def wait_for_robot_description(self) -> str:
        """Return the URDF text; TimeoutError when it is not published, InterruptedError when the process is exiting."""
        limit = time.monotonic() + self.parameters.robot_description_timeout
        while not self._description:
            # Taken here: this runs inside a callback, and no other callback runs meanwhile.
            with self._descriptions.handle:
                taken = self._descriptions.handle.take_message(String, True)
            if taken is not None:
                cast(Callable[..., Any], self._descriptions.callback)(
                    *taken
                )  # the guarded one, which takes its info, too
            elif self.leaving.wait(timeout=0.05):
                raise InterruptedError("the process is exiting")
            if time.monotonic() > limit:
                raise TimeoutError(
                    f"no robot_description on {self.resolve_topic_name('robot_description')}; "
                    "is robot_state_publisher or the simulator running?"
                )
        return self._description

    # Transitions ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Set up; after a failure, what was acquired is released."""
        self.resources.enter_context(self.parameters.locked())
        if not self._attempt(self.set_up):
            self._attempt(self.resources.close)
            return TransitionCallbackReturn.FAILURE
        # The garbage collector would repeatedly scan everything that was loaded and block every thread meanwhile: 0.4 s
        # for 600,000 objects, which is the policy's silence after which the robot is held.
        gc.collect()
        gc.freeze()
        self.resources.callback(gc.unfreeze)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start."""
        if not self._attempt(self.start):
            return TransitionCallbackReturn.FAILURE
        self.active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop; a node that fails to stop is inactive nevertheless."""
        self.end(StopReason.DEACTIVATED)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, including the robot_description: the next configuration may be for another robot."""
        self._attempt(self.resources.close)
        self.destroy_subscription(self._descriptions)
        self._listen_for_description()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and release everything."""
        self.end(StopReason.SHUT_DOWN)
        self._attempt(self.resources.close)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and release everything; the node may be configured again."""
        self.end(StopReason.FAILED)
        self._attempt(self.resources.close)
        return super().on_error(state)

    # For the process ------------------------------------------------------------------------------------------------

    def in_turn(self, function: Callable) -> Future:
        """Have a function called between two callbacks of the node, from any thread; the Future has its result."""
        future: Future = Future()
        self._calls.put((function, future))
        self._call_guard.trigger()
        return future

    def bring_up(self) -> bool:
        """Configure and activate."""
        good = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == good and self.trigger_activate() == good

    def finish(self) -> None:
        """Release everything, from any state."""
        if self._state_machine.current_state[1] in ("unconfigured", "inactive", "active"):
            self.trigger_shutdown()

    def end(self, reason: StopReason) -> None:
        """Stop working if active; only the first reason counts."""
        if not self.active:
            return
        self.stop_reason = reason
        self.active = False  # first, so that nothing new starts
        self._attempt(lambda: self.stop(reason))
        self.get_logger().info(f"stopped: {reason.value}")

    def _listen_for_description(self) -> None:
        self._description = ""
        kind, name = ROBOT_DESCRIPTION.kind, ROBOT_DESCRIPTION.name
        self._descriptions = self.create_subscription(
            kind, name, self._store_description, LATCHED, largest=LARGEST_DESCRIPTION
        )

    def _store_description(self, message: String) -> None:
        if self._description and message.data != self._description:
            text = "robot_description has changed; it takes effect when the node is configured again"
            self.get_logger().warning(text, throttle_duration_sec=DESCRIPTION_LOG_PERIOD)
        self._description = message.data

    def _attempt(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except InterruptedError as error:  # requested by the user, not a fault
            self.get_logger().info(str(error))
            return False
        except (ValueError, OSError) as error:  # invalid input, which the message names
            self.get_logger().error(str(error))
            return False
        except Exception:
            self.get_logger().error(traceback.format_exc())
            return False
        return True

    def _serve_calls(self) -> None:
        """Serve one call; any work it leaves for the executor is done before the next."""
        if self._calls.empty():
            return
        function, future = self._calls.get()
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
        if not self._calls.empty():
            self._call_guard.trigger()


def run(make_node: Callable[[], ManagedNode], args: list[str] | None = None) -> int:
    """Run one managed node until SIGINT or SIGTERM, then stop it in order; returns the process's exit code.

    A second signal ends the process at once. When rclpy itself fails, the node is stopped, too (exit code 1): a node
    that only half works is worse than none.
    """
    code = _run(make_node, args)
    gc.collect()  # a reference cycle would keep the participant, and with it 35 MB of shared memory, beyond the exit
    return code


def _run(make_node: Callable[[], ManagedNode], args: list[str] | None) -> int:
    # Signals are awaited in this thread rather than handled: a handler could interrupt it anywhere. They are blocked
    # before any other thread is started, so that every thread inherits that.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    process_start.init(args, signal_handler_options=SignalHandlerOptions.NO)
    # rclpy's multi-threaded executor submits a callback repeatedly until one submission has started; measured: 38 %
    # of a core for an idle policy_node, and heartbeats up to 0.5 s late.
    executor = GuardedExecutor()
    node = process_start.made(make_node)
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor, node), name="spin")
    spinner.start()
    try:
        reason = _until_signal(node, spinner)
        node.leaving.set()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if spinner.is_alive():
            node.in_turn(lambda: node.end(reason)).result()
            for _ in range(TURNS_TO_SEND):
                node.in_turn(lambda: None).result()
            node.in_turn(node.finish).result()
        else:
            node.end(reason)
            node.finish()
    finally:
        executor.shutdown()
        spinner.join()
        node.destroy_node()
        rclpy.try_shutdown()
    return 1 if reason is StopReason.FAILED else 0


def _until_signal(node: ManagedNode, spinner: threading.Thread) -> StopReason:
    """Wait for a signal; meanwhile bring the node up under autostart, with as many attempts as necessary."""
    attempt: Future | None = None
    next_attempt = 0.0 if node.parameters.autostart else float("inf")
    while spinner.is_alive():
        if attempt is not None and attempt.done():
            next_attempt = float("inf") if attempt.result() else time.monotonic() + RETRY_PERIOD
            attempt = None
        if attempt is None and time.monotonic() >= next_attempt:
            attempt = node.in_turn(node.bring_up)
        arrived = signal.sigtimedwait(SIGNALS, 0.1)
        # After a process was frozen (Ctrl-Z, a suspended machine), the wait returns without a signal.
        if arrived is not None and arrived.si_signo in SIGNALS:
            interrupted = arrived.si_signo == signal.SIGINT
            return StopReason.INTERRUPTED if interrupted else StopReason.TERMINATED
    return StopReason.FAILED


def _spin(executor: Executor, node: ManagedNode) -> None:
    try:
        executor.spin()
    except Exception:
        node.get_logger().fatal(f"the node cannot continue:\n{traceback.format_exc()}")
