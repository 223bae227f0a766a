# SPDX-License-Identifier: Apache-2.0
"""A client of GR00T, written from the published protocol: its own package needs CUDA and cannot be installed here.

It shares nothing with the server: MessagePack and ZeroMQ as they are, arrays as .npy or as msgpack-numpy packs them.
"""

from __future__ import annotations

import io
from typing import Any

import msgpack
import numpy as np
import zmq


def npy(value: Any) -> Any:
    """Arrays as NVIDIA's client packs them."""
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    return value


def msgpack_numpy(value: Any) -> Any:
    """Arrays as the package msgpack-numpy packs them."""
    if isinstance(value, np.ndarray):
        kind = b"V" if value.dtype.kind == "V" else b""
        return {b"nd": True, b"type": value.dtype.str, b"kind": kind, b"shape": value.shape, b"data": value.tobytes()}
    return value


def decode(value: dict) -> Any:
    if "__ndarray_class__" in value:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
    if b"nd" in value:
        return np.frombuffer(value[b"data"], np.dtype(value[b"type"])).reshape(value[b"shape"])
    return value


class GrootClient:
    """A REQ socket; a call that gets no answer within a minute fails."""

    def __init__(self, port: int, encode=npy, token: str = "") -> None:
        self._encode, self._token = encode, token
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def __enter__(self) -> GrootClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()

    def call(self, endpoint: str, data: dict | None = None) -> Any:
        request: dict = {"endpoint": endpoint} | ({"data": data} if data is not None else {})
        if self._token:
            request["api_token"] = self._token
        return self.call_raw(msgpack.packb(request, default=self._encode))

    def call_raw(self, frame: bytes) -> Any:
        self._socket.send(frame)
        self.frame = self._socket.recv()
        return msgpack.unpackb(self.frame, object_hook=decode)
