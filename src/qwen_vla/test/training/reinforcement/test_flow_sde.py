# SPDX-License-Identifier: Apache-2.0
"""The stochastic step: it keeps the flow's marginals, and its log-probability is that of a normal distribution."""

import numpy as np
import pytest
import torch
from comparison import assert_alike
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qwen_vla.model.flow_matching import euler_integrate, tau_grid
from qwen_vla.training.reinforcement.flow_sde import Noise, draw_noise, log_probability, sample, transition

CHUNKS = 60_000
MEAN, SPREAD = 0.7, 0.4  # of the clean data, a normal distribution


def marginal(tau, spread=SPREAD):
    """Mean and standard deviation of Y_τ where Y₀ ~ N(MEAN, spread²)."""
    return (1 - tau) * MEAN, ((1 - tau) ** 2 * spread**2 + tau**2) ** 0.5


def field(tau, spread=SPREAD):
    """The exact velocity v(y) = E[Y₁ − Y₀ | Y_τ = y] of that data: linear regression of Y₁ − Y₀ on Y_τ."""
    mean, deviation = marginal(tau, spread)
    slope = (tau - (1 - tau) * spread**2) / deviation**2
    return lambda y: -MEAN + slope * (y - mean)


def moments(start_mean, start_variance, times, noise_level, stochastic, spread):
    """Mean and variance along the grid, exactly: every step is affine in y, so three evaluations say all of it."""
    mean, variance = start_mean, start_variance
    for index, (tau, next_tau) in enumerate(zip(times[:-1], times[1:], strict=True)):
        y = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1)
        level = noise_level if stochastic(index) else 0.0
        after, std = transition(y, field(float(tau), spread)(y), tau, next_tau, level)
        offset, slope = after[0].item(), (after[1] - after[0]).item()
        mean, variance = slope * mean + offset, slope**2 * variance + std.item() ** 2
        yield float(next_tau), mean, variance**0.5


def doubles(steps):
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("noise_level", [0.3, 0.7, 1.0])
def test_in_small_steps_the_sde_has_the_marginals_of_the_ode_at_every_time(noise_level):
    for tau, mean, deviation in moments(0, 1, doubles(2000), noise_level, lambda i: True, SPREAD):
        truth = marginal(tau)
        assert mean == pytest.approx(truth[0], abs=1e-6) and deviation == pytest.approx(truth[1], rel=5e-3), tau


def test_the_error_of_the_marginals_is_of_first_order_as_euler_s():
    errors = []
    for steps in (100, 200, 400):
        _, _, deviation = list(moments(0, 1, doubles(steps), 1.0, lambda i: True, SPREAD))[-1]
        errors.append(abs(deviation - SPREAD))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1) and errors[1] / errors[2] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("drawn", range(3))
def test_a_policy_that_is_certain_keeps_its_marginals_even_in_four_steps(drawn):
    for tau, mean, deviation in moments(0, 1, doubles(4), 1.0, lambda i: i == drawn, spread=0.0):
        truth = marginal(tau, spread=0.0)
        assert mean == pytest.approx(truth[0], abs=1e-9) and deviation == pytest.approx(truth[1], abs=1e-9)


def test_one_stochastic_step_among_few_changes_the_chunks_less_than_euler_s_own_error():
    """4 steps, one of them random: the end's distribution beside that of the ODE in 4 steps and of the data."""
    noise = drawn_noise(CHUNKS, 4, seed=0)
    chunks, _ = sample(analytic, noise, 4, noise_level=0.5)
    euler, _ = sample(analytic, noise, 4, noise_level=0.0)
    assert chunks.mean() == pytest.approx(MEAN, abs=0.01) and euler.mean() == pytest.approx(MEAN, abs=0.01)
    assert abs(chunks.std() - euler.std()) < abs(euler.std() - SPREAD)


def test_small_steps_are_flow_grpo_s_sde():
    """Drift v + σ²/(2τ)·Ŷ₁ and noise σ²Δ with σ² = 2η²·τ/(1−τ) (Euler–Maruyama), up to O(Δ²)."""
    tau, delta, level = 0.6, 1e-5, 0.8
    y = torch.tensor([[[0.3, -1.2]]], dtype=torch.float64)
    velocity = field(tau)(y)
    mean, std = transition(y, velocity, tau, tau - delta, level)
    variance = 2 * level**2 * tau / (1 - tau)
    drift = velocity + variance / (2 * tau) * (y + (1 - tau) * velocity)
    assert torch.allclose((y - mean) / delta, drift, rtol=1e-3)
    assert std.item() ** 2 / delta == pytest.approx(variance, rel=1e-3)


