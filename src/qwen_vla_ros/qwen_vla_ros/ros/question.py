# SPDX-License-Identifier: Apache-2.0
"""A request that may be repeated, sent again while no response arrives.

A server drops its response to a client that it has not discovered yet ("failed to send response"), and neither of them
is told. Discovery takes milliseconds on an idle machine, and seconds where an announcement was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.task import Future

FIRST_PERIOD, LONGEST_PERIOD = 0.25, 2.0  # [s, steady] until it is sent again; doubled every time
MOST_AWAITED = 8  # responses; a node that is busy for minutes answers the latest requests


class Question:
    """One request without an effect of its own, or with the same effect however often it is sent."""

    def __init__(self, client: Client, request: Any, on_answer: Callable[[Future], None] | None = None) -> None:
        """Nothing is sent before the first look; `on_answer` is called with every response."""
        self._client, self._request, self._on_answer = client, request, on_answer
        self._asked: list[Future] = []
        self._due, self._period = 0.0, FIRST_PERIOD

    def response(self) -> Any:
        """The response, None while there is none; sends the request where it is due and the service is there."""
        for future in self._asked:
            if future.done() and (response := future.result()) is not None:
                return response
        if time.monotonic() >= self._due and self._client.service_is_ready():
            self._ask()
        return None

    def close(self) -> None:
        """Await no response any more."""
        while self._asked:
            self._client.remove_pending_request(self._asked.pop())

    def _ask(self) -> None:
        if len(self._asked) == MOST_AWAITED:
            self._client.remove_pending_request(self._asked.pop(0))
        future = self._client.call_async(self._request)
        if self._on_answer is not None:
            future.add_done_callback(self._on_answer)
        self._asked.append(future)
        self._due, self._period = time.monotonic() + self._period, min(2 * self._period, LONGEST_PERIOD)
