# SPDX-License-Identifier: Apache-2.0
"""Images resampled by matrix products, as on a GPU, are those that OpenCV makes."""

import numpy as np
import pytest
import torch

from qwen_vla.model.images.resampling import area_weights, linear_weights
from qwen_vla.model.images.transform import ImageTransform

CPU = torch.device("cpu")
TRANSFORM = ImageTransform(224, 16, 2, 2)


def images(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize("shape", [(480, 640), (240, 320), (1080, 1920), (448, 448), (224, 300), (224, 224)])
def test_shrunk_images_are_opencvs_but_for_rounding(shape):
    (image,) = images(shape)
    ours = TRANSFORM.rounded(TRANSFORM.resampling.on_device([image], CPU))[0].numpy().astype(int)
    difference = np.abs(ours - TRANSFORM.resize(image))
    assert difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize("shape", [(100, 120), (97, 333), (200, 400), (1, 1)])
def test_grown_images_are_opencvs_but_for_its_fixed_point_arithmetic(shape):
    (image,) = images(shape)
    ours = TRANSFORM.rounded(TRANSFORM.resampling.on_device([image], CPU))[0].numpy().astype(int)
    difference = np.abs(ours - TRANSFORM.resize(image))
    assert difference.max() <= 1 and difference.mean() < 0.15


def test_cameras_of_different_sizes_keep_their_order():
    several = images((240, 320), (480, 640), (240, 320), (224, 224), (480, 640))
    together = TRANSFORM.resampling.on_device(several, CPU)
    for index, image in enumerate(several):
        torch.testing.assert_close(together[index], TRANSFORM.resampling.on_device([image], CPU)[0])


@pytest.mark.parametrize(("weights", "source"), [(area_weights, 640), (area_weights, 225), (linear_weights, 100)])
def test_a_gray_image_stays_gray(weights, source):
    np.testing.assert_allclose(weights(source, 224).sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="H×W×3 uint8"):
        TRANSFORM.resampling.on_device([image], CPU)
