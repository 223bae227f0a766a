# SPDX-License-Identifier: Apache-2.0
"""A connection to `qwen-vla serve` over openpi's protocol."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

LARGEST = 16 * 2**20  # [bytes] of a response


class Server:
    """One request, one response. metadata: docs/reference/protocols.md lists its keys."""

    def __init__(self, address: str, key: str, seconds: float) -> None:
        """Connect; ConnectionError if no server responds within these seconds."""
        self._seconds, self._address = seconds, address
        headers = {"Authorization": f"Api-Key {key}"} if key else {}
        try:
            self._connection = connect(
                f"ws://{address}", compression=None, max_size=LARGEST, additional_headers=headers, open_timeout=seconds
            )
            self.metadata = _unpack(self._connection.recv(timeout=seconds))
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ConnectionError(
                f"no policy responds at {address}: {error}; start it: qwen-vla serve --robot NAME --port PORT"
            ) from error

    def ask(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The response; ConnectionError if there is none in time, ValueError if the request is refused."""
        try:
            self._connection.send(msgpack.packb(fields, default=_pack_array))
            frame = self._connection.recv(timeout=self._seconds)
        except (OSError, TimeoutError, WebSocketException) as error:
            self.close()
            raise ConnectionError(f"the policy at {self._address} did not respond: {error}") from error
        if isinstance(frame, str):
            raise ValueError(f"the policy at {self._address} refuses: {frame}")
        return _unpack(frame)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close_timeout = 0
        self._connection.close()


def _pack_array(value: Any) -> dict:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"cannot send a {type(value).__name__}")
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _unpack(frame: bytes) -> Any:
    return msgpack.unpackb(frame, object_hook=_array)


def _array(value: dict) -> Any:
    if b"__ndarray__" not in value:
        return value
    return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])
