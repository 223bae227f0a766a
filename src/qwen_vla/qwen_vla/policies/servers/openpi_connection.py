# SPDX-License-Identifier: Apache-2.0
"""A connection to a server that speaks openpi's protocol."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from qwen_vla.policies.servers.connection import CONNECT_SECONDS, LARGEST_ANSWER, ServerConnection
from qwen_vla.serving.messages import RequestError, openpi_array, pack, unpack

UNREAD_MS = 5000  # after which a server that reads nothing counts as gone


class OpenPiConnection(ServerConnection):
    """A websocket on which the server first sends its metadata."""

    def __init__(self, address: str, key: str = "") -> None:
        """address: HOST:PORT. key: API key of the server."""
        super().__init__(f"openpi://{address}")
        self._address, self._key = address, key
        self._connection: ClientConnection | None = None

    def _connect(self) -> dict[str, Any]:
        try:
            self._connection = connect(
                f"ws://{self._address}",
                sock=_socket(self._address),
                compression=None,
                max_size=LARGEST_ANSWER,
                open_timeout=CONNECT_SECONDS,
                additional_headers={"Authorization": f"Api-Key {self._key}"} if self._key else {},
                legacy=True,
            )
            return unpack(self._connection.recv(timeout=CONNECT_SECONDS))
        except (OSError, TimeoutError, WebSocketException, RequestError) as error:
            self._disconnect()
            raise ConnectionError(f"no policy responds at {self}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{self} has no valid address, HOST:PORT: {error}") from error

    def _exchange(self, fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        if self._connection is None:
            raise ConnectionError(f"{self} is not connected")
        try:
            self._connection.send(pack(fields, openpi_array))
            frame = self._connection.recv(timeout=seconds)
        except TimeoutError:
            raise TimeoutError(f"{self} did not respond within {seconds:g} s") from None
        except (ConnectionClosed, OSError) as error:
            raise ConnectionError(f"the connection to {self} was lost: {error}") from error
        if isinstance(frame, str):
            raise ValueError(f"{self} refuses: {frame[-500:]}")
        try:
            return unpack(frame)
        except RequestError as error:
            raise ArithmeticError(f"{self} sent an invalid response: {error}") from error

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close_timeout = 0
            self._connection.close()
            self._connection = None


def _socket(address: str) -> socket.socket:
    """A connection to HOST:PORT on which a server that reads nothing is noticed."""
    url = urlsplit(f"ws://{address}")
    connection = socket.create_connection((url.hostname, url.port or 80), CONNECT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
    connection.settimeout(None)
    return connection
