# SPDX-License-Identifier: Apache-2.0
"""The process behind `qwen-vla serve`: opens the policy, listens, and shuts down cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from embodiment_descriptions import Embodiment
from qwen_vla.policies import PolicyOptions
from qwen_vla.serving import openpi, vla_eval
from qwen_vla.serving.addresses import check_addresses
from qwen_vla.serving.groot import GrootListener
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.openpi import OpenPiSession
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.vla_eval import VlaEvalSession
from qwen_vla.serving.websocket_listener import Limits, WebSocketListener

STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class ServeOptions:
    """Addresses, protocols and limits of the server.

    Attributes:
        host: address to listen on.
        port, vla_eval_port, groot_port: of each protocol; 0: any free one; None: disabled.
        api_key: that clients must send; empty: none.
        largest_batch: maximum number of requests in a batch; 0: default for the device.
        camera_names: clients' names of cameras -> the policy's tags.
        limits: limits of clients.
    """

    host: str = "127.0.0.1"
    port: int | None = 8000
    vla_eval_port: int | None = None
    groot_port: int | None = None
    api_key: str = ""
    largest_batch: int = 0
    camera_names: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


class Listener(Protocol):
    """A port with a protocol."""

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port."""
        ...

    async def stop(self) -> None:
        """Accept no more requests, and finish running ones."""
        ...


def serve(reference: str, embodiment: Embodiment, options: ServeOptions, policy: PolicyOptions) -> None:
    """Serve a policy until SIGTERM or Ctrl-C; running requests are finished.

    Raises:
        ValueError, FileNotFoundError: there is no such policy, or it does not fit the robot.
        OSError: a port is in use, or the host is not of this machine.
    """
    ports = (options.port, options.vla_eval_port, options.groot_port)
    check_addresses(options.host, [port for port in ports if port is not None])
    served = ServedPolicy(reference, embodiment, policy, options.largest_batch, options.camera_names)
    asyncio.run(_serve(served, options))


async def _serve(served: ServedPolicy, options: ServeOptions) -> None:
    stopped = asyncio.Event()
    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    queue = InferenceQueue(served)
    started: list[Listener] = []
    try:
        print(f"{served.metadata['policy']} for {served.metadata['embodiment']}:")
        for name, scheme, port, listener in _listeners(served, queue, options):
            port = await listener.start(options.host, port)
            started.append(listener)
            print(f"{name} at {scheme}://{options.host}:{port}")
        print("ready", flush=True)
        await stopped.wait()
        print("stopping: finishing running requests", flush=True)
    finally:
        await asyncio.gather(*(listener.stop() for listener in started))
        await asyncio.to_thread(queue.close)


def _listeners(
    served: ServedPolicy, queue: InferenceQueue, options: ServeOptions
) -> Iterator[tuple[str, str, int, Listener]]:
    """Name, scheme, requested port and listener of each enabled protocol."""
    sessions = {
        "openpi": (options.port, OpenPiSession, openpi.PAGES),
        "vla-eval": (options.vla_eval_port, VlaEvalSession, vla_eval.PAGES),
    }
    for name, (port, session, pages) in sessions.items():
        if port is not None:
            make = partial(session, served=served, queue=queue)
            yield name, "ws", port, WebSocketListener(make, pages, options.limits, options.api_key)
    if options.groot_port is not None:
        yield "groot", "tcp", options.groot_port, GrootListener(served, queue, options.limits, options.api_key)
