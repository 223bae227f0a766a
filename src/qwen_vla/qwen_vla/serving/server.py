"""The process behind `qwen-vla serve`: opens the policy, listens, and ends well when it is told to."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass, field
from functools import partial

from embodiment_descriptions import Embodiment
from qwen_vla.policies import PolicyOptions
from qwen_vla.serving import openpi
from qwen_vla.serving.inference_queue import InferenceQueue
from qwen_vla.serving.openpi import OpenPiSession
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.serving.websocket_listener import Limits, WebSocketListener

logger = logging.getLogger(__name__)
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class ServeOptions:
    """Where to listen and for whom.

    Attributes:
        host: address to listen at.
        port: of openpi's protocol; 0: any that is free.
        api_key: that clients must send; empty: none.
        largest_batch: requests that are computed together where they meet.
        limits: what clients may cost.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    largest_batch: int = 8
    limits: Limits = field(default_factory=Limits)


def serve(reference: str, embodiment: Embodiment, options: ServeOptions, policy: PolicyOptions) -> None:
    """Serve a policy until SIGTERM or Ctrl-C; what runs then is finished.

    Raises:
        ValueError, FileNotFoundError: there is no such policy, or it does not fit the robot.
        OSError: the port is taken.
    """
    served = ServedPolicy(reference, embodiment, policy)
    asyncio.run(_serve(served, options))


async def _serve(served: ServedPolicy, options: ServeOptions) -> None:
    stopped = asyncio.Event()
    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    queue = InferenceQueue(served, options.largest_batch)
    listener = WebSocketListener(
        partial(OpenPiSession, served=served, queue=queue), openpi.PAGES, options.limits, options.api_key
    )
    try:
        port = await listener.start(options.host, options.port)
        about = served.metadata
        print(f"{about['policy']} for {about['embodiment']}: openpi at ws://{options.host}:{port}; ready", flush=True)
        await stopped.wait()
        print("stopping: requests that run are finished", flush=True)
        await listener.stop()
    finally:
        await asyncio.to_thread(queue.close)
