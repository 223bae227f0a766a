# SPDX-License-Identifier: Apache-2.0
"""Acceleration changes no chunk, for any prompt length, and never reads values on the device."""

import copy
import logging

import numpy as np
import pytest
import torch
from micro import build, micro_config, pictures
from micro_chunks import LAYERS, MASK, PROMPT, chunk, padded, reference, replaying

from qwen_vla import Sample
from qwen_vla.benchmark import _prime_vision, synthetic_observation, untrained_policy
from qwen_vla.model.acceleration import ChunkRunner
from qwen_vla.model.acceleration.compiled_blocks import CompiledBlocks, keep_compiled_code
from qwen_vla.model.acceleration.euler_loop import EulerLoop, ModulationTables
from qwen_vla.model.acceleration.replayed_call import ReplayedCall
from qwen_vla.model.acceleration.verified_call import relative_errors


@pytest.fixture(scope="module")
def own():
    """A model that tests here may change."""
    return build(micro_config(LAYERS))


# --- the same chunk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "off"])
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_result_is_the_models_own_bit_for_bit(any_micro, mode, steps):
    model, processor = any_micro
    runner, batch = ChunkRunner(model, mode), padded(processor)
    for seed in (0, 1):
        assert torch.equal(chunk(runner, batch, steps, seed), reference(model, batch, steps, seed))


@pytest.mark.parametrize("mode", ["auto", "off"])
@pytest.mark.parametrize("length", [56, 64, 72, 128])
def test_a_padded_prompt_gives_the_chunk_of_the_bare_one(any_micro, mode, length):
    """Through full and linear attention: lengths on both sides of, and at, the delta rule's blocks of 64 tokens."""
    model, processor = any_micro
    ours = chunk(ChunkRunner(model, mode), padded(processor, length))
    torch.testing.assert_close(ours, reference(model, padded(processor)), atol=1e-5, rtol=1e-5)


def test_what_stands_in_the_padding_does_not_matter(any_micro):
    model, processor = any_micro
    runner, batch = ChunkRunner(model), padded(processor, 72)
    expected = chunk(runner, batch)
    batch["input_ids"] = torch.where(batch["attention_mask"] == 0, 9, batch["input_ids"])
    assert torch.equal(chunk(runner, batch), expected)


def test_batches_padded_on_either_side_and_partial_masks_work(any_micro):
    model, processor = any_micro
    samples = [Sample(text, images) for text, images in zip([PROMPT, "go"], pictures(2), strict=True)]
    mask = torch.zeros(2, 4, 10, dtype=torch.bool)
    mask[0, :, :7] = mask[1, :2, :3] = True
    noise = torch.randn(2, 4, 10)
    left, right = processor.collate(samples), processor.collate(samples, length=72)
    runner = ChunkRunner(model)
    with torch.no_grad():
        expected = model.sample_actions(model.encode(**left), mask, 4, noise=noise)
        assert torch.equal(runner.sample_actions(runner.context(left, mask), mask, 4, noise=noise), expected)
        ours = runner.sample_actions(runner.context(right, mask), mask, 4, noise=noise)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


# --- what changes and what stays --------------------------------------------------------------------------------------


def test_tables_are_computed_once_per_grid(own, monkeypatch):
    model, processor = own
    runner, calls = ChunkRunner(model), []
    plain = model.action_expert.modulations
    monkeypatch.setattr(model.action_expert, "modulations", lambda tau: calls.append(len(tau)) or plain(tau))
    for steps in (4, 4, 10, 4, 10):
        chunk(runner, padded(processor), steps)
    assert calls == [4, 10]


@pytest.mark.parametrize("what", ["block", "output", "timestep"])
def test_changed_weights_refresh_the_tables_in_place(own, what):
    model, processor = own
    expert, batch = model.action_expert, padded(processor)
    weight = {
        "block": expert.blocks[1].modulation.weight,
        "output": expert.out_modulation.weight,
        "timestep": expert.timestep_embedding.linear_1.bias,
    }[what]
    runner = ChunkRunner(model)
    before = chunk(runner, batch)
    memory = runner._loops[4][0].tables.steps[0][0].data_ptr()
    with torch.no_grad():
        weight.add_(0.05)
    after = chunk(runner, batch)
    assert torch.equal(after, reference(model, batch)) and not torch.equal(after, before)
    assert runner._loops[4][0].tables.steps[0][0].data_ptr() == memory, "a captured graph would read stale memory"


