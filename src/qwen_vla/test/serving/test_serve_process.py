"""`qwen-vla serve` as a process: it shuts down cleanly, reports errors, and survives any input."""

import random
import signal
import socket
import subprocess
import sys

import numpy as np
import psutil
import pytest
from groot_client import GrootClient
from serve_process import serving
from serving_peers import PROMPT
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from qwen_vla.serving.messages import openpi_array, pack, unpack

FRAMES = 200  # of nonsense for each protocol in the usual run
GROWTH = 48 * 2**20  # of memory, that a server may show after having been tortured [bytes]
PROTOCOLS = ("openpi", "vla-eval", "groot")


@pytest.fixture(scope="module")
def server(fitting_checkpoint):
    policy = ("--checkpoint", str(fitting_checkpoint), "--robot", "widowx", "--threads", "1")
    with serving(*policy, "--port", "0", "--vla-eval-port", "0", "--groot-port", "0") as server:
        yield server


class WebSocketPeer:
    """Sends frames as they are; connects again where the server has closed the connection."""

    def __init__(self, port: int, greeted: bool) -> None:
        self._port, self._greeted = port, greeted
        self._connect()

    def _connect(self) -> None:
        self._connection = connect(f"ws://127.0.0.1:{self._port}", compression=None, legacy=True)
        if self._greeted:
            self._connection.recv()

    def ask(self, frame: bytes | str) -> bytes | str | None:
        """The answer; None where the connection was closed."""
        try:
            self._connection.send(frame)
            return self._connection.recv(timeout=30)
        except ConnectionClosed:
            self._connect()
            return None

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


def _actions(answer: bytes) -> np.ndarray:
    """The response to a request of openpi."""
    return unpack(answer)["actions"]


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


def _survives(server, protocol: str, frames: int) -> None:
    """Torture one port; two clients of openpi are answered before, meanwhile and after, and memory does not grow."""
    process, random_ = psutil.Process(server.process.pid), random.Random(0)
    peer, good = _peer(server, protocol), [_peer(server, "openpi") for _ in range(2)]
    request = pack(_fields("openpi"), openpi_array)
    wanted, refused = _actions(good[0].ask(request)), 0
    for number in range(frames + frames // 8):
        if number == frames // 8:  # what the first errors of each kind load stays
            before = process.memory_info().rss
        answer = peer.ask(_nonsense(random_, protocol))
        refused += isinstance(answer, str) or (answer is not None and b"error" in answer)
        if number % 50 == 0:
            np.testing.assert_array_equal(_actions(good[number % 2].ask(request)), wanted)
    assert refused > frames / 8
    assert process.memory_info().rss - before < GROWTH
    for each in good:
        np.testing.assert_array_equal(_actions(each.ask(request)), wanted)
    for each in (peer, *good):
        each.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nonsense_costs_other_clients_nothing_and_leaves_no_memory_behind(server, protocol: str) -> None:
    _survives(server, protocol, FRAMES)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ten_thousand_frames_of_nonsense(server, protocol: str) -> None:
    _survives(server, protocol, 10_000)
