# SPDX-License-Identifier: Apache-2.0
"""The unified tensor: what is packed is unpacked, everything else is zero and masked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla.model.action_space import action_mask, pack, unpack


@given(st.integers(1, 16), st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_round_trip(steps, channels, seed):
    actions = np.random.default_rng(seed).normal(size=(steps, channels)).astype(np.float32)
    packed, mask = pack(actions, 16, 64)
    assert packed.shape == mask.shape == (16, 64) and packed.dtype == np.float32
    assert mask.sum() == steps * channels and (packed[~mask] == 0).all()
    assert np.array_equal(unpack(packed, mask), actions)


def test_missing_steps_are_zeroed_and_masked():
    valid = np.array([[True, True, False], [True, False, False]])
    packed, mask = pack(np.ones((2, 3, 2)), 4, 5, valid)
    assert mask.sum() == 6 and packed.sum() == 6 and not mask[1, 1].any()
    assert unpack(packed[0], mask[0]).shape == (2, 2)


def test_single_missing_channels_are_zeroed_and_masked():
    valid = np.array([[True, False], [True, True], [False, False]])
    packed, mask = pack(np.where(valid, 1.0, np.nan), 4, 5, valid)
    np.testing.assert_array_equal(mask[:3, :2], valid)
    assert mask.sum() == packed.sum() == 3


@pytest.mark.parametrize(("steps", "channels"), [(5, 2), (4, 6), (0, 1), (1, 0)])
def test_what_does_not_fit_is_refused(steps, channels):
    with pytest.raises(ValueError, match="does not fit"):
        action_mask(steps, channels, 4, 5)


def test_only_leading_blocks_can_be_unpacked():
    mask = np.zeros((4, 5), dtype=bool)
    with pytest.raises(ValueError, match="leading block"):
        unpack(np.zeros((4, 5)), mask)
    mask[1, 1] = True
    with pytest.raises(ValueError, match="leading block"):
        unpack(np.zeros((4, 5)), mask)
