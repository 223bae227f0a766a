# SPDX-License-Identifier: Apache-2.0
"""A websocket port: admits clients, limits what they may send, and closes connections. The content of frames is handled
by a `Session`.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from qwen_vla.serving.messages import RequestError
from qwen_vla.serving.seldom import Seldom

logger = logging.getLogger(__name__)
logger.addFilter(Seldom(burst=20, every=5.0))
SILENT_SECONDS = 20  # until the system probes the client's machine, and the same again until it counts as gone
SEND_SECONDS = 10.0  # for a client to receive a reply
LONGEST_REASON = 120  # for closing a connection [bytes]


@dataclass(frozen=True)
class Limits:
    """Limits of clients. frame_bytes: size of a frame; clients: number at a time."""

    frame_bytes: int = 16 * 2**20
    clients: int = 32


class Session(Protocol):
    """One connection in one protocol.

    Attributes:
        ends_on_error: whether the connection is closed after an error was sent.
    """

    ends_on_error: bool

    def greeting(self) -> bytes | None:
        """The frame sent first; None: the client sends first."""
        ...

    async def answer(self, frame: bytes | str) -> bytes | str | None:
        """The reply to a client's frame; None if it needs none. RequestError for an invalid request."""
        ...

    def refusal(self, error: RequestError) -> bytes | str:
        """The frame that reports an error."""
        ...


class WebSocketListener:
    """Runs a session for each connection to a port, until it is stopped."""

    def __init__(
        self,
        session: Callable[[int], Session],
        pages: Mapping[str, str],
        limits: Limits | None = None,
        api_key: str = "",
    ) -> None:
        """session: factory, called with a number for each connection. pages: path -> text for plain HTTP."""
        self._session, self._pages, self._api_key = session, dict(pages), api_key
        self._limits = limits or Limits()
        self._numbers = itertools.count()
        self._open: set[ServerConnection] = set()
        self._busy: set[ServerConnection] = set()
        self._stopping = False
        self._server: Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, chosen by the system if it is 0."""
        self._server = await serve(
            self._serve_client,
            host,
            port,
            process_request=self._admit,
            compression=None,
            max_size=self._limits.frame_bytes,
            max_queue=1,
            ping_interval=None,  # a client may be busy for minutes, as vla-eval is while it builds its scene
            logger=logger,
        )
        return self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Accept no more clients, finish running requests, close all connections."""
        self._stopping = True
        if self._server is None:
            return
        self._server.close(close_connections=False)
        idle = self._open - self._busy
        await asyncio.gather(*(self._close(connection) for connection in idle))
        await self._server.wait_closed()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP, and turn away clients above the limit or without the key."""
        if request.path in self._pages:
            return connection.respond(HTTPStatus.OK, self._pages[request.path])
        given = request.headers.get("Authorization", "")
        if self._api_key and not hmac.compare_digest(given.encode(), f"Api-Key {self._api_key}".encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Api-Key KEY\n")
        if len(self._open) >= self._limits.clients:
            text = f"{self._limits.clients} clients are connected, which is the limit; try again later\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return None

    async def _serve_client(self, connection: ServerConnection) -> None:
        session = self._session(next(self._numbers))
        self._open.add(connection)
        keep_alive(connection.transport.get_extra_info("socket"))
        try:
            if (greeting := session.greeting()) is not None:
                await self._send(connection, greeting)
            async for frame in connection:
                await self._exchange(connection, session, frame)
                if self._stopping:
                    await self._close(connection)
        except ConnectionClosed as closed:
            logger.info("%s: connection closed: %s", connection.remote_address, closed)
        finally:
            self._open.discard(connection)

    async def _exchange(self, connection: ServerConnection, session: Session, frame: bytes | str) -> None:
        self._busy.add(connection)
        try:
            reply = await session.answer(frame)
            if reply is not None:
                await self._send(connection, reply)
        except RequestError as error:
            logger.warning("%s: %s", connection.remote_address, error)
            await self._refuse(connection, session, error)
        except ConnectionClosed:
            raise
        except Exception as error:  # any error is also reported to the client
            logger.exception("%s: a request failed", connection.remote_address)
            failure = RequestError(f"the request failed with {type(error).__name__}; see the server's log")
            await self._refuse(connection, session, failure)
        finally:
            self._busy.discard(connection)

    async def _refuse(self, connection: ServerConnection, session: Session, error: RequestError) -> None:
        await self._send(connection, session.refusal(error))
        if session.ends_on_error:
            await connection.close(CloseCode.INTERNAL_ERROR, _shortened(str(error)))

    @staticmethod
    async def _send(connection: ServerConnection, frame: bytes | str) -> None:
        """Send, or drop a client that does not read."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await connection.send(frame)
        except TimeoutError:
            logger.warning("%s: received no reply within %g s", connection.remote_address, SEND_SECONDS)
            connection.transport.abort()

    @staticmethod
    async def _close(connection: ServerConnection) -> None:
        await connection.close(CloseCode.GOING_AWAY, "the server is stopping")


def keep_alive(client: socket.socket) -> None:
    """Let the system detect a client's machine that is gone; a busy process does not count as gone."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENT_SECONDS // 4)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _shortened(text: str) -> str:
    return text.encode()[:LONGEST_REASON].decode("utf-8", "ignore")
