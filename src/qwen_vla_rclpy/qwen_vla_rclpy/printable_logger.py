# SPDX-License-Identifier: Apache-2.0
"""A logger that is safe for text from outside."""

from __future__ import annotations

import os
from typing import Any

from rclpy.impl import rcutils_logger
from rclpy.impl.rcutils_logger import RcutilsLogger

from qwen_vla_rclpy.printable import printable_lines

# rclpy reports and throttles log entries by their caller: that is the line that calls the logger, not one of these.
rcutils_logger._internal_callers.append(os.path.realpath(__file__))


class PrintableLogger(RcutilsLogger):
    """Logs only printable characters."""

    def log(self, message: str, severity: int, *args: Any, **options: Any) -> bool:
        """Log like RcutilsLogger.log, which takes the name of the logger from Kilted on."""
        return super().log(printable_lines(message), severity, *args, **options)
