"""What the executor knows about the policy: signs of life, the sentence it obeys, its chunks so far. Free of ROS."""

from __future__ import annotations

import math

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.chunk_schema import check_instruction
from qwen_vla_control.reasons import Reason, Violation


class PolicyMonitor:
    """One policy at a time; after a silence it may be another process.

    Attributes:
        refusals: chunks refused in a row since the last one that was accepted.
    """

    def __init__(self) -> None:
        """Begin without a policy."""
        self.refusals = 0
        self._heartbeat_ns: int | None = None
        self._last_chunk_id = 0
        self._instruction: str | None = None

    def on_heartbeat(self, steady_ns: int, timeout: float) -> None:
        """Take note of a sign of life; `timeout` [s] is the silence after which it may be another process."""
        if self.silence(steady_ns) > timeout:
            self._last_chunk_id = 0  # it counts from 1 again
        self._heartbeat_ns = steady_ns

    def on_instruction(self, instruction: str) -> None:
        """Take note of the sentence that the policy obeys from now on, "" for none."""
        self._instruction = instruction

    def on_verdict(self, chunk: Chunk, accepted: bool) -> None:
        """Take note of a decision."""
        self.refusals = 0 if accepted else self.refusals + 1
        if accepted:
            self._last_chunk_id = chunk.chunk_id

    def silence(self, steady_ns: int) -> float:
        """Time since the last heartbeat [s, steady]."""
        return math.inf if self._heartbeat_ns is None else (steady_ns - self._heartbeat_ns) / 1e9

    def silent_text(self, steady_ns: int, timeout: float) -> str:
        """Say that the policy is silent; empty when it is not."""
        silence = self.silence(steady_ns)
        if silence <= timeout:
            return ""
        since = "yet" if math.isinf(silence) else f"for {silence:.2f} s (limit {timeout:.2f} s)"
        return f"policy_node: no heartbeat {since}"

    def objections(self, chunk: Chunk, steady_ns: int, timeout: float) -> list[Violation]:
        """Reasons against a chunk that lie in who sent it, and when."""
        found = []
        silent = self.silent_text(steady_ns, timeout)
        if silent:
            found.append(Violation(Reason.POLICY_SILENT, silent))
        if chunk.chunk_id <= self._last_chunk_id:
            text = f"chunk {chunk.chunk_id} comes after chunk {self._last_chunk_id}"
            found.append(Violation(Reason.WRONG_ORDER, text))
        return found + check_instruction(chunk, self._instruction)
