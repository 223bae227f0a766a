"""A logger into which text that others wrote may go."""

from __future__ import annotations

import os
from typing import Any

from rclpy.impl import rcutils_logger
from rclpy.impl.rcutils_logger import RcutilsLogger

from qwen_vla_rclpy.printable import printable_lines

# rclpy says where a log entry is from, and throttles by that: it is the line that calls the logger, not one of these.
rcutils_logger._internal_callers.append(os.path.realpath(__file__))


class PrintableLogger(RcutilsLogger):
    """Logs printable characters alone."""

    def log(self, message: str, severity: int, name: str | None = None, **options: Any) -> bool:
        """As RcutilsLogger.log."""
        return super().log(printable_lines(message), severity, name, **options)
