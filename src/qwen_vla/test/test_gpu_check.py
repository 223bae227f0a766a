# SPDX-License-Identifier: Apache-2.0
"""benchmarks/gpu_check.py measures what it claims; here its mechanisms, on a CPU and without a required speed."""

import importlib.util
import io
from pathlib import Path

import pytest
from rich.console import Console


@pytest.fixture(scope="module")
def gpu_check():
    path = Path(__file__).parents[3] / "benchmarks" / "gpu_check.py"
    spec = importlib.util.spec_from_file_location("gpu_check", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.INSTRUCTIONS, module.REPEATS, module.STEPS = 12, 2, (2, 3)
    return module


def test_tiny_on_a_cpu_is_exact_padded_or_not_and_its_rounded_weights_are_near(gpu_check):
    result = gpu_check.check("tiny", "cpu", "auto", with_fp8=True)
    plain, rounded = result["tiny"], result["tiny, fp8 weights"]
    assert plain["error, 2 steps"] == plain["error plain, 2 steps"] == 0.0
    assert plain["error unpadded"] < 1e-5 and plain["error padded, worst length"] < 1e-5
    assert 1e-5 < rounded["error, 3 steps"] < 0.1
    assert plain["instructions"] == 12 and plain["slowest / median"] >= 1.0
    assert plain["no standstill"] == (plain["slowest / median"] <= 1.5)
    assert plain["slowest / median, processor time"] >= 1.0
    assert 0 < plain["floor, 2 steps [ms]"] < plain["chunk, 2 steps [ms]"]


@pytest.mark.parametrize(
    ("judged", "expected"), [(True, ["≤ 22 MISSED", "≤ 32 met", "≤ 1 met"]), (False, ["", "", ""])]
)
def test_goals_are_judged_on_a_gpu_alone(gpu_check, monkeypatch, judged, expected):
    console = Console(file=io.StringIO(), width=140)
    monkeypatch.setattr(gpu_check, "Console", lambda **_: console)
    figures = {"chunk, 4 steps [ms]": 30.0, "chunk, 10 steps [ms]": 30.0, "preprocessing [ms]": 0.4}
    gpu_check.print_result({"environment": {"device": "of a test"}, "4b": figures}, judged)
    lines = console.file.getvalue().splitlines()
    verdicts = [line.split("│")[3].strip() for line in lines if "[ms]" in line]
    assert verdicts == expected
