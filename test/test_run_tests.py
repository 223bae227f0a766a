# SPDX-License-Identifier: Apache-2.0
"""`make test` runs all parts whatever becomes of the first, and says of each what became of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import json, sys
from scripts import run_tests
run_tests.PARTS = json.loads(sys.argv[1])
sys.exit(run_tests.main(sys.argv[2:]))
"""
GOOD = "def test_good(): pass\n"
BAD = "def test_bad(): assert False\n"
SKIPPED = "import pytest\ndef test_skipped(): pytest.skip('not here')\n"
FLAKY = """
import pytest
tries = []
@pytest.mark.flaky(reruns=1, reason="it is an example")
def test_flaky():
    tries.append(1)
    assert len(tries) == 2
"""
CRASH = "import os, signal\ndef test_crash(): os.kill(os.getpid(), signal.SIGKILL)\n"
BROKEN = "import nothing_of_this_name\n"
WAITS = """
import sys, time
def test_waits(capfd):
    with capfd.disabled():
        print("waiting", file=sys.stderr, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def start(tmp_path):
    """Start the runner with two parts of one file each, in a process group of its own."""

    def start(first: str, second: str, *arguments: str) -> subprocess.Popen:
        parts = {}
        for name, text in (("side by side", first), ("alone", second)):
            file = tmp_path / f"test_{name.replace(' ', '_')}.py"
            file.write_text(text)
            parts[name] = [str(file), f"--rootdir={tmp_path}", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command = [sys.executable, "-c", PROGRAM, json.dumps(parts), *arguments]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **output)

    return start


@pytest.fixture
def run(start):
    def run(*arguments: str) -> tuple[int, str]:
        process = start(*arguments)
        said = process.communicate(timeout=120)[0]
        return process.returncode, said

    return run


def rows(said: str) -> dict[str, list[str]]:
    """The summary: by part, what stands in its line."""
    lines = [line for line in said.splitlines() if re.match(r"(side by side|alone)  ", line)]
    return {name: cells for name, *cells in (re.split(r"\s{2,}", line.strip()) for line in lines)}


def test_a_quiet_run_has_no_reruns_and_ends_well(run):
    status, said = run(GOOD + SKIPPED, GOOD)
    assert status == 0, said
    assert re.search(r"passed +failed +skipped +reruns +time +exit status", said)
    (*counts, time, code) = rows(said)["side by side"]
    assert (counts, code) == (["1", "0", "1", "0"], "0") and re.fullmatch(r"\d+:\d\d", time)
    assert rows(said)["alone"][:4] == ["1", "0", "0", "0"]
    assert said.count("1 passed") == 2  # pytest's own last lines


def test_the_parts_with_nodes_run_without_the_first(run):
    status, said = run(BAD, GOOD, "nodes")
    assert status == 0, said
    assert rows(said)["side by side"][0] == "not run" and rows(said)["alone"][:4] == ["1", "0", "0", "0"]


@pytest.mark.parametrize(
    "first, second, status, cells",
    [
        (BAD, GOOD, 1, [["0", "1", "0", "0"], ["1", "0", "0", "0"]]),
        (GOOD, BAD, 1, [["1", "0", "0", "0"], ["0", "1", "0", "0"]]),
        (BAD, "", 5, [["0", "1", "0", "0"], ["0", "0", "0", "0"]]),  # a part without a test is a mistake
        (BROKEN, GOOD, 2, [["0", "1", "0", "0"], ["1", "0", "0", "0"]]),
        (CRASH, GOOD, 128 + signal.SIGKILL, [["?"] * 4, ["1", "0", "0", "0"]]),
        (FLAKY, GOOD, 0, [["1", "0", "0", "1"], ["1", "0", "0", "0"]]),
    ],
)
def test_both_parts_run_and_the_worse_one_counts(run, first, second, status, cells):
    found, said = run(first, second)
    assert found == status, said
    assert [row[:4] for row in rows(said).values()] == cells
    assert max(int(row[-1]) for row in rows(said).values()) == status
    ended = re.search(r"^side by side: ended in the middle, in or after (.*)$", said, re.MULTILINE)
    assert (ended and ended[1]) == ("test_side_by_side.py::test_crash" if first == CRASH else None)


def test_ctrl_c_ends_both_and_says_how_far_it_came(start):
    process = start(GOOD + WAITS, GOOD)
    while "waiting" not in (line := process.stdout.readline()):
        assert line, "it ended"
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2, said
    assert rows(said)["side by side"][:4] == ["1", "0", "0", "0"]
    assert rows(said)["alone"] == ["not run"]


def test_ended_by_a_signal_it_leaves_no_tests_running(start):
    process = start(WAITS, GOOD)
    while "waiting" not in (line := process.stdout.readline()):
        assert line, "it ended"
    process.terminate()
    process.communicate(timeout=60)  # until nobody has the pipe any more
    assert process.returncode == 128 + signal.SIGTERM


def test_with_arguments_pytest_runs_once_with_those(run):
    status, said = run(BAD, GOOD, "test/test_run_tests.py", "-k", "no_test_is_called_so")
    assert status == 5 and rows(said) == {}


@pytest.mark.parametrize("marker, status", [("flaky(reruns=1)", 4), ("flaky(reruns=1, reason='an example')", 0)])
def test_a_rerun_needs_a_reason(tmp_path, marker, status):
    file = tmp_path / "test_flaky.py"
    file.write_text(f"import pytest\ntries = []\n@pytest.mark.{marker}\n" + FLAKY.split('example")\n')[1])
    command = [sys.executable, "-m", "pytest", str(file), "-p", "conftest", f"--rootdir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("test_flaky may be rerun: say why" in done.stderr) == (status == 4)
    assert ("test_flaky.py::test_flaky: an example" in done.stdout) == (status == 0)
