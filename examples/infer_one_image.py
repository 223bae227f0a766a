# SPDX-License-Identifier: Apache-2.0
"""Ask the shipped model for one chunk: what would the WidowX do next in a simulated scene?

    .venv/bin/python examples/infer_one_image.py [SEED]

On a robot of yours the images come from its cameras: `Observation(images={"ego": …}, instruction="…")`.
"""

import sys

import numpy as np

from embodiment_descriptions import resource_path
from qwen_vla import Policy
from qwen_vla.evaluation.episode import shown_to
from qwen_vla.suites import load_suite


def main(seed: int = 9000) -> None:
    suite = load_suite("widowx")
    env = suite.make_env()
    scene, info = env.reset(seed=seed)
    env.close()

    policy = Policy.from_pretrained(resource_path("checkpoints/tiny"), embodiment="widowx")
    observation = shown_to(policy, suite, scene, info["instruction"])
    chunk = policy.infer(observation, seed=0)

    cameras = ", ".join(f"{tag} {np.shape(image)}" for tag, image in observation.images.items())
    print(f"{observation.instruction!r}, seen by {cameras}")
    print(f"{len(chunk.data)} actions, one each {chunk.period} s")
    print("  ".join(f"{name:>7}" for name in chunk.channel_names))
    for row in chunk.data[: chunk.execution_horizon]:
        print("  ".join(f"{value:7.3f}" for value in row))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