def analytic(y, index, steps=4):
    return field(float(tau_grid(steps)[index]))(y)


def drawn_noise(count, steps, seed, shape=(2, 3)):
    generator = torch.Generator().manual_seed(seed)
    initial, fresh = torch.randn(2, count, *shape, generator=generator)
    return Noise(initial, fresh, torch.randint(steps - 1, (count,), generator=generator))


def test_without_noise_level_it_is_euler_s_method():
    noise = drawn_noise(50, 4, seed=1)
    chunks, _ = sample(analytic, noise, 4, noise_level=0.0)
    assert torch.allclose(chunks, euler_integrate(analytic, noise.initial, 4), atol=1e-6)


def test_temperature_scales_the_distribution_around_its_mean():
    noise = drawn_noise(CHUNKS, 4, seed=2)
    wide, _ = sample(analytic, noise, 4, 0.5, temperature=1.0)
    narrow, _ = sample(analytic, noise, 4, 0.5, temperature=0.6)
    assert torch.allclose(narrow - MEAN, 0.6 * (wide - MEAN), atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_stored_step_is_the_one_that_was_taken_and_its_noise_is_found_again(temperature):
    steps, noise = 4, drawn_noise(200, 4, seed=3)
    _, taken = sample(analytic, noise, steps, 0.5, temperature)
    assert torch.equal(taken.step, noise.step) and set(taken.step.tolist()) == {0, 1, 2}
    grid = tau_grid(steps)
    for index in range(3):
        rows = taken.step == index
        noisy = taken.noisy[rows]
        mean, std = transition(noisy, analytic(noisy, index), grid[index], grid[index + 1], 0.5)
        fresh = (taken.following[rows] - mean) / (temperature * std)
        assert torch.allclose(fresh, noise.fresh[rows], atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 2.0), st.floats(0.1, 1.0))
def test_log_probability_is_the_sum_of_normal_log_densities_under_the_mask(seed, scale, share):
    rng = np.random.default_rng(seed)
    following, mean = rng.normal(size=(2, 3, 4, 5))
    std = scale * rng.uniform(0.5, 2, size=(3, 1, 1))
    mask = rng.random((3, 4, 5)) < share
    found = log_probability(*map(torch.from_numpy, (following, mean, std, mask)))
    truth = (stats.norm.logpdf(following, mean, std) * mask).sum(axis=(1, 2))
    assert np.allclose(found, truth, rtol=1e-4, atol=1e-3)


def test_what_is_masked_contributes_nothing_whatever_it_is():
    following, mean = torch.randn(2, 2, 4, 5)
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[:, :3, :2] = True
    std = torch.full((2, 1, 1), 0.3)
    reference = log_probability(following, mean, std, mask)
    following[:, 3:], following[:, :, 2:], mean[:, 3:] = torch.nan, torch.inf, 1e30
    assert_alike(log_probability(following, mean, std, mask), reference)


@given(st.integers(2, 20), st.floats(0.01, 1.0))
def test_every_step_but_the_last_is_stochastic_and_none_has_more_noise_than_its_time(steps, level):
    grid = doubles(steps)
    y = torch.zeros(steps, 1, 1, dtype=torch.float64)
    _, std = transition(y, y, grid[:-1], grid[1:], level)
    std = std.flatten()
    assert (std[:-1] > 0).all() and std[-1] == 0 and (std <= grid[1:]).all()


def test_noise_depends_on_the_generator_alone():
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together, alone = draw_noise((2, 3), 4, generators(5, 6)), draw_noise((2, 3), 4, generators(6))
    for one, other in zip(vars(together).values(), vars(alone).values(), strict=True):
        assert torch.equal(one[1], other[0])


def test_one_euler_step_leaves_nothing_to_draw():
    with pytest.raises(ValueError, match="at least 2"):
        draw_noise((2, 3), 1, [torch.Generator()])
