# SPDX-License-Identifier: Apache-2.0
"""Which parameters are stepped how, and that an optimizer made of two is one to the outside."""

from types import SimpleNamespace

import pytest
import torch
from micro import build, micro_config
from pydantic import ValidationError

from qwen_vla.training import optimizer as module
from qwen_vla.training.grounding import GroundingHead
from qwen_vla.training.learner import Learner
from qwen_vla.training.optimizer import BETAS, MUON, MuonAndAdamW, hidden_matrices, learning_rate, optimizer_of
from qwen_vla.training.recipe import Optimizer, Recipe

OPTIONS = {"backbone_lr": 1e-3, "expert_lr": 2e-3, "weight_decay": 0.1, "warmup_steps": 4}

OTHERS = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0, "weight_decay": 0.0, "muon": False}]


def learner():
    torch.manual_seed(0)
    model, _ = build(micro_config(("linear_attention", "full_attention")))
    return Learner(model, GroundingHead(64), ("action", "language", "grounding"), 1, True)


def optimizer(name, of, **changes):
    return optimizer_of(SimpleNamespace(optimizer=Optimizer(name=name, **OPTIONS, **changes), lora=None), of)


def names(of, parameters):
    chosen = {id(p) for p in parameters}
    return {name for name, p in of.named_parameters() if id(p) in chosen}


def test_muon_is_for_matrices_between_hidden_states():
    of = learner()
    found = names(of, hidden_matrices(of.model))
    assert {name.split(".")[1] for name in found} == {"vlm", "action_expert"}
    assert any("visual.blocks" in name for name in found) and any("language_model.layers" in name for name in found)
    assert "model.action_expert.blocks.0.qkv.weight" in found and "model.action_expert.blocks.1.down.weight" in found
    assert not [
        n for n in found if any(part in n for part in ("modulation", "embed", "head", "norm", "conv1d", "_in."))
    ]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_with_its_own_rate_and_decay(name):
    of = learner()
    groups = optimizer(name, of).param_groups
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed)) and set(listed) == {id(p) for p in of.parameters()}
    backbone = {id(p) for p in of.model.vlm.parameters()}
    for group in groups:
        for p in group["params"]:
            assert group["lr"] == (1e-3 if id(p) in backbone else 2e-3)
            assert group["weight_decay"] == (0.1 if p.ndim > 1 else 0.0)
            assert not group["muon"] or (name == "muon" and p.ndim == 2)


def steps(of, chosen, numbers):
    """Take steps with gradients that depend on the number of the step and the weights."""
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for p in of.parameters():
            p.grad = torch.randn(p.shape, generator=generator) + p.detach()
        chosen.step()


@pytest.fixture
def bf16(monkeypatch):
    """As on a CPU with instructions for bf16."""
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)


@pytest.mark.usefixtures("bf16")
def test_each_part_steps_as_torch_does():
    of, other = learner(), learner()
    steps(of, optimizer("muon", of, muon_fused=True), range(3))
    matrices = {id(p) for p in hidden_matrices(other.model)}
    backbone = {id(p) for p in other.model.vlm.parameters()}
    parts = []
    for p in other.parameters():
        rate, decay = (1e-3 if id(p) in backbone else 2e-3), 0.1 * (p.ndim > 1)
        if id(p) in matrices:
            parts.append(torch.optim.Muon([p], lr=rate, weight_decay=decay, **MUON))
        else:
            parts.append(torch.optim.AdamW([p], lr=rate, weight_decay=decay, betas=BETAS, fused=True))
    steps(other, SimpleNamespace(step=lambda: [part.step() for part in parts]), range(3))
    for (name, ours), theirs in zip(of.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.usefixtures("bf16")
def test_queries_keys_and_values_are_separate_matrices_for_muon():
    of = learner()
    chosen = optimizer("muon", of)
    expert, vlm = of.model.action_expert.blocks[0], of.model.vlm.model
    linear = next(layer for layer in vlm.language_model.layers if layer.block_type == "linear_attention").linear_attn
    fused = {
        "expert qkv": (expert.qkv.weight, [64, 64, 64], 2e-3),
        "expert gate and up": (expert.gate_up.weight, [len(expert.gate_up.weight) // 2] * 2, 2e-3),
        "vision qkv": (vlm.visual.blocks[0].attn.qkv.weight, [64, 64, 64], 1e-3),
        "linear attention": (linear.in_proj_qkv.weight, [linear.key_dim, linear.key_dim, linear.value_dim], 1e-3),
    }
    alone = {name: [p.detach().clone() for p in weight.split(rows)] for name, (weight, rows, _) in fused.items()}
    options = {"weight_decay": OPTIONS["weight_decay"], **MUON}
    others = {name: torch.optim.Muon(alone[name], lr=rate, **options) for name, (_, _, rate) in fused.items()}
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        for p in of.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        for name, (weight, rows, _) in fused.items():
            for part, gradient in zip(alone[name], weight.grad.split(rows), strict=True):
                part.grad = gradient.clone()
            others[name].step()
        chosen.step()
    for name, (weight, rows, _) in fused.items():
        for part, now in zip(alone[name], weight.split(rows), strict=True):
            torch.testing.assert_close(now, part, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("has_bf16", [True, False])
def test_muon_computes_in_float32_where_bf16_would_be_imitated(monkeypatch, has_bf16):
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: has_bf16)
    weight = torch.nn.Parameter(torch.zeros(48, 32))
    weight.grad = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    MuonAndAdamW([{"params": [weight], "lr": 1.0, "weight_decay": 0.0, "muon": True}, *OTHERS]).step()

    a, b, c = MUON["ns_coefficients"]
    whole = weight.grad.double().T
    whole /= whole.norm()
    for _ in range(MUON["ns_steps"]):
        gram = whole @ whole.T
        whole = a * whole + (b * gram + c * gram @ gram) @ whole
    wanted = -0.2 * 48**0.5 * whole.T
    error = (weight - wanted).abs().max() / wanted.abs().max()
    assert (error < 1e-4) == (not has_bf16)


def test_it_goes_on_from_a_saved_state(tmp_path):
    of, again = learner(), learner()
    first = optimizer("muon", of)
    steps(of, first, range(2))
    torch.save({"weights": of.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")
    steps(of, first, range(2, 4))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = optimizer("muon", again)
    again.load_state_dict(state["weights"])
    second.load_state_dict(state["optimizer"])
    steps(again, second, range(2, 4))
    assert isinstance(second, MuonAndAdamW)
    assert all(torch.equal(a, b) for a, b in zip(of.parameters(), again.parameters(), strict=True))


def test_a_schedule_moves_both_parts():
    of = learner()
    chosen = optimizer("muon", of)
    recipe = SimpleNamespace(optimizer=Optimizer(**OPTIONS), steps=10)
    torch.optim.lr_scheduler.LambdaLR(chosen, lambda step: learning_rate(recipe, step))
    before = [p.detach().clone() for p in of.parameters()]
    for group in chosen.param_groups:
        assert group["lr"] == pytest.approx(group["initial_lr"] / 4)
        group["lr"] = 0.0
    steps(of, chosen, range(1))
    assert all(torch.equal(a, b) for a, b in zip(before, of.parameters(), strict=True))


def test_muon_is_refused_for_shards():
    fields = {"stage": "sft", "name": "x", "output": "x", "steps": 1, "shard": True}
    data = [{"kind": "robot", "path": "x"}]
    with pytest.raises(ValidationError, match="muon needs whole matrices"):
        Recipe(**fields, data=data, optimizer={"name": "muon", **OPTIONS})
