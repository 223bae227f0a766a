# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a command line is one line."""

import pytest

from qwen_vla.errors.command_errors import condensed

BOX = """\
╭─ Value error ──────────────╮
│ Error parsing --seed: '1.5'│
│ ────────────────────────── │
│ Argument helptext:         │
│     --seed INT             │
│     Seed of the first      │
│     scene.                 │
╰────────────────────────────╯
"""
PLAIN = """\
Value error
 ----------------------------
  Error parsing --seed: '1.5'
  ---------------------------
  Argument helptext:
      --seed INT
      Seed of the first
      scene.
"""


COLORED = BOX.replace("│", "\x1b[31m│\x1b[0m").replace("╭─ Value error", "\x1b[31m╭─ \x1b[1;31mValue error")


@pytest.mark.parametrize("text", [BOX, COLORED, PLAIN])
def test_a_message_with_and_without_a_frame_is_joined_part_by_part(text):
    assert condensed(text) == "Error parsing --seed: '1.5'; Argument helptext: --seed INT Seed of the first scene"
