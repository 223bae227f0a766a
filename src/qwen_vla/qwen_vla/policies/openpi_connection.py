"""A connection to a server that speaks openpi's protocol; after a loss, the next request reconnects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from qwen_vla.serving.messages import RequestError, openpi_array, pack, unpack

CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 16 * 2**20  # [bytes]


class OpenPiConnection:
    """One request, one response. metadata: of the server, empty before the first connection."""

    def __init__(self, address: str, key: str = "") -> None:
        """address: HOST:PORT. key: API key of the server."""
        self._address, self._key = address, key
        self._connection: ClientConnection | None = None
        self.metadata: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"openpi://{self._address}"

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def open(self) -> None:
        """Connect and receive the server's metadata.

        Raises:
            ConnectionError: no server responds, or its metadata changed.
        """
        try:
            connection = connect(
                f"ws://{self._address}",
                compression=None,
                max_size=LARGEST_ANSWER,
                open_timeout=CONNECT_SECONDS,
                additional_headers={"Authorization": f"Api-Key {self._key}"} if self._key else {},
                legacy=True,
            )
            metadata = unpack(connection.recv(timeout=CONNECT_SECONDS))
        except (OSError, TimeoutError, WebSocketException, RequestError) as error:
            raise ConnectionError(f"no policy responds at {self}: {error}") from error
        if self.metadata and metadata != self.metadata:
            connection.close()
            changed = sorted(
                name for name in metadata.keys() | self.metadata.keys() if metadata.get(name) != self.metadata.get(name)
            )
            raise ConnectionError(f"a different policy responds at {self}: {', '.join(changed)} changed")
        self._connection, self.metadata = connection, metadata

    def ask(self, fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The response to an observation; errors as in `ServerPolicy.infer`."""
        if self._connection is None:
            self.open()
        try:
            self._connection.send(pack(fields, openpi_array))
            frame = self._connection.recv(timeout=seconds)
        except TimeoutError:
            self._forget()
            raise TimeoutError(f"{self} did not respond within {seconds:g} s") from None
        except (ConnectionClosed, OSError) as error:
            self._forget()
            raise ConnectionError(f"the connection to {self} was lost: {error}") from error
        if isinstance(frame, str):
            self._forget()  # such a server closes the connection
            raise ValueError(f"{self} refuses: {frame[-500:]}")
        try:
            return unpack(frame)
        except RequestError as error:
            raise ArithmeticError(f"{self} sent an invalid response: {error}") from error

    def _forget(self) -> None:
        """Drop the connection: responses on it could be outdated."""
        self._connection.close_timeout = 0
        self.close()
