"""`qwen-vla serve` as a process: it ends well, says what is wrong, and survives whatever is sent to it."""

import random
import signal
import socket
import subprocess
import sys

import numpy as np
import psutil
import pytest
from serve_process import serving
from serving_peers import PROMPT
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from qwen_vla.serving.messages import openpi_array, pack, unpack

FRAMES = 400  # of nonsense in the usual run
GROWTH = 48 * 2**20  # of memory, that a server may show after having been tortured [bytes]


@pytest.fixture(scope="module")
def server(fitting_checkpoint):
    with serving(
        "--checkpoint", str(fitting_checkpoint), "--robot", "widowx", "--port", "0", "--threads", "1"
    ) as server:
        yield server


def _fields() -> dict:
    random_image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return {"images": {"ego": random_image, "cam_wrist": random_image}, "prompt": PROMPT, "seed": 1}


def _connect(port: int):
    connection = connect(f"ws://127.0.0.1:{port}", compression=None, legacy=True)
    connection.recv()
    return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_code_zero_when_it_is_told_to(number: int) -> None:
    with serving("--policy", "mock://hold", "--robot", "mobile_base", "--port", "0") as server:
        with _connect(server.ports["openpi"]) as connection:
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


def _nonsense(random_: random.Random, good: bytes) -> bytes | str:
    """A frame that is damaged, cut, of other types, of random bytes, or text."""
    kind = random_.randrange(5)
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
        values = [None, -1, 2**63, 1.5, "text", [], {}, b"", float("nan"), [[[]]], {"a": {}}]
        changed = {name: random_.choice(values) for name in random_.sample(list(_fields()), 2)}
        return pack(_fields() | changed, openpi_array)
    return "text" * random_.randrange(50)


def _torture(port: int, frames: int) -> int:
    """Send nonsense over as many connections as it costs; returns how many frames were answered with an error."""
    random_, good, refused = random.Random(0), pack(_fields(), openpi_array), 0
    connection = _connect(port)
    for _ in range(frames):
        try:
            connection.send(_nonsense(random_, good))
            refused += isinstance(connection.recv(timeout=30), str)
        except ConnectionClosed:
            connection = _connect(port)
    connection.close()
    return refused


def _survives(server, frames: int) -> None:
    port, process = server.ports["openpi"], psutil.Process(server.process.pid)
    with _connect(port) as first, _connect(port) as second:
        wanted = []
        for connection in (first, second):
            connection.send(pack(_fields(), openpi_array))
            wanted.append(unpack(connection.recv(timeout=60))["actions"])
        _torture(port, frames // 8)  # what the first errors of each kind load stays
        before = process.memory_info().rss
        assert _torture(port, frames) > frames / 8
        for connection in (first, second):
            connection.send(pack(_fields(), openpi_array))
            np.testing.assert_array_equal(unpack(connection.recv(timeout=60))["actions"], wanted[0])
    assert process.memory_info().rss - before < GROWTH


def test_nonsense_costs_other_clients_nothing_and_leaves_no_memory_behind(server) -> None:
    _survives(server, FRAMES)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_frames_of_nonsense(server) -> None:
    _survives(server, 10_000)
