# SPDX-License-Identifier: Apache-2.0
"""benchmarks/serving.py measures what it claims; here without a model and without a required speed."""

import argparse
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[4] / "benchmarks/serving.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("serving_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_number_of_clients_is_measured(benchmark) -> None:
    options = argparse.Namespace(
        policy=["mock://hold"], robot="aloha", device="cpu", threads=1, largest_batch=0, clients=[1, 3], requests=4
    )
    whole = benchmark.measure(options)
    result = whole["policies"]["mock://hold"]
    alone = result["one_client"]
    assert 0 < alone["overhead_ms"]["p50"] < alone["call_ms"]["p50"] + 1e-9
    assert alone["floor_ms"]["p50"] > 0 and alone["direct_ms"]["p50"] > 0
    assert set(result["clients"]) == {"1", "3"}
    assert all(row["chunks_per_s"] > 0 and row["call_ms"]["p99"] > 0 for row in result["clients"].values())
    assert result["images"] == [4, 224, 224]
    table = benchmark.table(whole).splitlines()
    assert table[0] == "| [ms] p50 (p99) | mock://hold |"
    assert [row.split(" | ")[0].strip("| ") for row in table[2:]][:5] == [
        "overhead, one client", "floor", "the policy itself, in turn", "1 client", "3 clients",
    ]  # fmt: skip
    assert f"| {alone['floor_ms']['p50']:.2g} (" in table[3]


def test_a_server_that_does_not_start_is_said(benchmark) -> None:
    options = argparse.Namespace(
        policy=["mock://nothing.npy"], robot="aloha", device="cpu", threads=1, largest_batch=0, clients=[1], requests=1
    )
    with pytest.raises(RuntimeError, match="the server ended before it was ready"):
        benchmark.measure(options)
