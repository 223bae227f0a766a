# SPDX-License-Identifier: Apache-2.0
# A part of ROS that has no wheel: there only where ROS is installed.
from typing import Any

def __getattr__(name: str) -> Any: ...
