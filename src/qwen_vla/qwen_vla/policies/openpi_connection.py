"""A connection to a server that speaks openpi's protocol: opened again by the next question where it was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from qwen_vla.serving.messages import RequestError, openpi_array, pack, unpack

CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 16 * 2**20  # [bytes]


class OpenPiConnection:
    """One question, one answer. told: the metadata of the server, empty before the first connection."""

    def __init__(self, address: str, key: str = "") -> None:
        """address: HOST:PORT. key: that the server wants."""
        self._address, self._key = address, key
        self._connection: ClientConnection | None = None
        self.told: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"openpi://{self._address}"

    def close(self) -> None:
        """Leave the server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def open(self) -> None:
        """Connect and hear what the server says.

        Raises:
            ConnectionError: nobody answers, or says something else than before.
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
            told = unpack(connection.recv(timeout=CONNECT_SECONDS))
        except (OSError, TimeoutError, WebSocketException, RequestError) as error:
            raise ConnectionError(f"no policy answers at {self}: {error}") from error
        if self.told and told != self.told:
            connection.close()
            changed = sorted(name for name in told.keys() | self.told.keys() if told.get(name) != self.told.get(name))
            raise ConnectionError(f"another policy answers at {self} now: {', '.join(changed)} changed")
        self._connection, self.told = connection, told

    def ask(self, fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to an observation; errors as `ServerPolicy.infer` raises them."""
        if self._connection is None:
            self.open()
        try:
            self._connection.send(pack(fields, openpi_array))
            frame = self._connection.recv(timeout=seconds)
        except TimeoutError:
            self._forget()
            raise TimeoutError(f"{self} did not answer within {seconds:g} s") from None
        except (ConnectionClosed, OSError) as error:
            self._forget()
            raise ConnectionError(f"{self} was lost: {error}") from error
        if isinstance(frame, str):
            self._forget()  # such a server closes the connection
            raise ValueError(f"{self} refuses: {frame[-500:]}")
        try:
            return unpack(frame)
        except RequestError as error:
            raise ArithmeticError(f"{self} answers nonsense: {error}") from error

    def _forget(self) -> None:
        """Drop a connection in which answers could come late."""
        self._connection.close_timeout = 0
        self.close()
