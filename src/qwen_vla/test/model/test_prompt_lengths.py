# SPDX-License-Identifier: Apache-2.0
"""A few lengths hold every instruction that is allowed."""

import pytest

from qwen_vla.model.acceleration import PromptLengths
from qwen_vla.model.acceleration.prompt_lengths import LONGEST_INSTRUCTION, MULTIPLE


def test_lengths_are_few_and_dense_where_instructions_are_short():
    lengths = PromptLengths(209).lengths
    assert lengths == (224, 232, 248, 280, 344, 480)
    assert all(length % MULTIPLE == 0 for length in lengths)


@pytest.mark.parametrize("bare", [1, 60, 209, 1000])
def test_every_allowed_instruction_fits_and_is_padded_little(bare):
    lengths = PromptLengths(bare)
    for tokens in range(1, LONGEST_INSTRUCTION + 1):
        assert bare + tokens <= lengths.fit(bare + tokens) <= bare + 2 * tokens + 2 * MULTIPLE


def test_a_longer_prompt_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="481 tokens is longer than the longest prepared, 480"):
        PromptLengths(209).fit(481)
