# SPDX-License-Identifier: Apache-2.0
# Installed by those who want it: a viewer.
from typing import Any

def __getattr__(name: str) -> Any: ...
