# SPDX-License-Identifier: Apache-2.0
"""Flow matching as in §2.5: loss, path, density of τ, Euler integration."""

import math

import numpy as np
import pytest
import torch
from comparison import assert_alike
from scipy import stats

from qwen_vla.model.flow_matching import euler_integrate, flow_matching_loss, interpolate, sample_tau, tau_grid


def reference_loss(predicted, target, mask):
    """The two-level mean, written as its definition: loops over samples, channels and steps."""
    batch = []
    for n in range(predicted.shape[0]):
        channels = []
        for k in range(predicted.shape[2]):
            steps = [h for h in range(predicted.shape[1]) if mask[n, h, k]]
            if steps:
                channels.append(sum((predicted[n, h, k] - target[n, h, k]) ** 2 for h in steps) / len(steps))
        if channels:
            batch.append(sum(channels) / len(channels))
    return sum(batch) / len(batch)


@pytest.fixture
def ragged():
    rng = np.random.default_rng(3)
    predicted, target = rng.normal(size=(2, 5, 4, 6))
    mask = np.zeros((5, 4, 6), dtype=bool)
    mask[0, :4, :6] = mask[1, :2, :3] = mask[2, :1, :1] = mask[3, 1:3, 2:4] = True  # sample 4 has none
    return predicted, target, mask


def test_loss_equals_the_numpy_reference(ragged):
    predicted, target, mask = ragged
    loss = flow_matching_loss(*(torch.from_numpy(x) for x in (predicted, target, mask))).mean
    assert loss.item() == pytest.approx(reference_loss(predicted, target, mask), rel=1e-12)


def test_loss_is_not_the_plain_mean(ragged):
    predicted, target, mask = ragged
    assert abs(reference_loss(predicted, target, mask) - ((predicted - target)[mask] ** 2).mean()) > 0.01


@pytest.mark.parametrize("garbage", [1e6, math.inf, math.nan])
def test_masked_entries_influence_neither_loss_nor_gradient(ragged, garbage):
    predicted, target, mask = (torch.from_numpy(x) for x in ragged)
    dirty = torch.where(mask, predicted, garbage).requires_grad_()
    loss = flow_matching_loss(dirty, torch.where(mask, target, -garbage), mask).mean
    loss.backward()
    assert_alike(loss, flow_matching_loss(predicted, target, mask).mean)
    assert (dirty.grad[~mask] == 0).all() and (dirty.grad[mask] != 0).all()


def test_nothing_active_costs_nothing():
    zeros = torch.zeros(2, 4, 3)
    assert flow_matching_loss(zeros + 1, zeros, zeros).mean.item() == 0.0


def test_path_is_clean_at_zero_and_noise_at_one():
    clean, noise = torch.randn(2, 3, 4, 5).unbind(0)
    assert torch.equal(interpolate(clean, noise, torch.zeros(3)), clean)
    assert torch.equal(interpolate(clean, noise, torch.ones(3)), noise)
    middle = interpolate(clean, noise, torch.full((3,), 0.25))
    torch.testing.assert_close(middle, 0.75 * clean + 0.25 * noise)


DENSITIES = {
    ("beta", "clean"): lambda t: 1 - stats.beta(1.5, 1.0).cdf(1 - t / 0.999),
    ("beta", "noise"): lambda t: stats.beta(1.5, 1.0).cdf(1 - (1 - t) / 0.999),
    ("logit_normal", "clean"): lambda t: stats.norm(-0.5, 0.8).cdf(np.log(t / (1 - t))),
    ("logit_normal", "noise"): lambda t: 1 - stats.norm(-0.5, 0.8).cdf(np.log((1 - t) / t)),
}


@pytest.mark.parametrize(("distribution", "direction"), DENSITIES)
def test_density_of_tau(distribution, direction):
    generator = torch.Generator().manual_seed(11)
    tau = sample_tau(20_000, distribution, direction, mean=-0.5, std=0.8, generator=generator).numpy()
    assert tau.min() >= 0.0 and tau.max() <= 1.0
    assert stats.kstest(tau, DENSITIES[distribution, direction]).pvalue > 1e-3
    other = DENSITIES[distribution, "noise" if direction == "clean" else "clean"]
    assert stats.kstest(tau, other).pvalue < 1e-9


def test_direction_names_the_dense_end():
    for direction, mean in (("clean", 0.4), ("noise", 0.6)):
        tau = sample_tau(20_000, "beta", direction, generator=torch.Generator().manual_seed(1))
        assert tau.mean() == pytest.approx(mean, abs=0.01)


def test_unknown_density_is_refused():
    with pytest.raises(ValueError, match="uniform"):
        sample_tau(1, "uniform")
    with pytest.raises(ValueError, match="sideways"):
        sample_tau(1, "beta", "sideways")


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_euler_is_exact_on_the_straight_field(steps):
    clean, noise = torch.randn(2, 3, 4, 5, dtype=torch.float64).unbind(0)
    torch.testing.assert_close(euler_integrate(lambda y, step: noise - clean, noise, steps), clean)


def test_euler_converges_to_the_analytic_solution_with_order_one():
    # dy/dτ = a·y + τ, so y(0) = (y(1) + 1/a + 1/a²)·exp(−a) − 1/a² on the way from τ = 1 to τ = 0.
    a, start = 1.7, torch.tensor([[[0.3, -2.0]]], dtype=torch.float64)
    exact = (start + 1 / a + 1 / a**2) * math.exp(-a) - 1 / a**2

    def error(steps):
        grid = tau_grid(steps).double()
        return (euler_integrate(lambda y, i: a * y + grid[i], start, steps) - exact).abs().max().item()

    assert error(400) < 5e-3
    assert error(200) / error(400) == pytest.approx(2.0, rel=0.05)


def test_euler_needs_a_step():
    with pytest.raises(ValueError, match="at least 1 step"):
        euler_integrate(lambda y, i: y, torch.zeros(1, 1, 1), 0)
