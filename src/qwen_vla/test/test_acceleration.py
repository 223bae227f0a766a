"""Acceleration changes no result, uses faster variants only when verified, and never looks at values on the device."""

import logging

import pytest
import torch

from qwen_vla import QwenVLAConfig
from qwen_vla.acceleration import ChunkRunner, EulerLoop, ModulationTables, ReplayedCall, VerifiedCall, relative_error
from qwen_vla.action_expert import ActionExpert, ExpertContext

from .comparison import assert_alike, differ
from .conftest import TEMPLATE, build, micro_config, pictures

PROMPT = TEMPLATE.replace("{instruction}", "pick up the red cube")
MASK = torch.ones(1, 4, 10, dtype=torch.bool)


@pytest.fixture(scope="module")
def own():
    """A model that tests here may change."""
    return build(micro_config(("linear_attention", "full_attention")))


def chunk(runner, processor, steps=4, seed=0, prompt=PROMPT):
    with torch.no_grad():
        encoding = runner.encode(processor([prompt], pictures(1)))
        return runner.sample_actions(encoding, MASK, steps, torch.Generator().manual_seed(seed))


def reference(model, processor, steps=4, seed=0, prompt=PROMPT):
    return model.predict_action_chunk(
        MASK, steps, torch.Generator().manual_seed(seed), **processor([prompt], pictures(1))
    )


@pytest.mark.parametrize("mode", ["auto", "off"])
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_result_is_the_models_own(any_micro, mode, steps):
    model, processor = any_micro
    runner = ChunkRunner(model, mode)
    for seed in (0, 1):
        assert_alike(chunk(runner, processor, steps, seed), reference(model, processor, steps, seed))


def test_padded_batches_and_partial_masks_work_too(any_micro):
    model, processor = any_micro
    runner = ChunkRunner(model)
    batch = processor([PROMPT, "go"], pictures(2))
    mask = torch.zeros(2, 4, 10, dtype=torch.bool)
    mask[0, :, :7] = mask[1, :2, :3] = True
    noise = torch.randn(2, 4, 10)
    with torch.no_grad():
        ours = runner.sample_actions(runner.encode(batch), mask, 4, noise=noise)
        assert_alike(ours, model.sample_actions(model.encode(**batch), mask, 4, noise=noise))


def test_tables_are_computed_once_per_grid(own, monkeypatch):
    model, processor = own
    runner, calls = ChunkRunner(model), []
    plain = model.action_expert.modulations
    monkeypatch.setattr(model.action_expert, "modulations", lambda tau: calls.append(len(tau)) or plain(tau))
    for steps in (4, 4, 10, 4, 10):
        chunk(runner, processor, steps)
    assert calls == [4, 10]


@pytest.mark.parametrize("what", ["block", "output", "timestep"])
def test_changed_weights_refresh_the_tables_in_place(own, what):
    model, processor = own
    expert = model.action_expert
    weight = {
        "block": expert.blocks[1].modulation.weight,
        "output": expert.out_modulation.weight,
        "timestep": expert.timestep_embedding.linear_1.bias,
    }[what]
    runner = ChunkRunner(model)
    before = chunk(runner, processor)
    memory = runner._loops[4][0].tables.steps[0][0].data_ptr()
    with torch.no_grad():
        weight.add_(0.05)
    after = chunk(runner, processor)
    assert_alike(after, reference(model, processor))
    assert differ(after, before)
    assert runner._loops[4][0].tables.steps[0][0].data_ptr() == memory, "a captured graph would read stale memory"


def test_euler_loop_never_looks_at_values():
    """Tensors on the meta device have none: any .item(), bool() or data-dependent shape would raise. 4b's geometry."""
    config = QwenVLAConfig.preset("4b").expert_config
    with torch.device("meta"):
        expert = ActionExpert(**config.module_arguments())
        hidden, ones, positions = torch.empty(1, 200, 2560), torch.ones(1, 200), torch.zeros(3, 1, 200)
        noise, mask = torch.empty(1, 16, 64), torch.empty(1, 16, 64, dtype=torch.bool)
    context = expert.prepare_context(hidden, ones, positions, torch.ones(1, 16, dtype=torch.bool), padded=False)
    loop = EulerLoop(expert, 10, lambda c, y, table: expert.velocity(ExpertContext(**c), y, table))
    with torch.no_grad():
        loop.tables.refresh()
        assert loop(vars(context), mask, noise).shape == (1, 16, 64)
    with pytest.raises(RuntimeError, match="meta"):
        bool(noise.any())


def test_replayed_memory_gives_the_functions_results():
    """The buffers that a CUDA graph would read are refilled for every call."""
    calls = []

    def function(x, extra, scale):
        calls.append(x.data_ptr())
        return {"y": x * scale + extra["b"]}

    make = lambda: (torch.randn(3), {"b": torch.randn(3)}, 2.0)  # noqa: E731
    replayed = ReplayedCall(function, make(), {})
    for _ in range(3):
        x, extra, scale = make()
        assert torch.equal(replayed(x, extra, scale)["y"], x * 2.0 + extra["b"])
    assert len(set(calls)) == 1


