# SPDX-License-Identifier: Apache-2.0
"""`make results`: it runs the commands of docs/results.md, does nothing twice, and prints the rows that stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embodiment_descriptions import resource_path
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.seeds import split_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/results.md"
RESULTS = (ROOT / PAGE).read_text()
SUITES = ("widowx", "aloha", "mobile_base")
COMMAND = ".venv/bin/qwen-vla evaluate widowx --episodes 4 --seed 9000 --json {}"


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import measure_results

        yield measure_results


def summary(suite, successes=3, episodes=4, seed=9000, over_ros=False):
    metrics = {"sr": 0.75, "osr": 1.0, "spl": 0.5, "ne": 0.4, "ndtw": 0.6} if suite == "mobile_base" else {}
    rows = []
    for i in range(episodes):
        ends = "success" if i < successes else "step limit", 50.0, f"task_{i % 2}", "", metrics
        rows.append(EpisodeRow(seed + i, "lift", "red", i < successes, 3, 0, 4.8, 0.02, *ends))
    conditions = {"checkpoint": "tiny", "shift": None, "prompt_of": None, "euler_steps": 4, "over_ros": over_ros}
    return summarize(suite, seed, rows, **conditions, shuffle_instructions=False, blind=False)


def test_the_page_measures_every_suite_in_process_and_over_ros_on_test_seeds(script):
    options = [measurement.options for measurement in script.measurements(RESULTS)]
    assert [(o.suite, o.over_ros, o.episodes) for o in options] == [
        *((suite, False, 100) for suite in SUITES),
        *((suite, True, 20) for suite in SUITES),
    ]
    assert {split_of(range(o.seed, o.seed + o.episodes)) for o in options} == {"test"}
    assert len({o.json for o in options}) == len(options)


def test_its_rows_are_those_of_the_page(script):
    found = [summary(suite, over_ros=over_ros) for over_ros in (False, True) for suite in SUITES]
    table = [row for row in script.rows(found) if row.startswith("|")]
    assert len(table) == 4
    for row in table:
        title, columns = row.split(" | ")[0], row.count(" | ")
        (there,) = [line for line in RESULTS.splitlines() if line.startswith(f"{title} | test")]
        assert there.count(" | ") == columns


def test_a_row_has_the_rate_its_interval_and_its_seeds(script):
    calm = [summary(suite, successes=5, episodes=8) for suite in SUITES]
    rows = list(script.rows([*calm, *(summary(suite, 3, over_ros=True) for suite in SUITES)]))
    rate = "5 of 8 (31–86 %)"
    assert rows[0] == f"| **as trained** | validation, 9000–9007 | **{rate}** | **{rate}** | **{rate}** |"
    assert rows[1].startswith("| by task | validation, 9000–9007 | task 0 3/4, task 1 2/4 | ")
    assert "| validation, 9000–9003 | 3 of 4 (30–95 %) |" in rows[2]
    assert rows[3].startswith("| the same scenes in process | validation, 9000–9003 | 4 of 4 (51–100 %) |"), "of eight"
    assert "SR 0.75, OSR 1.00, SPL 0.50, NE 0.40 m, nDTW 0.60" in rows[4] and "SPL 0.50" in rows[5]


def test_a_result_counts_while_it_is_of_these_options_and_weights(script, tmp_path):
    result = tmp_path / "e.json"
    measurement = script.Measurement.of(COMMAND.format(result))
    assert not measurement.is_done()
    result.write_text(json.dumps(summary("widowx")))
    assert measurement.is_done()
    for other in ("--seed 9001", "--euler-steps 10", "--quantize fp8", "--over-ros", "--episodes 5"):
        assert not script.Measurement.of(f"{COMMAND.format(result)} {other}").is_done()
    weights = resource_path("checkpoints/tiny/model.safetensors").stat().st_mtime
    os.utime(result, (weights - 1, weights - 1))
    assert not measurement.is_done(), "the model has been trained since"


# As it is -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """The script and the page's commands, on one validation scene each, in a folder of their own."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/measure_results.py", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    text = re.sub(r"--episodes \d+ --seed 22000", "--episodes 1 --seed 9000", RESULTS)
    (tmp_path / "docs").mkdir()
    (tmp_path / PAGE).write_text(text)
    return tmp_path


def run(checkout):
    command = [sys.executable, checkout / "scripts/measure_results.py"]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_command_that_fails_ends_it(checkout):
    text = (checkout / PAGE).read_text()
    (checkout / PAGE).write_text(text.replace("--episodes 1 --seed 9000", "--episodes 0 --seed 9000"))
    done = run(checkout)
    assert done.returncode == 1 and "episodes must be at least 1, got 0" in done.stderr
    assert "results: incomplete" in done.stderr and done.stdout.count("results: ") == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_way_and_again(checkout):
    first = run(checkout)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("results: .venv/bin/qwen-vla evaluate") == 6
    assert "| **as trained** | validation, 9000–9000 | **" in first.stdout and "| widowx | over ros | " in first.stdout
    results = sorted((checkout / "out/results").iterdir())
    assert len(results) == 6 and all(json.loads(file.read_text())["split"] == "validation" for file in results)
    (checkout / "out/results/aloha.json").unlink()
    again = run(checkout)
    assert again.stdout.count("results: ") == 1 and "evaluate aloha --episodes" in again.stdout
    assert again.stdout.split(f"{PAGE}:\n")[1] == first.stdout.split(f"{PAGE}:\n")[1]
