# SPDX-License-Identifier: Apache-2.0
"""Test scenes are for the figures of docs/results.md alone: no script that compares, no other page and no recipe looks
at them.
"""

import json
import re
import sys
from pathlib import Path

import pytest

from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.seeds import FIRST_TEST_SEED, split_of

ROOT = Path(__file__).resolve().parents[1]
SEED = re.compile(r"--seeds?[ =]+((?:\d+ ?)+)")
FOLDERS = ("config", "docs", "scripts", "src", "launch", "docker")


@pytest.fixture
def scripts(monkeypatch):
    """The folder from which scripts import one another."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield
    for name in ("experiments", "learning_curves"):
        sys.modules.pop(name, None)


def texts() -> dict[Path, str]:
    files = [ROOT / "README.md", ROOT / "Makefile"]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "test" not in path.parts]
    kinds = {".md", ".yaml", ".yml", ".sh", ".py", ""}
    return {path: path.read_text() for path in files if path.is_file() and path.suffix in kinds}


def test_only_the_results_are_of_test_seeds():
    found = [
        (path.relative_to(ROOT), line.strip())
        for path, text in texts().items()
        for line in text.splitlines()
        for numbers in SEED.findall(line)
        for seed in map(int, numbers.split())
        if split_of(range(seed, seed + 1)) == "test"
    ]
    assert {str(path) for path, _ in found} == {"docs/results.md"}
    assert all("--json out/results/" in line for _, line in found) and len(found) == 6


def test_trainings_are_not_compared_by_test_seeds(scripts, tmp_path):
    from experiments import evaluate

    for first in (FIRST_TEST_SEED, FIRST_TEST_SEED - 1):
        with pytest.raises(ValueError, match="validation"):
            evaluate("widowx", tmp_path, tmp_path / "result.json", 40, first)
    assert not list(tmp_path.iterdir())


def test_models_on_the_way_are_not_compared_by_test_seeds(scripts, tmp_path):
    from learning_curves import SUITES, successes

    row = EpisodeRow(0, "lift", "red", True, 3, 0, 5.0, 0.1, "success", 40.0, "pick")
    conditions = {"checkpoint": "run/model", "step": 4, "shift": None, "prompt_of": None}
    conditions |= dict.fromkeys(("blind", "shuffle_instructions", "over_ros"), False)
    files = [tmp_path / f"{first}.json" for first in (9000, FIRST_TEST_SEED)]
    for file, seed, rows in zip(files, (9000, FIRST_TEST_SEED), ([row], [row, row]), strict=True):
        file.write_text(json.dumps(summarize("widowx", seed, rows, **conditions)))
    found = successes(tuple(files), {Path("run"): 0})
    assert found["widowx"]["pick"][4]["episodes"] == 1 and set(found) == set(SUITES)
