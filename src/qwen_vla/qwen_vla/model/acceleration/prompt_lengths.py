"""The few lengths to which prompts are padded, so that no instruction is the first of its length while a robot moves.

Padding stands behind the tokens: a causal backbone never sees it, and the action expert masks it.
"""

from __future__ import annotations

LONGEST_INSTRUCTION = 256  # tokens, about 200 English words
SHORTEST_ROOM = 8  # tokens for the instruction in the shortest length; each further length has twice the room
MULTIPLE = 8  # attention and matrix kernels like lengths that this divides


class PromptLengths:
    """Lengths [tokens] of prompts that have ``bare`` tokens without their instruction, shortest first."""

    def __init__(self, bare: int, longest_instruction: int = LONGEST_INSTRUCTION):
        rooms, room = [], SHORTEST_ROOM
        while room < longest_instruction:
            rooms.append(room)
            room *= 2
        # Tokens may part differently where an instruction meets its template, hence one multiple more at the end.
        rooms.append(longest_instruction + MULTIPLE)
        self.lengths = tuple(-(-(bare + room) // MULTIPLE) * MULTIPLE for room in rooms)

    def fit(self, tokens: int) -> int:
        """The shortest length that holds so many tokens; ValueError when none does."""
        for length in self.lengths:
            if tokens <= length:
                return length
        raise ValueError(f"a prompt of {tokens} tokens is longer than the longest prepared, {self.lengths[-1]} tokens")
