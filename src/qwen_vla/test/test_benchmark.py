# SPDX-License-Identifier: Apache-2.0
"""The benchmark's figures are complete and consistent; nothing is asserted about speed."""

import io

import pytest
import torch
from rich.console import Console

from qwen_vla.benchmark import (
    _parts,
    backbone_in_every_step,
    counted_work,
    parameter_table,
    run_benchmark,
    synthetic_observation,
    untrained_policy,
)
from qwen_vla.benchmark_options import BenchmarkOptions
from qwen_vla.benchmark_tables import print_tables


@pytest.fixture(scope="module")
def result():
    return run_benchmark(BenchmarkOptions("tiny", threads=1, repeats=3))


@pytest.fixture(scope="module")
def policy():
    return untrained_policy("tiny", "cpu")


@pytest.fixture(scope="module")
def four_billion():
    return run_benchmark(BenchmarkOptions("4b"))


def shown(result) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_tables(result, console)
    return console.file.getvalue()


def test_figures_are_complete(result):
    for steps in ("4", "10"):
        row = result["steps"][steps]
        assert 0 < row["floor_ms"] < row["p50_ms"] <= row["p99_ms"]
        assert 0 < row["backbone_ms"] and 0 < row["expert_ms"] and 0 < row["preprocess_ms"]
        assert row["p50_ms"] < row["naive_ms"] and row["naive_share"] == pytest.approx(row["p50_ms"] / row["naive_ms"])
    assert result["warm_up_s"] > 0 and result["acceleration"]["backbone"] == [], "a CPU computes the plain way"
    assert result["peak_rss_mb"] > 50 and result["gemm_gflops"] > 0 and result["dtype"] == "float32"


def test_every_stage_has_its_floor_and_the_rest_is_named(result):
    row = result["steps"]["4"]
    stages = {stage["name"]: stage for stage in row["stages"]}
    assert list(stages) == ["preprocess", "backbone", "4 Euler steps", "postprocess", "between the stages"]
    parts = [part for stage in row["stages"] for part in stage.get("parts", [])]
    assert [part["name"] for part in parts] == ["vision tower", "language tower", "context", "4 Euler steps"]
    for part in parts:
        bounds = (part["operations"] / result["gemm_gflops"] / 1e6, part["bytes"] / result["bandwidth_gb_s"] / 1e6)
        assert part["floor_ms"] == pytest.approx(max(bounds))
        assert part["bound"] == ("arithmetic" if bounds[0] > bounds[1] else "memory")
    for stage in (stages["backbone"], stages["4 Euler steps"]):
        assert stage["floor_ms"] == pytest.approx(sum(part["floor_ms"] for part in stage["parts"]))
        assert stage["ratio"] == pytest.approx(stage["ms"] / stage["floor_ms"])
    assert sum(s["ms"] for s in row["stages"]) == pytest.approx(row["p50_ms"])
    assert sum(s.get("floor_ms", 0) for s in row["stages"]) == pytest.approx(row["floor_ms"])


def test_operations_grow_with_the_steps_by_the_expert_alone(result):
    """Six more steps cost six more expert passes; the backbone's share stays."""
    four, ten = (result["steps"][s]["operations"] for s in ("4", "10"))
    per_step = (ten - four) / 6
    assert 1e6 < per_step < four - 4 * per_step


def test_bytes_are_those_of_the_weights_that_a_chunk_reads(policy):
    stages = {part.name: part.bytes() for part in _parts(policy, synthetic_observation(policy), 4)}
    model, expert = policy.model, policy.model.action_expert
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    embeddings = count(model.get_input_embeddings())
    assert stages["language tower"] == 4 * (count(model.vlm.model.language_model) - embeddings)
    tables = sum(count(b.modulation) for b in expert.blocks) + count(expert.out_modulation)
    once = count(expert) - count(expert.context_projection) - count(expert.timestep_embedding) - tables
    assert stages["4 Euler steps"] == 4 * 4 * once


@pytest.mark.parametrize("plain", [True, False])
def test_the_naive_way_computes_the_same_chunk(policy, plain):
    observation = synthetic_observation(policy)
    naive = backbone_in_every_step(policy, observation, plain, seed=3)
    with torch.inference_mode():
        context = policy.runner.context(policy._batch([observation], None), policy.action_mask)
        ours = policy.runner.sample_actions(context, policy.action_mask, 4, torch.Generator().manual_seed(3))
    torch.testing.assert_close(naive, ours, atol=1e-5, rtol=1e-4)
    assert ours.abs().max() > 0.1


