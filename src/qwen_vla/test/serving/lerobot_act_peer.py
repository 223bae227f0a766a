# SPDX-License-Identifier: Apache-2.0
"""Makes a small ACT policy of LeRobot with random weights, and what it answers to an observation.

lerobot_act_peer.py FOLDER IN.npz OUT.npz    IN: images [2, H, W, 3] by camera, of which the first are shown
"""

import sys

import numpy as np
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors

folder, given, out = sys.argv[1:]
with np.load(given) as file:
    images = {f"observation.images.{name}": torch.from_numpy(file[name][0]) for name in file.files}
torch.manual_seed(0)
config = ACTConfig(
    chunk_size=16,
    n_action_steps=16,
    dim_model=32,
    n_heads=2,
    dim_feedforward=32,
    n_encoder_layers=1,
    n_vae_encoder_layers=1,
    pretrained_backbone_weights=None,
    device="cpu",
)
config.input_features = {key: PolicyFeature(FeatureType.VISUAL, (3, 24, 32)) for key in images}
config.input_features["observation.state"] = PolicyFeature(FeatureType.STATE, (7,))
config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
wide = {"mean": torch.full((7,), 0.5), "std": torch.full((7,), 2.0)}
flat = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.5)}
stats = {"observation.state": wide, "action": wide} | dict.fromkeys(images, flat)
policy = ACTPolicy(config).eval()
before, after = make_pre_post_processors(config, dataset_stats=stats)
policy.save_pretrained(folder)
before.save_pretrained(folder)
after.save_pretrained(folder)
observation = {key: image.permute(2, 0, 1).float() / 255 for key, image in images.items()}
with torch.no_grad():
    chunk = policy.predict_action_chunk(before(observation | {"observation.state": torch.linspace(0, 0.3, 7)}))
np.savez(out, chunk=torch.cat([after(chunk[:, row]) for row in range(16)]).numpy())
