"""The benchmark's figures are complete and consistent; nothing is asserted about speed."""

import pytest
import torch

from qwen_vla.benchmark import parameter_table, run_benchmark


@pytest.fixture(scope="module")
def result():
    return run_benchmark("tiny", threads=1, repeats=3)


def test_figures_are_complete(result):
    for steps in ("4", "10"):
        row = result["steps"][steps]
        assert 0 < row["floor_ms"] < row["p50_ms"] <= row["p99_ms"]
        assert 0 < row["backbone_ms"] and 0 < row["expert_ms"] and 0 < row["preprocess_ms"]
    assert result["peak_rss_mb"] > 50 and result["gemm_gflops"] > 0 and result["dtype"] == "float32"


def test_operations_grow_with_the_steps_by_the_expert_alone(result):
    """Six more steps cost six more expert passes; the backbone's share stays."""
    four, ten = (result["steps"][s]["operations"] for s in ("4", "10"))
    per_step = (ten - four) / 6
    assert 1e6 < per_step < four - 4 * per_step


def test_threads_are_restored():
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        run_benchmark("tiny", threads=1, repeats=1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_can_be_measured(checkpoint):
    result = run_benchmark(checkpoint=checkpoint, threads=1, repeats=1)
    assert result["checkpoint"] == str(checkpoint) and result["steps"]["4"]["p50_ms"] > 0


def test_four_billion_on_a_cpu_gives_the_table_instead():
    result = run_benchmark("4b")
    assert "cuda" in result["not_measured"] and "steps" not in result
    assert result["parameters"]["expert block"] == pytest.approx(70.8, abs=0.05)
    assert result["parameters"]["expert"] == pytest.approx(1149, abs=1)


def test_table_of_tiny():
    table = parameter_table("tiny")
    assert (
        table["total"] == pytest.approx(table["vision"] + table["language"] + table["expert"], abs=0.05)
        and table["total"] < 8
    )


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"threads": 0}])
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        run_benchmark("tiny", **wrong)
