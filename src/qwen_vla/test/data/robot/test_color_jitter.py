# SPDX-License-Identifier: Apache-2.0
"""Colors change a little and in order: what was lighter stays lighter, and cameras of one scene share their light."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla.data.robot.color_jitter import jittered

RAMP = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)  # (1, 256, 3): every level once


@given(st.integers(0, 2**32), st.floats(0.01, 1))
def test_lighter_stays_lighter(seed, strength):
    (ramp,) = jittered({"ego": RAMP}, strength, np.random.default_rng(seed)).values()
    assert (np.diff(ramp[0].astype(int), axis=0) >= 0).all()


def test_cameras_share_most_of_the_change():
    changes = []
    for seed in range(200):
        found = jittered({"ego": RAMP, "wrist": RAMP}, 0.2, np.random.default_rng(seed))
        changes.append([found[tag].astype(float).mean() - RAMP.mean() for tag in ("ego", "wrist")])
    assert np.corrcoef(np.transpose(changes))[0, 1] > 0.7


def test_no_strength_changes_nothing():
    assert (jittered({"ego": RAMP}, 0.0, np.random.default_rng(0))["ego"] == RAMP).all()


def test_a_history_changes_as_a_whole():
    history = np.stack([RAMP, RAMP])
    (found,) = jittered({"ego": history}, 0.3, np.random.default_rng(0)).values()
    assert found.shape == history.shape and (found[0] == found[1]).all() and (found != history).any()
