# SPDX-License-Identifier: Apache-2.0
"""Blending modes are compared only on validation scenes."""

from __future__ import annotations

import pytest

from qwen_vla.seeds import FIRST_TEST_SEED
from qwen_vla_ros.simulation.runtime_benchmark.smoothness import FIRST_SEED, measure_modes


def test_a_comparison_that_would_reach_the_test_scenes_is_refused_before_it_starts(tmp_path):
    with pytest.raises(ValueError, match="more than one split"):
        measure_modes(tmp_path, FIRST_TEST_SEED - FIRST_SEED + 1, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
