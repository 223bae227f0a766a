# SPDX-License-Identifier: Apache-2.0
"""One request, one response. After any error the connection is dropped, and the next request opens another.

A response on a connection with an error could be that of an earlier request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from qwen_vla.serving.messages import npy_array, pack

CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 16 * 2**20  # [bytes]
KEY = "QWEN_VLA_API_KEY"


class ServerConnection(ABC):
    """metadata: of the server, empty before the first connection."""

    def __init__(self, reference: str) -> None:
        """reference: of the server, for messages."""
        self._reference, self._is_open = reference, False
        self.metadata: dict[str, Any] = {}

    def __str__(self) -> str:
        return self._reference

    def open(self) -> None:
        """Connect and receive the server's metadata.

        Raises:
            ConnectionError: no server responds, or its metadata changed.
        """
        metadata = self._connect()
        if self.metadata and (changed := _changed(self.metadata, metadata)):
            self._disconnect()
            raise ConnectionError(f"a different policy responds at {self}: {', '.join(changed)} changed")
        self._is_open, self.metadata = True, metadata

    def ask(self, fields: Mapping[str, Any], seconds: float) -> Any:
        """The response to a request.

        Raises:
            ConnectionError, TimeoutError: the server is gone, or does not respond in time.
            ValueError: it refuses the request.
            ArithmeticError: its response cannot be read.
        """
        if not self._is_open:
            self.open()
        try:
            return self._exchange(fields, seconds)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect."""
        if self._is_open:
            self._is_open = False
            self._disconnect()

    @abstractmethod
    def _connect(self) -> dict[str, Any]:
        """Connect; returns the metadata. ConnectionError if nothing responds."""

    @abstractmethod
    def _exchange(self, fields: Mapping[str, Any], seconds: float) -> Any:
        """The response to a request; errors as in `ask`."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close at once, without waiting for the server."""


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the metadata that differ; they may contain arrays."""
    names = before.keys() | now.keys()
    return sorted(name for name in names if pack(before.get(name), npy_array) != pack(now.get(name), npy_array))
