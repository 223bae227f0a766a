# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: micro configurations of the same classes, small enough to build in a fraction of a second, and
small recordings of the simulated WidowX.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from micro import CHANNELS, TAGS, TEMPLATE, build, micro_config

from qwen_vla import EmbodimentInfo, Quantiles
from qwen_vla.model.checkpoint.files import NORMALIZATION_FILE

torch.set_num_threads(1)  # these models are too small to share out, and threads waiting for each other cost seconds


@pytest.fixture(scope="session", params=["full_attention", "linear_attention"])
def any_micro(request):
    """Model and processor, once with full attention only and once with a gated-linear layer as in ``4b``."""
    return build(micro_config((request.param, "full_attention")))


@pytest.fixture(scope="session")
def micro():
    return build(micro_config())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, micro):
    """A complete checkpoint directory, of chunks of 4 steps; read it only."""
    return save(tmp_path_factory.mktemp("checkpoint"), *micro)


@pytest.fixture(scope="session")
def fitting_checkpoint(tmp_path_factory):
    """A complete checkpoint directory that fits the WidowX: chunks of 16 steps, within its limits; read it only."""
    folder = save(tmp_path_factory.mktemp("fitting_checkpoint"), *build(micro_config(horizon=16)))
    statistics = Quantiles([-0.5] * 6 + [0.0], [0.5] * 6 + [1.0], CHANNELS)
    (folder / NORMALIZATION_FILE).write_text(json.dumps({"widowx": statistics.to_json()}))
    return folder


def save(path, model, processor):
    """A model of the WidowX as a checkpoint directory."""
    processor.normalization["widowx"] = Quantiles(-np.arange(1.0, 8.0), np.arange(1.0, 8.0), CHANNELS)
    processor.embodiments["widowx"] = EmbodimentInfo(
        name="widowx",
        channel_names=CHANNELS,
        control_mode="eef_delta",
        period=0.2,
        horizon=model.config.horizon,
        execution_horizon=model.config.horizon // 2,
        prompt_template=TEMPLATE,
        camera_tags=TAGS,
        dataset="widowx",
    )
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """Folder of two recordings of the real suite, read only: 4 demonstrations, and 6 snapshots in three shards."""
    from qwen_vla.data.collect import collect
    from qwen_vla.data.collection import Collection

    root = tmp_path_factory.mktemp("recordings")
    collect(Collection("widowx_pick", root / "demonstrations", 4))
    collect(Collection("widowx_pick", root / "snapshots", 6, 2_000_000, "snapshots", episodes_per_shard=2))
    return root
