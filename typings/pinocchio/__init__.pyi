# SPDX-License-Identifier: Apache-2.0
# Compiled, without type hints.
from typing import Any

def __getattr__(name: str) -> Any: ...
