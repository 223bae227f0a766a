# SPDX-License-Identifier: Apache-2.0
"""The few lengths to which prompts are padded, so that no instruction causes a new length while a robot moves.

Padding follows the tokens: a causal backbone never attends to it, and the action expert masks it.
"""

from __future__ import annotations

LONGEST_INSTRUCTION = 256  # tokens, about 200 English words
SHORTEST_ROOM = 8  # tokens for the instruction in the shortest length; each further length has twice as many
MULTIPLE = 8  # attention and matrix kernels prefer multiples of this


class PromptLengths:
    """Lengths [tokens] of prompts with ``bare`` tokens besides the instruction, shortest first."""

    def __init__(self, bare: int, longest_instruction: int = LONGEST_INSTRUCTION):
        rooms, room = [], SHORTEST_ROOM
        while room < longest_instruction:
            rooms.append(room)
            room *= 2
        # Tokenization may differ where an instruction meets its template, hence one more multiple at the end.
        rooms.append(longest_instruction + MULTIPLE)
        self.lengths = tuple(-(-(bare + room) // MULTIPLE) * MULTIPLE for room in rooms)

    def fit(self, tokens: int) -> int:
        """The shortest length for this many tokens; ValueError if none suffices."""
        for length in self.lengths:
            if tokens <= length:
                return length
        raise ValueError(f"a prompt of {tokens} tokens is longer than the longest prepared, {self.lengths[-1]} tokens")
