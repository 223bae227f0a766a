# SPDX-License-Identifier: Apache-2.0
"""How a node of the suite guards its input before its own callbacks get it.

- A message that is too large, or that cannot be read, is turned away before it is parsed; so is a negative /clock,
  which would make rclpy's own callback raise.
- A callback that raises is reported in the diagnostics and, with its traceback, in the log.
- Text from outside reaches the log only as printable characters.
- `use_sim_time` keeps its value from the start: the clock of a running node cannot be changed.
"""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rosgraph_msgs.msg import Clock as ClockMessage

from qwen_vla_rclpy.input_faults import InputFaults
from qwen_vla_rclpy.printable import printable
from qwen_vla_rclpy.printable_logger import PrintableLogger

LARGEST = 16_384  # [bytes] of a serialized message, unless the subscription sets another limit
ANY_SIZE = None  # for types without sequences and strings, which cannot be large, and for images
DIAGNOSTICS_PERIOD = 1.0  # [s] steady
CLOCK_PARAMETER = "use_sim_time"
DESCRIPTION_SERVICE = "start_type_description_service"


class GuardedNode(Node):
    """Base of the nodes of the suite; to be spun by a GuardedExecutor, which calls `callback_raised`, `take_failed`.

    Attributes:
        publishes_faults: whether it reports faults of its input on /diagnostics; False for a node that only listens.
        input_faults, callback_failures: what was wrong so far.
    """

    publishes_faults = True

    def __init__(self, name: str, **options: Any) -> None:
        """Create the node; `options` are those of rclpy's Node."""
        self.input_faults, self.callback_failures = InputFaults(), InputFaults()
        self._printable_logger: PrintableLogger | None = None
        # The library behind that service logs requests without escaping them.
        silent = Parameter(DESCRIPTION_SERVICE, value=False)
        overrides = [silent, *options.pop("parameter_overrides", ())]
        super().__init__(name, parameter_overrides=overrides, **options)
        self.add_on_set_parameters_callback(self._keep_clock)
        if self.publishes_faults:
            # Absolute, as in diagnostic_updater: one topic for all robots, which the aggregator reads.
            self._fault_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(DIAGNOSTICS_PERIOD, self._publish_faults, clock=steady)

    def on_failure(self, text: str) -> None:
        """Do what is safe after a callback has raised; `text` names the callback and the error."""

    # Input ----------------------------------------------------------------------------------------------------------

    def create_subscription(
        self,
        msg_type: type,
        topic: str,
        callback: Callable[..., Any],
        qos_profile: Any,
        *,
        largest: int | None = LARGEST,
        raw: bool = False,
        **options: Any,
    ) -> Subscription:
        """Like rclpy's, but a message larger than `largest` [bytes, serialized] is turned away unparsed.

        Args:
            msg_type, topic, callback, qos_profile, raw, options: as for rclpy.
            largest: ANY_SIZE leaves the limit to the middleware.
        """
        if msg_type is ClockMessage:
            callback, largest = self._forward_in_time(callback), ANY_SIZE
        if largest is not None:  # ANY_SIZE
            callback, raw = self._within(largest, msg_type, topic, callback, raw), True
        return super().create_subscription(msg_type, topic, callback, qos_profile, raw=raw, **options)

    def _within(self, largest: int, kind: type, topic: str, callback: Callable[..., Any], raw: bool) -> Callable:
        with_info = _takes_two(callback)

        def receive(data: bytes, info: Any) -> None:
            if len(data) > largest:
                self.turn_away(topic, f"a message of {len(data):,} bytes, at most {largest:,} are accepted")
                return
            try:
                message = data if raw else deserialize_message(data, kind)
            except Exception as error:  # RMWError, which has no public name
                self.take_failed(topic, error)
                return
            callback(message, info) if with_info else callback(message)

        return receive

    def _forward_in_time(self, callback: Callable[..., Any]) -> Callable[[ClockMessage, Any], None]:
        with_info = _takes_two(callback)

        def receive(message: ClockMessage, info: Any) -> None:
            if message.clock.sec < 0:
                self.turn_away("/clock", f"a negative time: {message.clock.sec} s")
            else:
                callback(message, info) if with_info else callback(message)

        return receive

    def turn_away(self, where: str, why: str) -> None:
        """Record and log that a message was not used."""
        if self.input_faults.add(where, printable(why), time.monotonic()):
            count = self.input_faults.count(where)
            self.get_logger().warning(f"{where}: turned away: {why}" + (f" ({count} so far)" if count > 1 else ""))

    # For the executor -----------------------------------------------------------------------------------------------

    def take_failed(self, where: str, error: Exception) -> None:
        """Record that a message could not be read."""
        self.turn_away(where, f"a message that cannot be read: {error}")

    def callback_raised(self, where: str, error: Exception) -> None:
        """Record and log that a callback has failed, and do what is safe."""
        text = printable(f"{where}: {type(error).__name__}: {error}")
        if self.callback_failures.add(where, text, time.monotonic()):
            count, trace = self.callback_failures.count(where), "".join(traceback.format_exception(error))
            self.get_logger().error(f"{text}; the node keeps running (failure {count} there)\n{trace}")
        try:
            self.on_failure(text)
        except Exception:
            self.get_logger().fatal(f"the safe reaction failed, too:\n{traceback.format_exc()}")

    # ROS ------------------------------------------------------------------------------------------------------------

    def get_logger(self) -> RcutilsLogger:
        """The logger of the node; it logs only printable characters."""
        if self._printable_logger is None:
            self._printable_logger = PrintableLogger(super().get_logger().name)
        return self._printable_logger

    def _keep_clock(self, parameters: list) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == CLOCK_PARAMETER and parameter.value != self.get_parameter(CLOCK_PARAMETER).value:
                reason = f"{CLOCK_PARAMETER} cannot be changed while the node runs; set it at the start of the node"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _publish_faults(self) -> None:
        now = time.monotonic()
        failed, turned_away = self.callback_failures.recent(now), self.input_faults.recent(now)
        level = DiagnosticStatus.ERROR if failed else DiagnosticStatus.WARN if turned_away else DiagnosticStatus.OK
        problems = [*failed.values(), *(f"{where}: turned away: {why}" for where, why in turned_away.items())]
        status = DiagnosticStatus(name=f"{self.get_name()}: input", level=level)
        status.message = printable("; ".join(problems)) or "ok"
        status.values = [
            KeyValue(key="failed callbacks", value=str(self.callback_failures.total)),
            KeyValue(key="messages turned away", value=str(self.input_faults.total)),
        ]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._fault_publisher.publish(message)


def _takes_two(callback: Callable[..., Any]) -> bool:
    """Whether a callback also takes the message info, by rclpy's own rule."""
    try:
        inspect.signature(callback).bind(object())
    except TypeError:
        return True
    return False
