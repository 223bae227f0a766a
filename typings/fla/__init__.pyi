# SPDX-License-Identifier: Apache-2.0
# Installed by those who want it: GPU kernels.
from typing import Any

def __getattr__(name: str) -> Any: ...
