# SPDX-License-Identifier: Apache-2.0
"""What the test asks of LeRobot with the plugin, in an environment of its own.

lerobot_policy_peer.py PORT IN.npz OUT.npz    IN: images [2, H, W, 3] by camera
"""

import json
import sys

import numpy as np
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins

port, given, out = sys.argv[1:]
register_third_party_plugins()
with np.load(given) as file:
    images = {f"observation.images.{name}": file[name] for name in file.files}
PROMPT = "pick up the red cube"


def policy(width: int = 7, **changes):
    config = make_policy_config("qwen_vla", server=f"127.0.0.1:{port}", seed=4, device="cpu", **changes)
    config.input_features = {
        key: PolicyFeature(FeatureType.VISUAL, (3, *image.shape[1:3])) for key, image in images.items()
    }
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (width,))}
    return get_policy_class("qwen_vla")(config)


def refusal(make) -> str:
    try:
        make()
    except (ValueError, NotImplementedError, ConnectionError) as error:
        return str(error)
    return ""


batch = {key: torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255 for key, image in images.items()}
ours = policy()
chunks = ours.predict_action_chunk(batch | {"task": [PROMPT, PROMPT]})

before, after = make_pre_post_processors(ours.config)
ours.reset()
single = before({key: image[0] for key, image in batch.items()} | {"task": PROMPT})
steps = torch.stack([after(ours.select_action(single))[0] for _ in range(9)])
about = {
    "narrow": refusal(lambda: policy(width=6)),
    "camera": refusal(lambda: policy(cameras={"ego": "observation.images.front"})),
    "training": refusal(lambda: ours.forward(batch)),
}
np.savez(out, chunks=chunks.numpy(), steps=steps.numpy(), about=json.dumps(about))
