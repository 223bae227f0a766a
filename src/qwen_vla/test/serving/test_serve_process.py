# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla serve` as a process: it shuts down cleanly, reports errors, and survives any input."""

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from groot_client import GrootClient
from serve_process import serving
from serving_peers import PROMPT
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from qwen_vla.serving.messages import openpi_array, pack, unpack_value

FRAMES = 200  # of nonsense for each protocol in the usual run
SEED = 17  # of the nonsense
GROWTH = 48 * 2**20  # of memory, that a server may show after having been tortured [bytes]
ASK_EVERY = 0.05  # by the clients beside [s]
STEPS = 8  # rows of the checkpoint's chunks that vla-eval gets before the next chunk
PROTOCOLS = ("openpi", "vla-eval", "groot")


@pytest.fixture(scope="module")
def server(fitting_checkpoint):
    policy = ("--checkpoint", str(fitting_checkpoint), "--robot", "widowx", "--threads", "1")
    with serving(*policy, "--port", "0", "--vla-eval-port", "0", "--groot-port", "0") as server:
        yield server


class WebSocketPeer:
    """Sends frames as they are; connects again after an error text, because the server then closes the connection."""

    def __init__(self, port: int, greeted: bool) -> None:
        self._port, self._greeted = port, greeted
        self._connect()

    def _connect(self) -> None:
        self._connection = connect(f"ws://127.0.0.1:{self._port}", compression=None, legacy=True)
        if self._greeted:
            self._connection.recv()

    def ask(self, frame: bytes | str) -> bytes | str:
        """The answer; an error when the connection is closed without one."""
        self._connection.send(frame)
        answer = self._connection.recv(timeout=60)
        if isinstance(answer, str):
            self.close()
            self._connect()
        return answer

    def close(self) -> None:
        self._connection.close()


class ZmqPeer(GrootClient):
    """Sends frames as they are."""

    def ask(self, frame: bytes | str) -> bytes:
        self.call_raw(frame.encode() if isinstance(frame, str) else frame)
        return self.frame

    def close(self) -> None:
        self.__exit__()


def _peer(server, protocol: str) -> WebSocketPeer | ZmqPeer:
    port = server.ports[protocol]
    return ZmqPeer(port) if protocol == "groot" else WebSocketPeer(port, greeted=protocol == "openpi")


def _fields(protocol: str) -> dict:
    """A request that can be answered."""
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    images = {"ego": image, "cam_wrist": image}
    if protocol == "openpi":
        return {"images": images, "prompt": PROMPT, "seed": 1}
    if protocol == "groot":
        video = {tag: each[None, None] for tag, each in images.items()}
        seen = {"video": video, "state": {}, "language": {"task": [[PROMPT]]}}
        return {"endpoint": "get_action", "data": {"observation": seen, "options": {"seed": 1}}}
    payload = {"images": images, "task_description": PROMPT, "states": np.zeros(8), "seed": 1}
    return {"type": "observation", "payload": payload, "seq": 1, "timestamp": 0.0}


