# SPDX-License-Identifier: Apache-2.0
"""What `qwen-vla serve` costs: latency that clients see, alone and beside others, and what it adds to inference.

    .venv/bin/python benchmarks/serving.py --json out/serving.json

For each policy it starts the server on loopback and asks it over openpi's protocol, each client as soon as it has its
answer, with one image of 224² for each camera; about two minutes. With one client, in turn: `overhead_ms` is the time
of a call less the inference in it, of the same call; `floor_ms` is the time for the same bytes to and from a process
that does nothing; `direct_ms` is `Policy.infer` in this process. Prints the table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.sync.client import ClientConnection, connect

from embodiment_descriptions import load_robot
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import check_files, with_maker
from qwen_vla.policies import Observation, PolicyOptions, open_policy, warm_up
from qwen_vla.serving.messages import openpi_array, pack, unpack

MAKER = "benchmarks/serving.py"  # as `output_paths` knows it
SIDE = 224  # of the images [pixels]
PROMPT = "pick up the red cube"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", nargs="+", default=["mock://hold", "tiny"], help="mock://hold: the server alone")
    parser.add_argument("--robot", default="widowx")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--largest-batch", type=int, default=0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=50, help="of each client")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that this did not make")
    parser.add_argument("--answer", type=int, help=argparse.SUPPRESS)  # be the floor
    options = parser.parse_args()
    if options.answer is not None:
        asyncio.run(answer(options.answer))
    check_files(MAKER, options.overwrite, {"--json": options.json})
    result = measure(options)
    print(table(result))
    if options.json:
        write_json(options.json, with_maker(MAKER, result))


def measure(options: argparse.Namespace) -> dict:
    """The figures of each policy, and what else the machine was doing."""
    before = os.getloadavg()[0]
    return {
        "robot": options.robot,
        "device": options.device,
        "threads": options.threads,
        "largest_batch": options.largest_batch,
        "policies": {policy: measure_one(options, policy) for policy in options.policy},
        "load_average": {"before": before, "after": os.getloadavg()[0]},
    }


def measure_one(options: argparse.Namespace, policy: str) -> dict:
    with serving(options, policy) as port, connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
        needs = unpack(connection.recv())
        message = pack(fields(needs), openpi_array)
        return {
            "images": [len(needs["cameras"]), SIDE, SIDE],
            "one_client": beside_direct(options, policy, connection, fields(needs), message),
            "clients": {str(count): crowd(port, count, options.requests, message) for count in options.clients},
        }


def table(result: dict) -> str:
    """Milliseconds as p50 (p99), a column for each policy, in Markdown."""
    names = {"overhead_ms": "overhead, one client", "floor_ms": "floor", "direct_ms": "the policy itself, in turn"}
    found = list(result["policies"].values())
    rows = [[label, *(_cell(one["one_client"][name]) for one in found)] for name, label in names.items()]
    for count in found[0]["clients"]:
        label = f"{count} client{'s' if int(count) > 1 else ''}"
        rows.append([label, *(_cell(one["clients"][count]["call_ms"]) for one in found)])
    chunks = [[f"{row['chunks_per_s']:.0f}" for row in one["clients"].values()] for one in found]
    rows.append([f"chunks per second with {' / '.join(found[0]['clients'])} clients", *(" / ".join(c) for c in chunks)])
    rows = [["[ms] p50 (p99)", *result["policies"]], ["---"] * (1 + len(found)), *rows]
    load = "load average {before:.1f} before, {after:.1f} after".format(**result["load_average"])
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", load])


def _cell(times: dict[str, float]) -> str:
    return "{} ({})".format(*(f"{ms:.2g}" if ms < 10 else f"{ms:.0f}" for ms in (times["p50"], times["p99"])))


@contextmanager
def serving(options: argparse.Namespace, policy: str) -> Iterator[int]:
    """The port of a server that is ready."""
    command = [sys.executable, "-m", "qwen_vla", "serve", "--policy", policy, "--robot", options.robot]
    command += ["--device", options.device, "--threads", str(options.threads), "--port", "0"]
    command += ["--largest-batch", str(options.largest_batch), "--clients", str(max(options.clients) + 1)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = []
            while "ready\n" not in said:
                said.append(process.stdout.readline())
                if not said[-1]:
                    raise RuntimeError("the server ended before it was ready; its own message is above")
            (address,) = (line for line in said if line.startswith("openpi at "))
            yield int(address.rsplit(":", 1)[1])
        finally:
            process.terminate()


def fields(needs: dict) -> dict:
    """An observation of noise."""
    random = np.random.default_rng(0)
    images = {tag: random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for tag in needs["cameras"]}
    return {"images": images, "state": np.zeros(len(needs["state"]), np.float32), "prompt": PROMPT, "seed": 0}


@contextmanager
def answering(reply: bytes) -> Iterator[ClientConnection]:
    """A connection to another process that answers every frame with as many bytes as this reply."""
    command = [sys.executable, __file__, "--answer", str(len(reply))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            with connect(f"ws://127.0.0.1:{int(process.stdout.readline())}", compression=None) as connection:
                yield connection
        finally:
            process.terminate()


async def answer(size: int) -> None:
    """Answer every frame with `size` bytes, until the process is ended; prints the port."""

    async def handle(connection: ServerConnection) -> None:
        async for _ in connection:
            await connection.send(bytes(size))

    async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()


def beside_direct(
    options: argparse.Namespace, reference: str, connection: ClientConnection, shown: dict, message: bytes
) -> dict:
    """A client alone, in turn with the floor and with the policy in this process."""
    settings = PolicyOptions(device=options.device, threads=options.threads)
    policy = open_policy(reference, load_robot(options.robot), settings)
    warm_up(policy)
    observation = Observation(shown["images"], PROMPT, state=shown["state"] if policy.state_names else None)
    connection.send(message)
    times: dict[str, list[float]] = {"call_ms": [], "overhead_ms": [], "floor_ms": [], "direct_ms": []}
    with answering(connection.recv()) as floor:
        for _ in range(options.requests):
            took, inference = ask(connection, message)
            times["call_ms"].append(took)
            times["overhead_ms"].append(took - inference)
            times["floor_ms"].append(_exchange(floor, message))
            began = time.perf_counter()
            policy.infer(observation, seed=0)
            times["direct_ms"].append(1e3 * (time.perf_counter() - began))
    return {name: spread(values) for name, values in times.items()}


def _exchange(connection: ClientConnection, message: bytes) -> float:
    """How long an answer takes [ms]."""
    began = time.perf_counter()
    connection.send(message)
    connection.recv()
    return 1e3 * (time.perf_counter() - began)


def ask(connection: ClientConnection, message: bytes) -> tuple[float, float]:
    """How long a call takes, and the inference in it [ms]."""
    began = time.perf_counter()
    connection.send(message)
    timing = unpack(connection.recv())["server_timing"]
    return 1e3 * (time.perf_counter() - began), timing["infer_ms"]


def crowd(port: int, clients: int, requests: int, message: bytes) -> dict:
    """Latency of several clients that ask all the time, and how many chunks they get together."""
    times: list[float] = []
    start = threading.Barrier(clients + 1)

    def client() -> None:
        with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
            connection.recv()
            start.wait()
            times.extend([ask(connection, message)[0] for _ in range(requests)])

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if len(times) < clients * requests:
        raise RuntimeError(f"{clients * requests - len(times)} requests were not answered")
    return {"call_ms": spread(times), "chunks_per_s": len(times) / (time.perf_counter() - began)}


def spread(times: list[float]) -> dict[str, float]:
    return {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}


if __name__ == "__main__":
    main()