def test_tables_follow_the_expert_to_another_type():
    expert = build(micro_config())[0].action_expert
    tables = ModulationTables(expert, 2)
    with torch.no_grad():
        tables.refresh()
        expert.to(torch.bfloat16)
        tables.refresh()
    assert tables.steps[1][0].dtype == torch.bfloat16 and len(tables.steps) == 2


def test_weights_may_change_between_chunks_of_inference_mode_and_others(own):
    model, processor = own
    runner, batch = ChunkRunner(model), padded(processor)
    with torch.inference_mode():
        chunk(runner, batch)
    with torch.no_grad():
        model.action_expert.out_modulation.weight.add_(0.01)
    assert torch.equal(chunk(runner, batch), reference(model, batch))


# --- as on a GPU ------------------------------------------------------------------------------------------------------


def test_nothing_looks_at_values_on_the_device():
    """Tensors on the meta device have none: any .item(), bool() or data-dependent shape would raise. 4b's geometry."""
    policy = untrained_policy("4b", "meta")
    batch = policy.processor.collate(policy._samples([synthetic_observation(policy)]), length=232)
    _prime_vision(policy.model, batch["image_grid_thw"])
    tokens = torch.stack((batch["input_ids"], batch["attention_mask"])).to("meta")
    images = torch.empty(3, 224, 224, 3, device="meta")
    with torch.no_grad():
        fields = policy.runner._plain_context(tokens, policy._mask(1), image_count=3, images=images)
        loop = EulerLoop(policy.model.action_expert, 10)
        loop.tables.refresh()
        assert loop(fields, policy._mask(1), torch.empty(1, 16, 64, device="meta")).shape == (1, 16, 64)
    assert fields["tokens"].shape == (1, 232, 1536) and fields["mask"].shape == (1, 1, 1, 248)
    with pytest.raises(RuntimeError, match="meta"):
        bool(fields["tokens"].any())


def test_replayed_memory_gives_the_functions_results():
    """The buffers that a CUDA graph would read are refilled for every call, and those that it would write are kept."""
    calls = []

    def function(x, extra, scale):
        calls.append(x.data_ptr())
        return {"y": x * scale + extra["b"]}

    make = lambda: (torch.randn(3), {"b": torch.randn(3)}, 2.0)  # noqa: E731
    replayed, results = ReplayedCall(function, make(), {}, torch.device("cpu")), set()
    for _ in range(3):
        x, extra, scale = make()
        result = replayed(x, extra, scale)["y"]
        assert torch.equal(result, x * 2.0 + extra["b"])
        results.add(result.data_ptr())
    assert len(set(calls)) == 1 and len(results) == 1


def test_a_replayed_function_reads_the_results_of_another_where_they_lie():
    cpu = torch.device("cpu")
    double = ReplayedCall(lambda x: x * 2, (torch.ones(3),), {}, cpu)
    between, seen = double(torch.ones(3)), []
    add = ReplayedCall(lambda y: seen.append(y.data_ptr()) or y + 1, (between,), {}, cpu)
    assert torch.equal(add(double(torch.full((3,), 5.0))), torch.full((3,), 11.0))
    assert seen == [between.data_ptr()]
    assert torch.equal(add(torch.full((3,), 7.0)), torch.full((3,), 8.0)), "results of others are copied there"


def test_chunks_on_replayed_memory_equal_the_model(own):
    """Two lengths in turn, each verified once; a changed weight is seen; training still works."""
    model, processor = own
    runner, longer = replaying(model), padded(processor, 80, PROMPT + " and put it away")
    short = padded(processor, 72)
    for batch, seed in ((short, 0), (longer, 1), (short, 2)):
        ours, expected = chunk(runner, batch, 4, seed), reference(model, batch, 4, seed)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        model.action_expert.blocks[0].modulation.weight.mul_(1.5)
    torch.testing.assert_close(chunk(runner, short), reference(model, short), atol=1e-5, rtol=1e-5)
    assert [[d.choice for d in found] for found in runner.decisions().values()] == [["replay"] * 2] * 2
    model(**processor([PROMPT], pictures(1), answers=["yes"])).loss.backward()
    model.zero_grad()


