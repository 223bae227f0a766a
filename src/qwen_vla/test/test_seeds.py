# SPDX-License-Identifier: Apache-2.0
"""Every seed is of one split, and who needs one gets no other."""

import pytest

from qwen_vla.seeds import FIRST_TEST_SEED, FIRST_TRAINING_SEED, require_split, split_of


def test_every_seed_has_a_split_and_borders_belong_to_the_next_one():
    borders = {0: "validation", FIRST_TEST_SEED: "test", FIRST_TRAINING_SEED: "training"}
    for seed, split in borders.items():
        assert split_of(range(seed, seed + 50)) == split_of(range(seed, seed)) == split
    assert split_of(range(FIRST_TEST_SEED - 50, FIRST_TEST_SEED)) == "validation"
    assert split_of(range(FIRST_TRAINING_SEED - 50, FIRST_TRAINING_SEED)) == "test"


@pytest.mark.parametrize("border", [FIRST_TEST_SEED, FIRST_TRAINING_SEED])
def test_seeds_of_two_splits_are_refused(border):
    with pytest.raises(
        ValueError, match=f"seeds {border - 1}…{border} are of more than one split .*choose seeds of a single split"
    ):
        split_of(range(border - 1, border + 1))


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        split_of(range(-1, 5))


def test_who_needs_a_split_gets_no_other():
    require_split("validation", range(9000, 9050), "tuning")
    with pytest.raises(ValueError, match="tuning needs validation seeds, got test seeds from 20000 on"):
        require_split("validation", range(FIRST_TEST_SEED, FIRST_TEST_SEED + 5), "tuning")
