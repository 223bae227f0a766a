# SPDX-License-Identifier: Apache-2.0
"""A plan says what a run will need, from its geometry alone; compared with a run, and with sums by hand."""

import pytest
import torch
from qwen_checkpoint import write_checkpoint
from qwen_recipe import EIGHT_BITS, recipe_for

from embodiment_descriptions import resource_path
from qwen_vla.cli import Train
from qwen_vla.training.low_memory.low_bits import is_quantized
from qwen_vla.training.planning.plan import plan
from qwen_vla.training.recipe_files import load_recipe
from qwen_vla.training.run import prepare
from qwen_vla.training.trainer import training_step


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    write_checkpoint(folder)
    return folder


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a plan must download nothing")

    monkeypatch.setattr("qwen_vla.model.pretrained.snapshot_download", refuse)


def held(tensors) -> int:
    """Bytes of tensors, nested or not."""
    if isinstance(tensors, dict):
        return held(list(tensors.values()))
    if isinstance(tensors, list):
        return sum(map(held, tensors))
    return tensors.numel() * tensors.element_size() if isinstance(tensors, torch.Tensor) else 0


@pytest.mark.parametrize("few_bits", [False, True], ids=["AdamW", "8 and 4 bits"])
def test_what_is_counted_is_what_a_run_holds(recordings, qwen, tmp_path, offline, few_bits):
    lora = {"rank": 8, "quantize": "nf4" if few_bits else "none"}
    changes = {"optimizer": EIGHT_BITS} if few_bits else {}
    recipe = recipe_for(tmp_path / "run", recordings, qwen, lora=lora, freeze=["vision"], **changes)
    run = prepare(recipe)
    training_step(run, run.batches[0])
    counted = list(plan(recipe).parts.values())
    states = [_without_tables(of) for of in run.optimizer.state_dict()["state"].values()]
    weights = held([p.data for p in run.model.parameters()])
    if few_bits:
        weights += sum(held(vars(m.weight.quant_state)) for m in run.model.modules() if is_quantized(m))
    assert sum(part.parameters for part in counted) == pytest.approx(_parameters(run.model), rel=0.01)
    assert sum(part.weights for part in counted) == pytest.approx(weights, rel=0.02)
    assert sum(part.gradients for part in counted) == pytest.approx(held(run.trained), rel=0.01)
    assert sum(part.averages for part in counted) == pytest.approx(held(run.average), rel=0.01)
    assert sum(part.states for part in counted) == pytest.approx(held(states), rel=0.03)


def _without_tables(moments) -> dict:
    """A parameter's states; the tables of all 8-bit numbers are one in memory, and repeated only when saved."""
    moments = moments.get("__bnb_optimizer_quant_state__", moments)
    return {name: value for name, value in moments.items() if not name.startswith("qmap")}


def _parameters(model) -> int:
    return sum((2 if p.dtype == torch.uint8 else 1) * p.numel() for p in model.parameters())


def test_a_small_model_is_measured(recordings, qwen, tmp_path, offline):
    found = plan(recipe_for(tmp_path / "run", recordings, qwen, lora={"rank": 4}, steps=100))
    assert found.measured and 0.1 < found.rate < 1e4
    assert found.hours == pytest.approx(100 * 4 / found.rate / 3600)
    assert "measured on" in found.text() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "gigabytes"), [("finetune_4b_24gb", 24), ("finetune_4b_one_gpu", 80)])
def test_the_recipes_for_one_gpu_fit_it(name, gigabytes, offline):
    """By hand: the published sizes of tower and expert, adapters of rank r on 248 linears, and 8-bit states."""
    recipe = load_recipe(resource_path(f"config/training/{name}.yaml"))
    found = plan(recipe)
    attention = 8 * ((2560 + 2 * 4096) + 2 * (2560 + 1024) + (4096 + 2560))
    linear = 24 * ((2560 + 8192) + (2560 + 4096) + 2 * (2560 + 32) + (4096 + 2560))
    forward = 32 * 3 * (2560 + 9216)
    assert found.parts["adapters"].parameters == recipe.lora.rank * (attention + linear + forward)
    assert found.parts["expert"].parameters == pytest.approx(1.149e9, rel=0.001)
    assert found.parts["expert"].states == pytest.approx(1.149e9 * 2.03, rel=0.01)
    assert found.memory < 0.9 * gigabytes * 1e9


def test_the_command_prints_a_plan_and_says_what_is_counted(offline, capsys):
    assert Train(resource_path("config/training/finetune_4b_24gb.yaml"), plan=True).run() == 0
    printed = capsys.readouterr().out
    for told in ("preset 4b, for Qwen/Qwen3.5-4B, which is not here", "adapters", "samples/s", "(counted", " hours"):
        assert told in printed
