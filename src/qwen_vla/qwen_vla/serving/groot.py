# SPDX-License-Identifier: Apache-2.0
"""GR00T's protocol: requests over ZeroMQ, arrays as .npy or as msgpack-numpy, replies in the same encoding.

docs/reference/protocols.md lists every key. ZeroMQ collects the parts of a message before they can be counted, so this
port is for trusted networks only.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zmq
import zmq.asyncio

from qwen_vla.policies import Observation
from qwen_vla.serving.inference_queue import Answer, InferenceQueue
from qwen_vla.serving.messages import (
    ArrayEncoder,
    RequestError,
    describe,
    msgpack_numpy_array,
    npy_array,
    openpi_array,
    pack,
    unpack,
)
from qwen_vla.serving.request import Request
from qwen_vla.serving.request_reader import RequestReader
from qwen_vla.serving.seldom import Seldom
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.websocket_listener import Limits

logger = logging.getLogger(__name__)
logger.addFilter(Seldom(burst=20, every=5.0))
ENDPOINTS = ("ping", "get_modality_config", "get_action", "reset", "kill")
LARGEST_BATCH = 32  # observations of one request
LINGER_MS = 1000  # for sending the last replies
STATE, ACTION, LANGUAGE = "state", "action", "task"  # names of the only entry of each modality


class GrootListener:
    """A ZeroMQ port that serves each client's requests one by one, and clients concurrently."""

    def __init__(
        self, served: ServedPolicy, queue: InferenceQueue, limits: Limits | None = None, api_key: str = ""
    ) -> None:
        self._served, self._queue, self._api_key = served, queue, api_key
        self._reader = RequestReader(served)
        self._limits = limits or Limits()
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.MAXMSGSIZE, self._limits.frame_bytes)
        self._socket.set(zmq.RCVHWM, 1)  # messages queued per client
        self._busy: set[bytes] = set()  # clients that wait for a reply
        self._running: set[asyncio.Task] = set()
        self._receiving: asyncio.Task | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, chosen by the system if it is 0."""
        try:
            self._socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error}") from error
        self._receiving = asyncio.create_task(self._receive())
        return int(self._socket.get_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])

    async def stop(self) -> None:
        """Accept no more requests, and finish running ones."""
        running = list(self._running)
        if self._receiving is not None:
            self._receiving.cancel()
            running.append(self._receiving)
        await asyncio.gather(*running, return_exceptions=True)
        self._socket.close(linger=LINGER_MS)
        await asyncio.to_thread(self._context.term)

    async def _receive(self) -> None:
        while True:
            client, *parts = await self._socket.recv_multipart()
            if len(parts) != 2 or parts[0]:
                logger.warning("a message of %d parts is not one of GR00T's protocol", len(parts))
            elif client in self._busy or len(self._busy) >= self._limits.clients:
                await self._send(client, {"error": "one request at a time; wait for the reply"}, npy_array)
            else:
                self._busy.add(client)
                task = asyncio.create_task(self._serve(client, parts[1]))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _serve(self, client: bytes, frame: bytes) -> None:
        encode = _spelling(frame)
        try:
            reply = await self._answer(client, unpack(frame))
        except RequestError as error:
            logger.warning("%s", error)
            reply = {"error": str(error)}
        except Exception as error:  # one client's message must not end the service
            logger.exception("a request failed")
            reply = {"error": f"failed with {type(error).__name__}; see the server's log"}
        finally:
            self._busy.discard(client)  # before the reply, after which its next request may come at once
        await self._send(client, reply, encode)

    async def _send(self, client: bytes, reply: Any, encode: ArrayEncoder) -> None:
        await self._socket.send_multipart([client, b"", pack(reply, encode)])

    async def _answer(self, client: bytes, fields: Mapping[str, Any]) -> Any:
        token = fields.get("api_token")
        given = token.encode() if isinstance(token, str) else b""
        if self._api_key and not hmac.compare_digest(given, self._api_key.encode()):
            raise RequestError("api_token: Unauthorized: Invalid API token")
        endpoint = self._reader.choice("endpoint", fields.get("endpoint", "get_action"), ENDPOINTS)
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return self._modalities()
        if endpoint == "reset":
            return {}
        if endpoint == "get_action":
            return await self._actions(client, _map("data", fields.get("data")))
        raise RequestError("endpoint: kill is not available to clients; stop the server with SIGTERM")

    def _modalities(self) -> dict[str, Any]:
        rows, frames = self._served.chunk_shape[0], self._served.history.frames
        keys = {
            "video": (list(range(1 - frames, 1)), list(self._served.cameras)),
            "state": ([0], [STATE] if self._served.state_names else []),
            "action": (list(range(rows)), [ACTION]),
            "language": ([0], [LANGUAGE]),
        }
        return {
            name: {
                "__ModalityConfig_class__": True,
                "as_json": {"delta_indices": deltas, "modality_keys": names},
            }
            for name, (deltas, names) in keys.items()
        }

    async def _actions(self, client: bytes, data: Mapping[str, Any]) -> list:
        requests = self._requests(data)
        answers: list[Answer] = await asyncio.gather(
            *(self._queue.infer((client, number), request) for number, request in enumerate(requests))
        )
        about = self._served.metadata
        info = {
            "server_timing": {"infer_ms": answers[0].infer_ms, "wait_ms": answers[0].wait_ms},
            **{name: about[name] for name in ("embodiment", "control_mode", "period", "actions", "checkpoint_hash")},
            "execution_horizon": answers[0].chunk.execution_horizon,
        }
        return [{ACTION: np.stack([answer.chunk.data for answer in answers]).astype(np.float32)}, info]

    def _requests(self, data: Mapping[str, Any]) -> list[Request]:
        """One request for each entry of the batch."""
        seen, options = _map("observation", data.get("observation")), _map("options", data.get("options"), {})
        instructions = _instructions(_map("observation.language", seen.get("language")))
        video = _batches("observation.video", seen.get("video"), len(instructions), 5)
        states = _batches("observation.state", seen.get("state"), len(instructions), 3)
        seed = self._reader.seed(options.get("seed"))
        return [
            Request(
                Observation(
                    images=self._reader.images({name: (field, _frames(v[n])) for name, (field, v) in video.items()}),
                    instruction=self._reader.instruction("observation.language", instruction),
                    state=self._state([state[n] for _, state in states.values()]),
                ),
                None if seed is None else seed + n,
            )
            for n, instruction in enumerate(instructions)
        ]

    def _state(self, states: Sequence[np.ndarray]) -> np.ndarray | None:
        """The last of the states (T, D), several entries concatenated."""
        whole = np.concatenate([state[-1] for state in states]) if states else None
        return self._reader.state("observation.state", whole)


def _spelling(frame: bytes) -> ArrayEncoder:
    """The client's encoding of arrays, also for the reply."""
    if b"__ndarray_class__" in frame:
        return npy_array
    return openpi_array if b"__ndarray__" in frame else msgpack_numpy_array


