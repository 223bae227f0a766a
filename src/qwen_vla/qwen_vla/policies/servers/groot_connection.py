# SPDX-License-Identifier: Apache-2.0
"""A connection to a server that speaks GR00T's protocol: requests over ZeroMQ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from qwen_vla.policies.servers.connection import CONNECT_SECONDS, LARGEST_ANSWER, ServerConnection
from qwen_vla.serving.messages import ArrayEncoder, RequestError, describe, npy_array, pack, unpack_value

MODALITIES = ("video", "state", "action", "language")


class GrootConnection(ServerConnection):
    """A REQ socket. Its metadata: of each modality, the keys and the number of times (frames, rows)."""

    def __init__(self, address: str, key: str = "", encode: ArrayEncoder = npy_array) -> None:
        """address: HOST:PORT. key: API token of the server. encode: its encoding of arrays."""
        super().__init__(f"groot://{address}")
        self._address, self._key, self._encode = address, key, encode
        self._context: zmq.Context | None = None
        self._sockets: tuple[zmq.Socket[bytes], zmq.Socket[bytes]] | None = None  # of requests, and of its events

    def _connect(self) -> dict[str, Any]:
        self._context = zmq.Context()  # its own: sockets of one context share names of their monitors
        socket = self._context.socket(zmq.REQ)
        socket.set(zmq.MAXMSGSIZE, LARGEST_ANSWER)
        self._sockets = socket, socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            socket.connect(f"tcp://{self._address}")
            self._exchange({"endpoint": "ping"}, CONNECT_SECONDS)
            return _modalities(self._exchange({"endpoint": "get_modality_config"}, CONNECT_SECONDS))
        except (zmq.ZMQError, OSError, ValueError, ArithmeticError) as error:
            self._disconnect()
            raise ConnectionError(f"no policy responds at {self}: {error}") from error

    def _exchange(self, fields: Mapping[str, Any], seconds: float) -> Any:
        if self._sockets is None:
            raise ConnectionError(f"{self} is not connected")
        token = {"api_token": self._key} if self._key else {}
        socket, events = self._sockets
        socket.send(pack({**fields, **token}, self._encode))
        try:
            answer = unpack_value(self._receive(socket, events, seconds))
        except RequestError as error:
            raise ArithmeticError(f"{self} sent an invalid response: {error}") from error
        if isinstance(answer, Mapping) and "error" in answer:
            raise ValueError(f"{self} refuses: {str(answer['error'])[-500:]}")
        return answer

    def _receive(self, socket: zmq.Socket[bytes], events: zmq.Socket[bytes], seconds: float) -> bytes:
        """The response; ConnectionError as soon as the connection is lost, which ZeroMQ would hide."""
        poller = zmq.Poller()
        for each in (socket, events):
            poller.register(each, zmq.POLLIN)
        ready = dict(poller.poll(int(1000 * seconds)))
        if socket in ready:
            return socket.recv()
        if events in ready:
            recv_monitor_message(events)
            raise ConnectionError(
                f"the connection to {self} was lost: it ended, or its response was above {LARGEST_ANSWER} bytes"
            )
        raise TimeoutError(f"{self} did not respond within {seconds:g} s")

    def _disconnect(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = self._sockets = None


def _modalities(config: Any) -> dict[str, Any]:
    """{modality: {"keys": names, "times": number}}; ValueError if it is not the configuration of a GR00T server."""
    if not isinstance(config, Mapping):
        raise ValueError(f"its modality configuration is {describe(config)}")
    return {name: _modality(name, config[name]) for name in MODALITIES if name in config}


def _modality(name: str, value: Any) -> dict[str, Any]:
    """N1.7 sends a map, earlier servers a map as JSON text, some of them without the wrapper."""
    if isinstance(value, Mapping):
        value = value.get("as_json", value)
    if isinstance(value, str):
        value = json.loads(value)
    keys, deltas = (value.get("modality_keys"), value.get("delta_indices")) if isinstance(value, Mapping) else (0, 0)
    if not isinstance(keys, Sequence) or not isinstance(deltas, Sequence):
        raise ValueError(f"its modality configuration of {name} is {describe(value)}")
    return {"keys": list(map(str, keys)), "times": len(deltas)}