def _actions(protocol: str, answer: bytes) -> np.ndarray:
    """The actions in the answer to such a request."""
    value = unpack_value(answer)
    if protocol == "groot":
        return value[0]["action"]
    return value["actions"] if protocol == "openpi" else value["payload"]["actions"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_code_zero_when_it_is_told_to(number: int) -> None:
    with serving("--policy", "mock://hold", "--robot", "mobile_base", "--port", "0") as server:
        with connect(f"ws://127.0.0.1:{server.ports['openpi']}", compression=None) as connection:
            connection.recv()
            server.process.send_signal(number)
            with pytest.raises(ConnectionClosed, match="1001"):
                connection.recv(timeout=30)
        server.read_until("stopping")
        assert server.process.wait(30) == 0


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "qwen_vla", "serve", "--policy", "mock://hold", "--robot", "aloha"]
        done = subprocess.run([*command, "--port", str(port)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("qwen-vla: ") and str(port) in done.stderr and done.stderr.count("\n") == 1


def _nonsense(random_: random.Random, protocol: str) -> bytes | str:
    """A frame that is corrupt, truncated, of other types, of random bytes, or text."""
    kind, fields = random_.randrange(5), _fields(protocol)
    good = pack(fields, openpi_array)
    if kind == 0:
        return random_.randbytes(random_.randrange(200))
    if kind == 1:
        return good[: random_.randrange(len(good))]
    if kind == 2:
        damaged = bytearray(good)
        for _ in range(random_.randrange(1, 8)):
            damaged[random_.randrange(min(len(damaged), 400))] = random_.randrange(256)
        return bytes(damaged)
    if kind == 3:
        return pack(_changed(random_, fields), openpi_array)
    return "text" * random_.randrange(50)


def _changed(random_: random.Random, fields: dict) -> dict:
    """The same map with one value, somewhere in it, of another kind."""
    values = [None, -1, 2**63, 1.5, "text", [], {}, b"", float("nan"), [[[]]], {"a": {}}, np.zeros(3)]
    name = random_.choice(list(fields))
    inner = fields[name]
    deeper = isinstance(inner, dict) and inner and random_.random() < 0.8
    return fields | {name: _changed(random_, inner) if deeper else random_.choice(values)}


def _keep_asking(server, protocol: str, ended: threading.Event) -> list[float]:
    """Ask the same as fast as a robot does, until it is ended; returns the time of each answer [s].

    Every answer must be the first one again; vla-eval's are the rows of a chunk, in turn.
    """
    peer, request = _peer(server, protocol), pack(_fields(protocol), openpi_array)
    wanted = [_actions(protocol, peer.ask(request)) for _ in range(STEPS if protocol == "vla-eval" else 1)]
    times: list[float] = []
    while not ended.wait(ASK_EVERY):
        began = time.perf_counter()
        answer = peer.ask(request)
        times.append(time.perf_counter() - began)
        np.testing.assert_array_equal(_actions(protocol, answer), wanted[(len(times) - 1) % len(wanted)])
    peer.close()
    return times


def _send_nonsense(server, protocol: str, frames: int) -> str:
    """Send that many frames, each of which must be answered, without growth; the figures, for a table."""
    process, random_, peer = psutil.Process(server.process.pid), random.Random(SEED), _peer(server, protocol)
    refused, before, began = 0, 0, time.perf_counter()
    for number in range(frames + frames // 8):
        if number == frames // 8:  # what the first errors of each kind load stays
            before, refused, began = process.memory_info().rss, 0, time.perf_counter()
        answer = peer.ask(_nonsense(random_, protocol))
        refused += isinstance(answer, str) or b"error" in answer
    seconds, after = time.perf_counter() - began, process.memory_info().rss
    peer.close()
    assert refused > frames / 2
    assert after - before < GROWTH
    memory = f"{before / 2**20:.0f} → {after / 2**20:.0f} MB"
    return f"{frames:,} | {refused:,} | {frames - refused:,} | {seconds:.0f} | {memory}"


def _survives(server, protocol: str, frames: int) -> None:
    """Send nonsense to one port while two clients, one of them on the same port, are served."""
    ended = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        beside = [threads.submit(_keep_asking, server, each, ended) for each in ("openpi", protocol)]
        try:
            figures = _send_nonsense(server, protocol, frames)
        finally:
            ended.set()
        times = [time_ for each in beside for time_ in each.result(120)]
    p50, p99, longest = (1e3 * np.percentile(times, q) for q in (50, 99, 100))
    print(f"\n| {protocol}, seed {SEED} | {figures} | {len(times):,} | {p50:.0f} / {p99:.0f} / {longest:.0f} ms |")
    assert all(len(each.result()) >= frames / 200 for each in beside)
    assert server.process.poll() is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nonsense_costs_other_clients_nothing_and_leaves_no_memory_behind(server, protocol: str) -> None:
    _survives(server, protocol, FRAMES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ten_thousand_frames_of_nonsense(server, protocol: str) -> None:
    """With -s it prints the rows of the table in docs/explanation/hostile_input.md."""
    _survives(server, protocol, 10_000)
