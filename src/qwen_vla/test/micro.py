# SPDX-License-Identifier: Apache-2.0
"""Micro configurations of the same classes, small enough to build in a fraction of a second."""

import numpy as np
import torch

from qwen_vla import QwenVLAConfig, QwenVLAModel, QwenVLAProcessor
from qwen_vla.model.configuration import _tiny

TAGS = ("ego", "cam_wrist")
TEMPLATE = "The robot is WidowX with single arm. Please do: {instruction}."
CHANNELS = ("x", "y", "z", "rx", "ry", "rz", "gripper")


def micro_config(layers=("full_attention", "full_attention"), patch=8, merge=2, horizon=4) -> QwenVLAConfig:
    """Two text layers of the given kinds, one vision block, two DiT blocks, 32×32 images, 10 channels."""
    fields = _tiny()
    text, vision = fields["vlm_config"]["text_config"], fields["vlm_config"]["vision_config"]
    text.update(num_hidden_layers=len(layers), layer_types=list(layers), hidden_size=64, intermediate_size=96)
    vision.update(depth=1, hidden_size=64, num_heads=2, intermediate_size=96, out_hidden_size=64)
    vision.update(patch_size=patch, spatial_merge_size=merge, num_position_embeddings=16)
    fields["expert_config"].update(context_size=64, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=96)
    fields["expert_config"].update(action_channels=10)
    return QwenVLAConfig(**{**fields, "image_size": 32, "horizon": horizon})


def build(config: QwenVLAConfig) -> tuple[QwenVLAModel, QwenVLAProcessor]:
    """A model whose zero-initialised layers are filled, so that its output depends on its input."""
    torch.manual_seed(0)
    texts = [TEMPLATE.replace("{instruction}", f"pick up the {c} cube") for c in ("red", "green", "blue")]
    processor = QwenVLAProcessor.from_scratch(texts, config, TAGS, vocab_size=320)
    model = QwenVLAModel(config).eval()
    expert = model.action_expert
    for layer in [expert.out_modulation, expert.action_out[-1], *(b.modulation for b in expert.blocks)]:
        torch.nn.init.normal_(layer.weight, std=0.1)
    return model, processor


def pictures(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{tag: rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for tag in TAGS} for _ in range(count)]