def _map(field: str, value: Any, otherwise: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A map; `otherwise` if it is missing."""
    value = otherwise if value is None else value
    if not isinstance(value, Mapping):
        raise RequestError(f"{field}: must be a map, got {describe(value)}")
    return value


def _instructions(language: Mapping[str, Any]) -> list[Any]:
    """The text of each entry of the batch, of {name: [[text], …]}."""
    if len(language) != 1:
        raise RequestError(f"observation.language: must be one entry, {LANGUAGE!r}, got {sorted(language)[:5]}")
    (rows,) = language.values()
    if not isinstance(rows, list) or not 1 <= len(rows) <= LARGEST_BATCH:
        raise RequestError(f"observation.language: must be a list of 1 to {LARGEST_BATCH}, got {describe(rows)}")
    return [row[-1] if isinstance(row, list) and row else row for row in rows]


def _batches(field: str, value: Any, batch: int, dimensions: int) -> dict[str, tuple[str, np.ndarray]]:
    """Field and array of each entry of a modality: as many as there are instructions, each with at least one time."""
    found = {}
    for name, array in _map(field, value, {}).items():
        right = isinstance(array, np.ndarray) and array.ndim == dimensions and len(array) == batch and array.shape[1]
        if not right:
            shape = "(B, T, H, W, 3)" if dimensions == 5 else "(B, T, D)"
            got = describe(array)
            raise RequestError(f"{field}.{name}: must be {shape} with B = {batch}, as many as instructions; got {got}")
        found[name] = (f"{field}.{name}", array)
    return found


def _frames(images: np.ndarray) -> np.ndarray:
    """A camera's images (T, H, W, 3), or a single image."""
    return images[0] if len(images) == 1 else images
