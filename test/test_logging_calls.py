# SPDX-License-Identifier: Apache-2.0
"""How nodes write to their logs."""

import re
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "src"


def test_nodes_warn_with_warning_because_throttled_warn_can_end_them():
    """rclpy knows a throttled call by the line that makes it; of the deprecated `warn` that is the same for all calls.

    Two of them with different periods raise ValueError: a base that refused a command after being slow ended so.
    """
    calls = re.compile(r"logger(\(\))?\s*\.warn\(")
    files = [path for path in SOURCES.rglob("*.py") if "test" not in path.parts]
    assert len(files) > 50, "the sources are looked at"
    assert not [str(path) for path in files if calls.search(path.read_text())]
