# SPDX-License-Identifier: Apache-2.0
"""A robot is driven by a policy behind `qwen-vla serve` as by the same policy in its own process."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
EPISODE = ("widowx", "--episodes", "1", "--seed", "9000", "--workers", "1")


@pytest.fixture(scope="module")
def address():
    command = [BIN / "qwen-vla", "serve", "--robot", "widowx", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        said = []
        while "ready\n" not in said:
            said.append(server.stdout.readline())
            assert said[-1], "the server ended"
        yield re.search(r"openpi at ws://(\S+)", "".join(said))[1]
        server.terminate()


def play(folder: Path, policy: str, *more: str) -> dict:
    """The result of one episode."""
    out = folder / "result.json"
    command = [BIN / "qwen-vla", "evaluate", *EPISODE, "--policy", policy, "--json", out, "--overwrite", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    return row


def test_an_episode_goes_as_with_the_policy_itself(address, tmp_path):
    remote, local = play(tmp_path, f"openpi://{address}"), play(tmp_path, "tiny")
    same = ("success", "ended", "chunks", "refused", "refusals")
    assert {name: remote[name] for name in same} == {name: local[name] for name in same}


@pytest.mark.slow
def test_policy_node_asks_the_server_and_the_gate_decides(address, tmp_path):
    row = play(tmp_path, f"openpi://{address}", "--over-ros")
    assert row["chunks"] >= 3 and row["refused"] < row["chunks"], row