def test_tables_for_readers(result):
    text = shown(result)
    assert "language tower" in text and "compiled" not in text
    decided = {"choice": "compiled blocks in a CUDA graph", "error": 7e-3, "plain_error": 8e-3, "seconds": 4.0}
    table = shown({**result, "preset": "4b", "acceleration": {"backbone": [decided, decided]}})
    assert "compiled blocks in a CUDA graph" in table and "8.0e-03" in table and "GR00T" in table
    assert "vision tower" in text and "naive" in text and f"{result['steps']['10']['p50_ms']:.1f}" in text


def test_a_checkpoint_can_be_measured_and_threads_are_restored(checkpoint):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        result = run_benchmark(BenchmarkOptions(checkpoint=checkpoint, threads=1, repeats=1))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert result["checkpoint"] == str(checkpoint) and result["steps"]["4"]["p50_ms"] > 0


def work(policy, steps=1):
    return {row["name"]: row for row in counted_work(policy, synthetic_observation(policy), steps)}


def test_number_of_images():
    none, one, two = (work(untrained_policy("tiny", "cpu", count)) for count in (0, 1, 2))
    assert "vision tower" not in none
    assert two["vision tower"]["operations"] == 2 * one["vision tower"]["operations"]
    assert 0 < none["language tower"]["operations"] < one["language tower"]["operations"]


def test_operations_do_not_depend_on_how_attention_is_computed(monkeypatch):
    """On a GPU PyTorch's counter refuses attention whose queries share keys; it is never shown one."""
    policy = untrained_policy("tiny", "cpu")
    counted = work(policy)
    text = policy.model.config.vlm_config.text_config
    assert text.num_attention_heads > text.num_key_value_heads
    length = len(policy._batch([synthetic_observation(policy)], None)["input_ids"][0])
    layers = policy.model.vlm.model.language_model.layers
    weights = sum(p.numel() for p in layers.parameters() if p.dim() == 2)
    attention = 4 * text.num_attention_heads * text.head_dim * length**2 * len(layers)
    assert counted["language tower"]["operations"] == pytest.approx(2 * weights * length + attention, rel=0.1)


def test_quantized_weights_are_half_the_bytes():
    whole, rounded = (work(untrained_policy("tiny", "cpu", quantize=choice)) for choice in ("none", "fp8"))
    assert rounded["language tower"]["operations"] == whole["language tower"]["operations"]
    assert rounded["language tower"]["bytes"] < 0.3 * whole["language tower"]["bytes"], "8 bits of 32"
    assert rounded["vision tower"]["bytes"] == whole["vision tower"]["bytes"]


def test_four_billion_on_a_cpu_gives_the_tables_instead(four_billion):
    result = four_billion
    assert "cuda" in result["not_measured"] and "steps" not in result
    assert result["parameters"]["expert block"] == pytest.approx(70.8, abs=0.05)
    assert result["parameters"]["expert"] == pytest.approx(1149, abs=1)
    assert "language tower" in shown(result) and "1,148.79" in shown(result)


def test_analytic_operations_are_plausible(four_billion):
    """Two operations per weight and token, and the attentions on top; ten steps read the expert's blocks ten times."""
    floor = four_billion["analytic"]
    assert (floor["images"], floor["image_size"], floor["steps"]) == (3, 224, 10)
    stages = {s["name"]: s for s in floor["stages"]}
    language = stages["language tower"]
    tokens = 3 * 7 * 7 + 60  # about: 49 tokens per image, and the prompt
    assert language["operations"] / (language["bytes"] / 2 * 2 * tokens) == pytest.approx(1.1, abs=0.25)
    per_block = 4 * 1536**2 + 3 * 1536 * 10240
    mlps = 2 * (64 * 1536 + 1536**2) + 3 * 1536 + 64
    assert stages["10 Euler steps"]["bytes"] == 10 * 2 * (16 * per_block + mlps)
    assert floor["floor_ms"] == pytest.approx(sum(s["floor_ms"] for s in floor["stages"]))


def test_table_of_tiny():
    table = parameter_table("tiny")
    assert (
        table["total"] == pytest.approx(table["vision"] + table["language"] + table["expert"], abs=0.05)
        and table["total"] < 8
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"repeats": 0}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"images": 9}, "0 to 4"),
        ({"images": 1, "checkpoint": "x"}, "its own cameras"),
        ({"robot": "widowx"}, "with --checkpoint"),
    ],
)
def test_impossible_requests_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        run_benchmark(BenchmarkOptions(**wrong))