def test_euler_loop_on_replayed_memory_equals_the_model(own):
    """The whole loop, its context and its noise as a CUDA graph would see them; a changed weight is seen, too."""
    model, processor = own
    runner = ChunkRunner(model)
    loop, _ = runner._loop(4)
    runner._loops[4] = loop, VerifiedCall("loop", loop, ReplayedCall)
    for seed in (0, 1):
        assert_alike(chunk(runner, processor, 4, seed), reference(model, processor, 4, seed))
    with torch.no_grad():
        model.action_expert.blocks[0].modulation.weight.mul_(1.5)
    assert_alike(chunk(runner, processor), reference(model, processor))
    assert runner.decisions() == {"loop": ["accelerated"]}


def test_towers_on_replayed_memory_equal_the_model(own):
    """The backbone as on a GPU, for two prompts of different length, each verified once; then training still works."""
    model, processor = own
    runner = ChunkRunner(model)
    runner._wrap(model.vlm.model.language_model, "language tower")
    runner._wrap(model.vlm.model.visual, "vision tower")
    longer = PROMPT + " and put it away"
    for prompt in (PROMPT, longer, PROMPT):
        assert_alike(chunk(runner, processor, prompt=prompt), reference(model, processor, prompt=prompt))
    assert runner.decisions()["language tower"] == ["accelerated"] * 2
    assert runner.decisions()["vision tower"] == ["accelerated"]
    assert "forward" not in vars(model.vlm.model.language_model)
    model(**processor([PROMPT], pictures(1), answers=["yes"])).loss.backward()
    model.zero_grad()


def test_a_wrong_variant_is_not_used(caplog):
    call = VerifiedCall("sum", torch.add, lambda plain, args, kwargs: lambda a, b: (a + b) * 1.001)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        a, b = torch.ones(3), torch.ones(3)
        for _ in range(2):
            assert torch.equal(call(a, b), a + b)
    assert len(caplog.records) == 1 and "sum stays plain" in caplog.text and "off by 1.0e-03" in caplog.text


def test_bf16_allows_its_own_rounding_but_not_more():
    x = torch.randn(1000).bfloat16()
    for factor, fine in ((1.004, True), (1.05, False)):
        error, allowed = relative_error(x * factor, x)
        assert (error <= allowed) == fine and allowed == 1e-2
    assert relative_error(torch.full((3,), torch.nan), torch.ones(3))[0] != 0
    assert not relative_error(torch.full((3,), torch.nan), torch.ones(3))[0] <= 1e-2


def test_a_failing_variant_is_given_up_for_good(caplog):
    tried = []

    def fail(plain, args, kwargs):
        tried.append(1)
        raise RuntimeError("no compiler\nsecond line")

    call = VerifiedCall("sum", torch.add, fail)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for size in (3, 4, 5):
            assert torch.equal(call(torch.ones(size), torch.ones(size)), torch.full((size,), 2.0))
    assert tried == [1] and "RuntimeError: no compiler" in caplog.text and "second line" not in caplog.text


def test_a_slower_variant_is_not_used(caplog):
    def slow(a, b):
        for _ in range(200):
            torch.add(a, b)
        return torch.add(a, b)

    call = VerifiedCall("sum", torch.add, lambda *_: slow, must_win=True)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        call(torch.ones(2000), torch.ones(2000))
    assert "takes" in caplog.text and list(call.decisions.values())[0].startswith("plain")


def test_forgotten_shapes_are_verified_again():
    made = []
    call = VerifiedCall("sum", torch.add, lambda plain, *_: made.append(1) or plain)
    with torch.no_grad():
        for size in [*range(1, 12), 11, 1]:
            call(torch.ones(size), torch.ones(size))
    assert len(made) == 12 and len(call._chosen) == 8


def test_gradients_take_the_plain_way():
    call = VerifiedCall("sum", torch.add, lambda *_: pytest.fail("must not be made"))
    x = torch.ones(3, requires_grad=True)
    call(x, x).sum().backward()
    assert x.grad is not None


def test_tables_follow_the_expert_to_another_type(own):
    expert = build(micro_config())[0].action_expert
    tables = ModulationTables(expert, 2)
    with torch.no_grad():
        tables.refresh()
        expert.to(torch.bfloat16)
        tables.refresh()
    assert tables.steps[1][0].dtype == torch.bfloat16 and len(tables.steps) == 2


def test_weights_may_change_between_chunks_of_inference_mode_and_others(own):
    model, processor = own
    runner = ChunkRunner(model)
    with torch.inference_mode():
        chunk(runner, processor)
    with torch.no_grad():
        model.action_expert.out_modulation.weight.add_(0.01)
    assert_alike(chunk(runner, processor), reference(model, processor))


def test_unknown_mode_is_refused(micro):
    with pytest.raises(ValueError, match="accelerate 'fast' is not one of auto, off, compile"):
        ChunkRunner(micro[0], "fast")


@pytest.mark.slow
def test_compiled_result_is_verified_and_equal(caplog):
    """Takes a minute or two: the real compiler on this machine."""
    model, processor = build(micro_config())
    runner = ChunkRunner(model, "compile")
    with caplog.at_level(logging.INFO):
        ours = chunk(runner, processor)
    error, _ = relative_error(ours, reference(model, processor))
    assert error < 1e-5 and "compiling the" in caplog.text
    assert set(runner.decisions()) == {"language tower", "Euler loop of 4 steps"}
