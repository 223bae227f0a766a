# SPDX-License-Identifier: Apache-2.0
"""What tests of the server share: a served policy of micro size, a running listener, and raw clients."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgpack
import numpy as np
from websockets.asyncio.client import connect

from embodiment_descriptions import load_robot
from qwen_vla.policies import ActionChunk, Observation
from qwen_vla.serving import openpi
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.messages import openpi_array, pack, unpack
from qwen_vla.serving.openpi import OpenPiSession
from qwen_vla.serving.request import Request
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.websocket_listener import Limits, WebSocketListener

HOST, SIZE = "127.0.0.1", (24, 32, 3)
PROMPT = "pick up the red cube"


def images(served: ServedPolicy, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {tag: rng.integers(0, 256, SIZE, dtype=np.uint8) for tag in served.cameras}


def request(served: ServedPolicy, number: int = 0) -> Request:
    return Request(Observation(images(served, number), PROMPT, state=np.zeros(len(served.state_names))), number)


class HeldPolicy(ServedPolicy):
    """Computes nothing before it is let go; remembers by their seeds what was computed together."""

    def __init__(self, reference: str, robot: str = "widowx", largest_batch: int = 1) -> None:
        super().__init__(reference, load_robot(robot))
        self.largest_batch = largest_batch
        self.entered, self.released = threading.Event(), threading.Event()
        self.computed: list[list[int | None]] = []

    def infer(self, requests: Sequence[Request]) -> list[ActionChunk]:
        self.entered.set()
        assert self.released.wait(60)
        self.computed.append([asked.seed for asked in requests])
        return [chunk for asked in requests for chunk in super(HeldPolicy, self).infer([asked])]


@asynccontextmanager
async def listening(
    served: ServedPolicy, limits: Limits | None = None, api_key: str = ""
) -> AsyncIterator[tuple[str, WebSocketListener]]:
    """The address of a listener that speaks openpi's protocol, and the listener."""
    queue = InferenceQueue(served)
    session = partial(OpenPiSession, served=served, queue=queue)
    listener = WebSocketListener(session, openpi.PAGES, limits, api_key)
    port = await listener.start(HOST, 0)
    try:
        yield f"ws://{HOST}:{port}", listener
    finally:
        await listener.stop()
        queue.close()


@asynccontextmanager
async def client(address: str, **options):
    """A connection whose metadata was read."""
    async with connect(address, compression=None, max_size=None, **options) as connection:
        connection.metadata = unpack(await connection.recv())
        yield connection


async def ask(connection, fields: dict) -> dict | str:
    """The answer to a message, decoded; a text stays one."""
    await connection.send(pack(fields, openpi_array))
    answer = await connection.recv()
    return answer if isinstance(answer, str) else unpack(answer)


def raw(fields: dict) -> bytes:
    return msgpack.packb(fields)
