# SPDX-License-Identifier: Apache-2.0
"""Advantages: the sums of their definition, and what they say about an episode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla.training.reinforcement.advantages import advantages, normalized

numbers = st.floats(-3, 3)
episodes = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12).map(lambda rows: np.array(rows).T)


@given(episodes, st.floats(0, 1), st.floats(0, 1))
def test_they_are_the_discounted_sums_of_the_definition(episode, gamma, decay):
    rewards, values = episode
    ahead = np.append(values[1:], 0.0)
    deltas = rewards + gamma * ahead - values
    sums = [
        sum((gamma * decay) ** (later - t) * deltas[later] for later in range(t, len(deltas)))
        for t in range(len(deltas))
    ]
    assert np.allclose(advantages(rewards, values, gamma, decay), sums)


@given(episodes, st.floats(0, 1))
def test_with_lambda_one_they_are_returns_less_values(episode, gamma):
    rewards, values = episode
    returns = [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
    assert np.allclose(advantages(rewards, values, gamma, 1.0), np.array(returns) - values)


def test_success_after_few_chunks_is_worth_more():
    quick, slow = (advantages([0] * n + [1], np.zeros(n + 1), 0.99, 0.95)[0] for n in (1, 6))
    assert quick == pytest.approx(0.99 * 0.95) and quick > slow > 0


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="the same length"):
        advantages([0, 1], [0.0], 0.99, 0.95)


def test_normalized_advantages_and_those_that_are_all_equal():
    shown = normalized(np.array([1.0, 2.0, 6.0]))
    assert shown.mean() == pytest.approx(0) and shown.std() == pytest.approx(1)
    assert not normalized(np.full(5, 0.7)).any()
