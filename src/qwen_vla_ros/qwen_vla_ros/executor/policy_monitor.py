# SPDX-License-Identifier: Apache-2.0
"""What the executor knows about the policy: heartbeats, the current instruction, its chunks so far. Free of ROS."""

from __future__ import annotations

import math
from collections import OrderedDict

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.chunk_schema import check_instruction
from qwen_vla_control.reasons import Reason, Violation

MOST_PUBLISHERS = 16  # of chunks; one is enough, and ever new publishers must not fill the memory


class ChunkOrder:
    """The number of the last chunk of each publisher: the numbers of one do not make another's chunks late."""

    def __init__(self) -> None:
        """Start without any."""
        self._last: OrderedDict[bytes, int] = OrderedDict()

    def last(self, publisher: bytes) -> int:
        """Number of a publisher's last chunk, 0 before the first."""
        return self._last.get(publisher, 0)

    def take(self, publisher: bytes, number: int) -> None:
        """Record a chunk."""
        self._last[publisher] = number
        self._last.move_to_end(publisher)
        if len(self._last) > MOST_PUBLISHERS:
            self._last.popitem(last=False)

    def forget(self) -> None:
        """Let every publisher count from 1 again."""
        self._last.clear()


class PolicyMonitor:
    """One policy at a time; after a silence it may be another process.

    Attributes:
        refusals: chunks refused in a row since the last one that was accepted.
    """

    def __init__(self) -> None:
        """Start without a policy."""
        self.refusals = 0
        self._heartbeat_ns: int | None = None
        self._order = ChunkOrder()
        self._instruction: str | None = None

    def on_heartbeat(self, steady_ns: int, timeout: float) -> None:
        """Record a heartbeat; `timeout` [s] is the silence after which it may be another process."""
        if self.silence(steady_ns) > timeout:
            self._order.forget()  # the policy counts from 1 again
        self._heartbeat_ns = steady_ns

    def on_instruction(self, instruction: str) -> None:
        """Record the instruction that the policy executes from now on, "" for none."""
        self._instruction = instruction

    def on_verdict(self, chunk: Chunk, accepted: bool) -> None:
        """Record a decision."""
        self.refusals = 0 if accepted else self.refusals + 1
        if accepted:
            self._order.take(chunk.publisher, chunk.chunk_id)

    def silence(self, steady_ns: int) -> float:
        """Time since the last heartbeat [s, steady]."""
        return math.inf if self._heartbeat_ns is None else (steady_ns - self._heartbeat_ns) / 1e9

    def silent_text(self, steady_ns: int, timeout: float) -> str:
        """Return that the policy is silent, as text; empty when it is not."""
        silence = self.silence(steady_ns)
        if silence <= timeout:
            return ""
        since = "yet" if math.isinf(silence) else f"for {silence:.2f} s (limit {timeout:.2f} s)"
        return f"policy_node: no heartbeat {since}"

    def objections(self, chunk: Chunk, steady_ns: int, timeout: float) -> list[Violation]:
        """Reasons to refuse a chunk because of its publisher, or its time."""
        found = []
        silent = self.silent_text(steady_ns, timeout)
        if silent:
            found.append(Violation(Reason.POLICY_SILENT, silent))
        last = self._order.last(chunk.publisher)
        if chunk.chunk_id <= last:
            text = f"chunk {chunk.chunk_id} arrived after chunk {last}"
            found.append(Violation(Reason.WRONG_ORDER, text))
        return found + check_instruction(chunk, self._instruction)
