# SPDX-License-Identifier: Apache-2.0
"""Batches gathered from data on the device are those that samples make one by one."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from qwen_vla import QwenVLAConfig, QwenVLAProcessor
from qwen_vla.data.language.questions import QuestionData
from qwen_vla.data.mixture import Mixture
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla.data.table import uniforms
from qwen_vla.training.batching.batches import Batches
from qwen_vla.training.batching.resident import relit, resident_sources

CPU = torch.device("cpu")


def opened(recordings, **changes):
    """Demonstrations and snapshots of one robot, and questions about the snapshots, with their processor."""
    config = QwenVLAConfig.preset("tiny", proprioception="token", horizon=20)
    context = SourceContext(config, held_out_share=0.25)
    specs = [
        RobotData(kind="robot", path=str(recordings / "demonstrations"), **changes),
        QuestionData(kind="questions", path=recordings / "snapshots"),
        RobotData(kind="robot", path=str(recordings / "snapshots"), use_state=False),
    ]
    sources = [spec.open(context) for spec in specs]
    texts = [text for source in sources for text in source.texts()]
    tags = tuple(dict.fromkeys(tag for source in sources for tag in source.camera_tags))
    return sources, QwenVLAProcessor.from_scratch(texts, config, tags), config


@pytest.fixture(scope="module")
def plain(recordings):
    return opened(recordings)


def batches_of(sources, processor, config, resident, **options):
    mixture = Mixture(sources, [3, 1, 1], 12, 5)
    return Batches(mixture, processor, config, noise_draws=2, resident=resident, **options)


def tensors(value):
    """All tensors of a batch by name."""
    found = dict(value.inputs) | {"tau": value.tau, "noise": value.noise, "prefix": value.prefix}
    if value.grounding is not None:
        found |= {field.name: getattr(value.grounding, field.name) for field in fields(value.grounding)}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("options", [{}, {"grouped": True}, {"accumulate": 3, "process": 1, "processes": 2}])
def test_gathered_batches_equal_collated_ones_to_the_bit(plain, options):
    sources, processor, config = plain
    resident, line = resident_sources(sources, processor, CPU)
    assert [source is None for source in resident] == [False, True, False] and "1 source(s) sample by sample" in line
    ours, theirs = (batches_of(*plain, found, **options) for found in (resident, []))
    for step in (0, 7, 3):
        for one, other in zip(ours[step], theirs[step], strict=True):
            gathered, collated = tensors(one), tensors(other)
            assert gathered.keys() == collated.keys()
            for name, tensor in gathered.items():
                assert tensor.dtype == collated[name].dtype and torch.equal(tensor, collated[name]), name


def test_data_that_would_fill_the_gpu_stays_on_the_cpu(plain, monkeypatch):
    sources, processor, _ = plain
    size = sources[0].table().nbytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (size, 80_000_000_000))
    resident, line = resident_sources(sources, processor, torch.device("cuda"))
    assert resident == [None] * len(sources) and "stays on the CPU" in line


def test_a_share_of_the_rows_names_another_robot_and_holds(recordings):
    sources, processor, _ = opened(recordings, other_prompts=0.4)
    table = sources[0].table()
    resident = resident_sources(sources, processor, CPU)[0][0]
    rows = Mixture(sources[:1], [1], 400, 0).plan(0)
    inputs = resident.batch(rows, 20).inputs
    texts = [processor.decode(ids) for ids in inputs["input_ids"]]
    other = np.array(["WidowX" not in text for text in texts])
    assert 0.33 < other.mean() < 0.47
    assert len({text for text, is_other in zip(texts, other, strict=True) if is_other}) > 1
    for row, text, chunk in zip(rows, texts, inputs["actions"].numpy(), strict=True):
        held = sources[0]._still(row.index) if "WidowX" not in text else sources[0]._actions(row.index)
        assert np.array_equal(chunk[: len(held), : held.shape[1]], held)
    assert len(table.prompts) > len(set(table.prompt))


def test_colors_vary_as_those_of_single_samples(recordings):
    sources, processor, _ = opened(recordings, color_jitter=0.3)
    resident = resident_sources(sources, processor, CPU)[0][0]
    index = int(sources[0].training[0])
    row = Mixture(sources[:1], [1], 1, 0).plan(0)[0]
    rows = [replace(row, index=index, seed=seed) for seed in range(400)]
    pixels = resident.batch(rows, 20).inputs["pixel_values"].view(400, len(resident.tags), -1)
    singles = [sources[0].sample(index, np.random.default_rng(seed)) for seed in range(400)]
    expected = processor.collate(singles)["pixel_values"].view(400, len(resident.tags), -1)
    assert pixels.mean().item() == pytest.approx(expected.mean().item(), abs=0.02)
    brightness, known = pixels.mean(2), expected.mean(2)
    assert torch.allclose(brightness.std(0), known.std(0), rtol=0.15)
    assert torch.allclose(torch.corrcoef(brightness.T), torch.corrcoef(known.T), atol=0.08)


def test_the_same_curve_changes_colors_as_on_the_cpu():
    rng = np.random.default_rng(0)
    image, curve = rng.integers(0, 256, (8, 8, 3), np.uint8), rng.uniform(-0.3, 0.3, (3, 3))
    levels = np.linspace(0, 1, 256)[image]
    expected = 255 * np.clip(np.exp(curve[:, 0]) * levels ** np.exp(curve[:, 1]) + curve[:, 2], 0, 1)
    ours = relit(torch.from_numpy(image)[None], torch.from_numpy(curve)[None])[0].numpy()
    assert ours.dtype == np.uint8 and np.abs(ours - expected).max() <= 0.51


def test_uniform_numbers_depend_only_on_their_own_seed():
    seeds = np.random.default_rng(0).integers(2**63, size=20_000)
    found = uniforms(seeds, 3)
    assert np.array_equal(found[5:9], uniforms(seeds[5:9], 3)) and np.array_equal(found[:, :2], uniforms(seeds, 2))
    assert 0 <= found.min() and found.max() < 1
    assert np.abs(found.mean(0) - 0.5).max() < 0.01 and np.abs(found.var(0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.03


def test_whole_trajectories_and_states_in_the_prompt_are_made_one_by_one(recordings):
    config = QwenVLAConfig.preset("tiny", horizon=20)
    spec = RobotData(kind="robot", path=str(recordings / "demonstrations"))
    assert spec.open(SourceContext(config, images=False, trajectory_steps=40)).table() is None
    source = spec.open(SourceContext(config))
    processor = QwenVLAProcessor.from_scratch(list(source.texts()), config, source.camera_tags)
    processor.proprioception = "text"
    assert resident_sources([source], processor, CPU)[0] == [None]
