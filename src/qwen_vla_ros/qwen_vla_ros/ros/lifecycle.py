"""One discipline for the transitions of the managed nodes, and how their processes start and stop.

A node says in three methods what it does; this module decides when. `set_up` raises to refuse to be configured; `stop`
is called exactly once per activation, whatever ends it, and learns the reason. What they create they hand to
`resources`, which are released at cleanup, also after a set_up that failed half-way. Errors are logged here, because
rclpy drops them. A callback that raises ends no node: see GuardedNode.

All callbacks of a node, transitions included, run in its default callback group, one at a time, so that a node needs no
locks; whoever wants to call into a node from another thread uses `in_turn`.
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
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.client import Client
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from qwen_vla_control.node_interface import Endpoint
from qwen_vla_rclpy.guarded_executor import GuardedExecutor
from qwen_vla_rclpy.guarded_node import GuardedNode
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.parameters import Parameter, Parameters

LARGEST_DESCRIPTION = 8_000_000  # [bytes]
DESCRIPTIONS_SAID = 10.0  # [s] between two words about another description
RETRY_PERIOD = 1.0  # [s] between two attempts to configure under autostart
# A goal that was ended is concluded in the first turn, has its result in the second and sends it in the third.
TURNS_TO_TELL = 3
SIGNALS = {signal.SIGINT, signal.SIGTERM}

COMMON_PARAMETERS = (
    Parameter("autostart", False, "Configure and activate without being asked, as soon as possible", read_only=True),
    Parameter(
        "embodiment_config",
        "",
        "The robot: path of its embodiment YAML, or its name; empty: the name of the robot in its URDF",
        read_only=True,
    ),
    Parameter("robot_description_timeout", 10.0, "How long configuring waits for robot_description [s]", 0.0, 600.0),
)
ROBOT_DESCRIPTION = Endpoint("robot_description", String, "URDF of the robot, latched")
# Absolute by the convention of diagnostic_updater: one topic for all robots, which the aggregator reads.
DIAGNOSTICS = Endpoint("/diagnostics", DiagnosticArray, "How the node fares, once a second")

Entity = TypeVar("Entity")


class StopReason(Enum):
    """Why an active node stopped, in words for logs and results."""

    DEACTIVATED = "the node was deactivated"
    SHUT_DOWN = "the node was shut down"
    INTERRUPTED = "the process received SIGINT"
    TERMINATED = "the process received SIGTERM"
    FAILED = "the node failed"


class ManagedNode(GuardedNode, LifecycleNode):
    """A lifecycle node with one work gate: `active`.

    Attributes:
        active: True between a successful activation and the first reason to stop.
        stop_reason: why the last activation ended.
        parameters: values by name, always current.
        leaving: set when the process is to end; whoever waits in a transition gives up.
        resources: what set_up acquired, released in reverse order at cleanup.
    """

    def __init__(self, name: str, table: Iterable[Parameter]) -> None:
        """Declare the parameters and listen for the robot's description."""
        super().__init__(name)
        self.parameters = Parameters(self, (*COMMON_PARAMETERS, *table))
        self.active = False
        self.stop_reason: StopReason | None = None
        self.leaving = threading.Event()
        self.resources = ExitStack()
        self._calls: queue.SimpleQueue[tuple[Callable, Future]] = queue.SimpleQueue()
        self._call_guard = self.create_guard_condition(self._serve_calls)
        self._listen_for_description()

    # What a node adds -----------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Acquire everything; raise to refuse, with a message for the user."""

    def start(self) -> None:
        """Begin to work; `active` becomes True when this returns. May raise to refuse."""

    def stop(self, reason: StopReason) -> None:
        """Stop working and leave the robot safe; `active` is False already."""

    # What a node may use --------------------------------------------------------------------------------------------

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
        callback: Callable[..., object],
        qos: QoSProfile,
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Subscribe until cleanup; `name` where the robot says what the topic is called; options of GuardedNode."""
        name = name or topic.name_for(self.parameters)
        self.keep(self.create_subscription(topic.kind, name, callback, qos, **options), self.destroy_subscription)

    def serve(self, service: Endpoint, callback: Callable[[Any, Any], Any], **options: Any) -> None:
        """Offer a service until cleanup; `options` are those of create_service."""
        name = service.name_for(self.parameters)
        self.keep(self.create_service(service.kind, name, callback, **options), self.destroy_service)

    def client_of(self, service: Endpoint) -> Client:
        """Create a client that is destroyed at cleanup."""
        name = service.name_for(self.parameters)
        return self.keep(self.create_client(service.kind, name), self.destroy_client)

    def wait_for_robot_description(self) -> str:
        """Return the URDF text; TimeoutError when nobody publishes it, InterruptedError when the process is to end."""
        limit = time.monotonic() + self.parameters.robot_description_timeout
        while not self._description:
            # Taken here: this is a callback itself, and while it runs no other one does.
            with self._descriptions.handle:
                taken = self._descriptions.handle.take_message(String, True)
            if taken is not None:
                self._descriptions.callback(*taken)
            elif self.leaving.wait(timeout=0.05):
                raise InterruptedError("the process is ending")
            if time.monotonic() > limit:
                raise TimeoutError(
                    f"no robot description on {self.resolve_topic_name('robot_description')}; "
                    "is robot_state_publisher or the simulator running?"
                )
        return self._description

    # Transitions ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Set up; what was acquired before a failure is released again."""
        if not self._attempt(self.set_up):
            self._attempt(self.resources.close)
            return TransitionCallbackReturn.FAILURE
        # The garbage collector would go through all that was loaded again and again, and stop every thread meanwhile:
        # 0.4 s for 600,000 objects, as long as a policy may be silent before its robot is held.
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
        """Stop; a node that fails to stop is still inactive afterwards."""
        self.end(StopReason.DEACTIVATED)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, and forget the robot: it may be another one when the node is configured again."""
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
        """Have a function called between two callbacks of the node, from any thread; its result is in the Future."""
        future: Future = Future()
        self._calls.put((function, future))
        self._call_guard.trigger()
        return future

    def bring_up(self) -> bool:
        """Configure and activate."""
        good = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == good and self.trigger_activate() == good

    def finish(self) -> None:
        """Release everything, from whatever state."""
        if self._state_machine.current_state[1] in ("unconfigured", "inactive", "active"):
            self.trigger_shutdown()

    def end(self, reason: StopReason) -> None:
        """Stop working if the node is at work; the first reason wins."""
        if not self.active:
            return
        self.stop_reason = reason
        self.active = False  # before anything else: from here on nothing new begins
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
            text = "robot_description has changed; it takes effect when the node is configured anew"
            self.get_logger().warning(text, throttle_duration_sec=DESCRIPTIONS_SAID)
        self._description = message.data

    def _attempt(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except InterruptedError as error:  # the user's wish, no fault
            self.get_logger().info(str(error))
            return False
        except (ValueError, OSError) as error:  # wrong input, and the message says which
            self.get_logger().error(str(error))
            return False
        except Exception:
            self.get_logger().error(traceback.format_exc())
            return False
        return True

    def _serve_calls(self) -> None:
        """Serve one call; what it leaves to do for the executor comes before the next."""
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
    """Run one managed node until SIGINT or SIGTERM, then stop it in order; returns the exit code of the process.

    A second signal ends the process at once. When rclpy itself fails, the node is stopped, too (exit code 1): half a
    node is worse than none.
    """
    code = _run(make_node, args)
    gc.collect()  # a reference cycle would keep the participant, and with it 35 MB of shared memory, past the exit
    return code


def _run(make_node: Callable[[], ManagedNode], args: list[str] | None) -> int:
    # Signals are waited for in this thread rather than handled: a handler could interrupt any line of it. They are
    # blocked before any other thread exists, so that every thread inherits that.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    # rclpy's executor with several threads hands out a callback again and again until one of them has begun it: 38 % of
    # a core for an idle policy_node, and heartbeats up to 0.5 s late, were measured.
    executor = GuardedExecutor()
    node = make_node()
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor, node), name="spin")
    spinner.start()
    try:
        reason = _until_signal(node, spinner)
        node.leaving.set()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if spinner.is_alive():
            node.in_turn(lambda: node.end(reason)).result()
            for _ in range(TURNS_TO_TELL):
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
    """Wait for a signal; meanwhile bring the node up if it is to start by itself, as often as it takes."""
    attempt: Future | None = None
    next_attempt = 0.0 if node.parameters.autostart else float("inf")
    while spinner.is_alive():
        if attempt is not None and attempt.done():
            next_attempt = float("inf") if attempt.result() else time.monotonic() + RETRY_PERIOD
            attempt = None
        if attempt is None and time.monotonic() >= next_attempt:
            attempt = node.in_turn(node.bring_up)
        arrived = signal.sigtimedwait(SIGNALS, 0.1)
        # A process that was frozen (Ctrl-Z, a suspended machine) gets an answer without a signal in it when it goes on.
        if arrived is not None and arrived.si_signo in SIGNALS:
            interrupted = arrived.si_signo == signal.SIGINT
            return StopReason.INTERRUPTED if interrupted else StopReason.TERMINATED
    return StopReason.FAILED


def _spin(executor: Executor, node: ManagedNode) -> None:
    try:
        executor.spin()
    except Exception:
        node.get_logger().fatal(f"the node can run no further:\n{traceback.format_exc()}")
