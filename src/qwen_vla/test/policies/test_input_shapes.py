# SPDX-License-Identifier: Apache-2.0
"""Every shape that an observation can have is known beforehand, with videos of one or two frames per step, too."""

import itertools

import numpy as np
import pytest
from micro import TAGS, build, micro_config

from qwen_vla import Policy, QwenVLAProcessor
from qwen_vla.policies.chunk_policy import Observation

INSTRUCTIONS = (".", "pick up the red cube", " ".join(["cube"] * 60))


@pytest.fixture(scope="module", params=[1, 2], ids=["frame by frame", "two frames a step"])
def policy(request, checkpoint):
    """Of two cameras, that has a history of 23 frames at 2 Hz: times of one and of two digits."""
    config = micro_config()
    config.vlm_config.vision_config.temporal_patch_size = request.param
    config.history_frames, config.history_rate = 23, 2.0
    model, processor = build(config)
    trained = QwenVLAProcessor.from_pretrained(checkpoint)
    processor.normalization, processor.embodiments = trained.normalization, trained.embodiments
    return Policy(model, processor)


def observation(frames, instruction="."):
    images = {tag: np.zeros((count, 48, 64, 3), np.uint8) for tag, count in zip(TAGS, frames, strict=True)}
    return Observation(images, instruction)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_every_number_of_frames_is_possible_and_every_prompt_fits_its_lengths(policy, instruction):
    possible = policy.shapes.possible()
    assert len(set(possible)) == len(possible)
    for frames in itertools.product((1, 2, 3, 12, 22, 23), repeat=2):
        shown = policy.shapes.shown(observation(frames).images)
        assert shown in possible, frames
        (sample,) = policy._samples([observation(frames, instruction)])
        lengths, tokens = policy.shapes.lengths(shown), policy.processor.prompt_tokens(sample)
        room = tokens - policy.processor.text_tokens(instruction)
        assert room <= lengths.lengths[0] - 8, "the shortest length has room for the shortest instruction"
        assert lengths.fit(tokens) >= tokens


def test_an_example_shows_what_it_is_an_example_of(policy):
    for shown in policy.shapes.possible():
        example = policy.shapes.example(shown)
        assert policy.shapes.shown(example.images) == shown
        assert max(map(len, example.images.values())) <= policy.model.config.history_frames


def test_a_policy_without_history_shows_one_image_of_each_camera(checkpoint):
    (shown,) = Policy.from_pretrained(checkpoint).shapes.possible()
    assert (shown.steps, shown.video, str(shown)) == (2, False, "2 images")


def test_the_time_between_frames_reaches_the_model(policy):
    """The same frames at another rate are another video, and give another chunk."""
    seen = observation((2, 2))
    before = policy.infer(seen, seed=0).data
    policy.model.config.history_rate = 0.5
    try:
        after = policy.infer(seen, seed=0).data
    finally:
        policy.model.config.history_rate = 2.0
    assert not np.allclose(after, before) and np.array_equal(policy.infer(seen, seed=0).data, before)
