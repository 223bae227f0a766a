# SPDX-License-Identifier: Apache-2.0
"""Histories as videos: steps of two frames, their times, their patches, as the backbone's own classes have them."""

import numpy as np
import pytest
import torch
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from qwen_vla.model.images.transform import ImageTransform
from qwen_vla.model.images.video import step_count, steps_of, time_texts


def test_a_step_is_two_frames_and_the_last_frame_fills_the_last_step():
    assert steps_of("abcd", 2) == [("a", "b"), ("c", "d")] and steps_of("abc", 2) == [("a", "b"), ("c", "c")]
    assert steps_of("abc", 1) == [("a",), ("b",), ("c",)]
    assert [step_count(frames, 2) for frames in (1, 2, 3, 8)] == [1, 1, 2, 4]


def test_times_at_two_frames_per_second_are_those_of_qwen():
    """Frames at 0, 0.5, 1, … s; a step's time is midway: 0.25, 1.25, 2 (the last frame twice), to one decimal."""
    assert time_texts(5, 2.0, 2) == ["<0.2 seconds>", "<1.2 seconds>", "<2.0 seconds>"]
    assert time_texts(3, 4.0, 1) == ["<0.0 seconds>", "<0.2 seconds>", "<0.5 seconds>"]


@pytest.mark.parametrize("rate", [2.0, 3.7, 30.0])
@pytest.mark.parametrize("merged", [1, 2])
@pytest.mark.parametrize("frames", [2, 7, 40])
def test_times_equal_those_of_transformers(frames, rate, merged):
    theirs = Qwen3VLProcessor._calculate_timestamps(None, list(range(frames)), rate, merged)
    assert time_texts(frames, rate, merged) == [f"<{time:.1f} seconds>" for time in theirs]


@pytest.mark.parametrize(("merge", "merged"), [(2, 2), (1, 2), (2, 1)])
def test_patches_of_a_step_give_what_a_convolution_over_its_frames_gives(merge, merged):
    """The vision tower's first layer, as the 3-D convolution over time, height and width that it was trained as."""
    transform = ImageTransform(32, 8, merge, merged)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    steps = torch.from_numpy(np.stack([np.stack(step) for step in steps_of(list(images), merged)]))
    kernel = torch.randn(5, 3, merged, 8, 8, generator=torch.Generator().manual_seed(0))
    found = transform.patchify(steps) @ kernel.flatten(1).T
    frames = torch.from_numpy(np.stack([*images, *[images[-1]] * (-len(images) % merged)])).permute(3, 0, 1, 2)
    whole = torch.nn.functional.conv3d((frames.float() / 255 - 0.5) / 0.5, kernel, stride=kernel.shape[2:])
    blocks = whole.unflatten(2, (-1, merge)).unflatten(4, (-1, merge))  # [5, time, rows, m, columns, m]
    torch.testing.assert_close(found, blocks.permute(1, 2, 4, 3, 5, 0).reshape(-1, 5), atol=1e-4, rtol=1e-5)


def test_a_video_of_equal_frames_has_the_patches_of_the_image():
    transform = ImageTransform(32, 8, 2, 2)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8))
    assert torch.equal(transform.patchify(torch.stack((image, image), dim=1)), transform.patchify(image))


def test_resampled_on_a_device_a_step_is_what_it_is_on_the_cpu():
    """An image beside a video has both frames of a step, so that a batch is one tensor."""
    transform, rng = ImageTransform(32, 8, 2, 2), np.random.default_rng(0)
    views = [rng.integers(0, 256, (count, 64, 96, 3), dtype=np.uint8) for count in (3, 1)]
    pictures = [picture for view in views for picture in transform.pictures(list(view))]
    inputs = transform.on_device(pictures, torch.device("cpu"))
    assert inputs["images"].shape == (3, 2, 32, 32, 3) and inputs["image_grid_thw"].tolist() == [[1, 4, 4]] * 3
    resized = [torch.from_numpy(np.stack([transform.resize(frame) for frame in picture])) for picture in pictures]
    own = torch.cat([transform.patchify(step[None]) for step in resized])
    found = transform.patchify(transform.rounded(inputs["images"]))
    assert (found - own).abs().max() <= 1.01 / 127.5, "OpenCV and the product may round to different sides"
    assert transform.on_device(pictures[2:], torch.device("cpu"))["images"].shape == (1, 32, 32, 3)