def test_images_that_a_gpu_resampled_give_the_chunk(own):
    """The batch as it is made for a GPU, here with OpenCV's own pixels, unrounded by less than half."""
    model, processor = own
    batch = padded(processor, 72)
    pixels = np.stack([processor.image_transform.resize(image) for image in pictures(1)[0].values()])
    images = torch.from_numpy(pixels).float() + torch.rand(pixels.shape) * 0.8 - 0.4
    given = {name: tensor for name, tensor in batch.items() if name != "pixel_values"} | {"images": images}
    for mode in ("auto", "off"):
        runner = ChunkRunner(model, mode, processor.image_transform)
        torch.testing.assert_close(chunk(runner, given), chunk(runner, batch), atol=0, rtol=0)


def test_unknown_mode_is_refused(micro):
    with pytest.raises(ValueError, match="accelerate 'fast' is not one of auto, off, graphs, compile"):
        ChunkRunner(micro[0], "fast")


# --- compiled blocks --------------------------------------------------------------------------------------------------


@pytest.fixture
def cheap_compiler(monkeypatch):
    """torch.compile with all of its tracing and none of its code generation, and the functions that it compiled."""
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: real(function, backend=backend))
    torch._dynamo.reset()
    yield traced
    torch._dynamo.reset()


def test_each_kind_of_block_is_compiled_once_for_all_lengths(cheap_compiler):
    """One vision block, three text layers of two kinds, and the expert's: its last block returns the actions alone."""
    model, processor = build(micro_config((*LAYERS, "linear_attention")))
    blocks = CompiledBlocks(model)
    for length in (None, 72, 80, 128):
        batch = padded(processor, length)
        with torch.inference_mode(), blocks.active():
            runner = ChunkRunner(model)
            context = runner.context(batch, MASK)
            context.mask = torch.zeros(1, 1, 1, batch["input_ids"].shape[1] + 4)  # as on a GPU: always there
            runner.sample_actions(context, MASK, 4, noise=torch.randn(1, 4, 10))
    assert len(cheap_compiler) == 5
    assert not any("forward" in vars(block) for block in model.modules()), "the model is plain again"


def test_compiled_blocks_give_the_models_chunk(cheap_compiler):
    model, processor = build(micro_config(LAYERS))
    batch, blocks = padded(processor, 72), CompiledBlocks(model)
    with torch.inference_mode(), blocks.active():
        ours = chunk(ChunkRunner(model), batch)
    torch.testing.assert_close(ours, reference(model, batch), atol=1e-5, rtol=1e-5)


def test_a_compiler_that_fails_leaves_the_plain_model_and_a_line_that_says_why(own, monkeypatch, caplog):
    model, processor = own

    def broken(function):
        def run(*_, **__):
            raise RuntimeError("no C++ compiler found")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    runner, batch = ChunkRunner(model, "compile"), padded(processor)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(chunk(runner, batch), reference(model, batch))
    assert "backbone: without compiled blocks failed (RuntimeError: no C++ compiler found)" in caplog.text
    assert runner.decisions()["backbone"][0].choice.startswith("plain: compiled blocks failed")


def test_compiled_code_is_kept_in_the_users_cache_unless_the_environment_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    assert keep_compiled_code() == tmp_path / "qwen_vla"
    import os

    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "qwen_vla" / "inductor")
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"


@pytest.mark.slow
def test_really_compiled_chunks_are_as_close_to_float32_as_plain_ones(caplog):
    """Takes a minute or two: the real compiler on this machine, in half precision, where the two differ."""
    model, processor = build(micro_config(LAYERS))
    model, batch = copy.deepcopy(model).to(torch.bfloat16), padded(processor, 72)
    runner = ChunkRunner(model, "compile")
    for call in (runner._backbone,):
        call._must_win = False  # whether it is faster here is not the question
    with caplog.at_level(logging.INFO):
        ours = chunk(runner, batch)
    exact = reference(copy.deepcopy(model).float(), batch)
    assert "compiling the model's blocks" in caplog.text
    assert runner.decisions()["backbone"][0].choice == "compiled blocks"
    assert relative_errors([ours], [exact])[0] < 2e-2
