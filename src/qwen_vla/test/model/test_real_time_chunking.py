# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: weights, guidance, clean prefixes, and the remainder of a chunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison import assert_alike, differ
from hypothesis import given
from hypothesis import strategies as st
from micro import CHANNELS, build, micro_config, pictures
from scipy.spatial.transform import Rotation

from embodiment_descriptions import ActionLayout, ControlMode, delta_from_poses, pose_from_delta
from embodiment_descriptions.actions import arm_channel
from qwen_vla import Observation, Policy
from qwen_vla.model.flow_matching import euler_integrate
from qwen_vla.model.real_time_chunking import (
    SCHEDULES,
    Continuation,
    anchor_motion,
    consumed_steps,
    delay_steps,
    guidance_weight,
    guided,
    prefix_weights,
    reanchored,
    remainder,
)
from qwen_vla.model.sample import Sample
from qwen_vla.policies.latency import LatencyEstimate

PROMPT = "pick up the red cube"


# --- weights along the horizon ----------------------------------------------------------------------------------------


def test_weights_of_the_published_example():
    """d = 2, and the previous chunk ends at 6 of 10 steps."""
    linear = np.array([1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0])
    np.testing.assert_allclose(prefix_weights(2, 4, 10, "linear"), linear, atol=1e-7)
    exponential = linear * (np.exp(linear) - 1) / (np.e - 1)
    np.testing.assert_allclose(prefix_weights(2, 4, 10, "exponential"), exponential, atol=1e-7)
    assert prefix_weights(2, 4, 10, "ones").tolist() == [1] * 6 + [0] * 4
    assert prefix_weights(2, 4, 10, "zeros").tolist() == [0] * 10


@given(st.data())
def test_weights_fall_from_the_delay_to_the_end_of_the_left_over(data):
    horizon = data.draw(st.integers(1, 50))
    delay = data.draw(st.integers(0, horizon // 2))
    every = data.draw(st.integers(delay, horizon - delay))
    left = data.draw(st.integers(0, horizon))
    for schedule in SCHEDULES[:3]:
        weights = prefix_weights(delay, every, horizon, schedule, left)
        end = max(delay, min(horizon - every, left))
        assert (weights[:delay] == 1).all() and (weights[end:] == 0).all() and (weights[delay:end] > 0).all()
        assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize(("delay", "every"), [(3, 2), (4, 13), (9, 9), (-1, 4)])
def test_delay_and_horizons_must_fit_each_other(delay, every):
    with pytest.raises(
        ValueError, match=f"got delay {delay}, execution horizon {every}, horizon 16; speed up inference"
    ):
        Continuation(torch.zeros(1, 16, 4), delay, every)


@pytest.mark.parametrize("fields", [{"schedule": "cubic"}, {"variant": "hard"}, {"max_guidance_weight": -1.0}])
def test_unknown_options_are_refused(fields):
    with pytest.raises(ValueError, match="cubic|hard|-1"):
        Continuation(torch.zeros(1, 16, 4), 2, 4, **fields)


# --- guidance ---------------------------------------------------------------------------------------------------------


def gaussian_velocity(y, tau, spread):
    """Velocity (noise − clean) of the exact flow between N(0, spread²) and N(0, 1)."""
    clean = (1 - tau) * spread**2 / ((1 - tau) ** 2 * spread**2 + tau**2) * y
    return (y - clean) / tau


def test_guidance_equals_the_published_formula_in_its_own_time():
    """The paper runs from noise at t = 0 to data at t = 1, with a velocity of the other sign (eq. 2–4)."""
    rng = np.random.default_rng(0)
    spread, previous = np.float64([[0.3, 1.0], [2.0, 0.7], [1.0, 1.0]]), rng.normal(size=(3, 2))
    start, steps, bound = rng.normal(size=(3, 2)), 10, 10.0
    weights = prefix_weights(1, 1, 3, "linear").astype(float)[:, None]

    y = start.copy()
    for i in range(steps):
        t = i / steps
        tau = 1 - t
        gain = (1 - tau) * spread**2 / ((1 - tau) ** 2 * spread**2 + tau**2)  # ∂Â₁/∂y, diagonal here
        radius = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
        strength = bound if t == 0 else min(bound, (1 - t) / (t * radius))
        y = y + (1 / steps) * (-gaussian_velocity(y, tau, spread) + strength * gain * weights * (previous - gain * y))

    times = [1 - i / steps for i in range(steps + 1)]
    continuation = Continuation(torch.from_numpy(previous)[None], 1, 1, schedule="linear")
    width, everywhere = torch.from_numpy(spread), torch.ones(1, 3, 2, dtype=torch.bool)
    field = guided(lambda x, i: gaussian_velocity(x, times[i], width), times, continuation, everywhere)
    ours = euler_integrate(field, torch.from_numpy(start)[None], steps)[0].numpy()
    np.testing.assert_allclose(ours, y, atol=1e-6)


def test_guidance_weight_is_bounded_and_symmetric():
    assert guidance_weight(1.0, 10) == guidance_weight(0.0, 10) == guidance_weight(0.99, 10) == 10
    assert guidance_weight(0.5, 10) == pytest.approx(2.0)
    assert guidance_weight(0.3, 10) == pytest.approx(guidance_weight(0.7, 10))


@pytest.fixture(scope="module")
def setting(micro):
    """Model, encoding, mask of 7 of 10 channels, noise, and a previous chunk."""
    model, processor = micro
    encoding = model.encode(**processor([PROMPT], pictures(1)))
    mask = torch.zeros(1, 4, 10, dtype=torch.bool)
    mask[..., :7] = True
    generator = torch.Generator().manual_seed(0)
    previous = torch.rand(mask.shape, generator=generator) * 2 - 1
    return model, encoding, mask, torch.randn(mask.shape, generator=generator), previous


@pytest.mark.parametrize("steps", [4, 10])
@pytest.mark.parametrize("delay", [0, 2])
def test_zero_weights_are_plain_sampling(setting, steps, delay):
    model, encoding, mask, noise, previous = setting
    plain = model.sample_actions(encoding, mask, steps, noise=noise)
    continuation = Continuation(previous, delay, 2, schedule="zeros")
    assert_alike(model.sample_actions(encoding, mask, steps, noise=noise, continuation=continuation), plain)


@pytest.mark.parametrize("steps", [4, 10])
def test_full_weights_reproduce_the_previous_chunk(setting, steps):
    model, encoding, mask, noise, previous = setting
    wanted = torch.where(mask, previous, 0.0)
    plain = model.sample_actions(encoding, mask, steps, noise=noise)
    continuation = Continuation(previous, 0, 0, schedule="ones")
    near = model.sample_actions(encoding, mask, steps, noise=noise, continuation=continuation)
    assert (near - wanted).abs().max() < 0.15 * (plain - wanted).abs().max()
    assert (near[~mask] == 0).all() and not near.requires_grad


def test_guidance_binds_early_steps_and_leaves_late_ones_free(setting):
    model, encoding, mask, noise, previous = setting
    plain = model.sample_actions(encoding, mask, 10, noise=noise)
    near = model.sample_actions(encoding, mask, 10, noise=noise, continuation=Continuation(previous, 1, 2))
    error, before = ((x - previous)[0, :, :7].abs().mean(-1) for x in (near, plain))
    assert error[0] < 0.15 * before[0]
    assert (near - plain)[0, 3].abs().max() < 0.5 * (near - plain)[0, 0].abs().max()


def test_what_is_masked_in_the_previous_chunk_is_not_looked_at(setting):
    model, encoding, mask, noise, previous = setting
    for variant in ("guided", "prefix"):
        garbage = [Continuation(torch.where(mask, previous, x), 1, 2, variant=variant) for x in (0.0, torch.nan)]
        chunks = [model.sample_actions(encoding, mask, 4, noise=noise, continuation=c) for c in garbage]
        assert torch.isfinite(chunks[0]).all()
        assert_alike(chunks[1], chunks[0])


# --- clean prefixes ---------------------------------------------------------------------------------------------------


def test_sampling_keeps_a_prefix_and_the_rest_answers_to_it(setting):
    model, encoding, mask, noise, previous = setting

    def chunk(actions, delay):
        given = Continuation(actions, delay, 2, variant="prefix")
        return model.sample_actions(encoding, mask, 4, noise=noise, continuation=given)

    there, back = chunk(previous, 2), chunk(-previous, 2)
    assert torch.equal(there[0, :2, :7], previous[0, :2, :7])
    assert (there - back)[0, 2:, :7].abs().max() > 1e-4
    assert_alike(chunk(previous, 0), model.sample_actions(encoding, mask, 4, noise=noise))


def losses(model, encoding, actions, mask, prefix, noise, draws=1):
    tau = torch.linspace(0.3, 0.9, len(mask) * draws)
    return model.action_terms(encoding, actions, mask, tau, noise, draws, prefix_steps=prefix)


def test_loss_with_a_prefix(micro):
    model, processor = micro
    encoding = model.encode(**processor([PROMPT, "stop"], pictures(2)))
    mask = torch.zeros(2, 4, 10, dtype=torch.bool)
    mask[..., :7] = True
    torch.manual_seed(0)
    actions, noise = torch.rand(2, 4, 10), torch.randn(2, 4, 10)
    base = losses(model, encoding, actions, mask, torch.tensor([1, 3]), noise)
    # Nothing is learned from the prefix, and its noise is never seen …
    other = noise.clone()
    other[0, :1], other[1, :3] = torch.nan, torch.nan
    assert_alike(losses(model, encoding, actions, mask, torch.tensor([1, 3]), other).total, base.total)
    # … but the rest sees its actions.
    changed = actions.clone()
    changed[0, 0] += 3.0
    assert differ(losses(model, encoding, changed, mask, torch.tensor([1, 3]), noise).total, base.total)
    plain = losses(model, encoding, actions, mask, None, noise)
    assert_alike(losses(model, encoding, actions, mask, torch.tensor([0, 0]), noise).total, plain.total)
    assert losses(model, encoding, actions, mask, torch.tensor([4, 2]), noise).counted == 1


def test_training_and_sampling_show_a_prefix_alike(micro):
    """The velocity that the loss judges at τ = 1 is the one that sampling follows in its first step."""
    model, processor = micro
    encoding = model.encode(**processor([PROMPT], pictures(1)))
    mask = torch.ones(1, 4, 10, dtype=torch.bool)
    actions, noise = torch.rand(1, 4, 10), torch.randn(1, 4, 10)
    continuation = Continuation(actions, 2, 2, variant="prefix")
    sampled = model.sample_actions(encoding, mask, 1, noise=noise, continuation=continuation)
    velocity = (noise - sampled)[:, 2:]
    terms = model.action_terms(encoding, actions, mask, torch.ones(1), noise, prefix_steps=torch.tensor([2]))
    expected = (velocity - (noise - actions)[:, 2:]).square().mean()
    torch.testing.assert_close(terms.mean, expected, rtol=1e-4, atol=1e-6)


def test_a_trained_prefix_is_continued():
    """After some steps on ramps that start anywhere, the chunk goes on where its prefix ends."""
    model, processor = build(micro_config())
    torch.manual_seed(0)
    with torch.no_grad():
        encoding = model.encode(**processor(["go"]))
    batch = 32
    encoding = encoding.rows(torch.zeros(batch, dtype=torch.long))
    mask = torch.zeros(batch, 4, 10, dtype=torch.bool)
    mask[..., 0] = True

    def ramps():
        return torch.where(mask, (torch.rand(batch, 1, 1) * 1.4 - 0.7) + 0.1 * torch.arange(4.0)[:, None], 0.0)

    optimizer = torch.optim.Adam(model.action_expert.parameters(), lr=4e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model.action_loss(encoding, ramps(), mask, prefix_steps=torch.randint(0, 3, (batch,))).backward()
        optimizer.step()
    model.eval()
    wanted = ramps()
    with_prefix = model.sample_actions(encoding, mask, 10, continuation=Continuation(wanted, 2, 2, variant="prefix"))
    error = (with_prefix - wanted)[:, 2:, 0].abs().mean()
    without = (model.sample_actions(encoding, mask, 10) - wanted)[:, 2:, 0].abs().mean()
    assert error < 0.12 and error < 0.4 * without


# --- what is left of a chunk ------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(0, 30))
def test_the_left_over_is_filled_with_its_last_action(horizon, consumed):
    data = np.random.default_rng(0).normal(size=(horizon, 3))
    rest = remainder(data, consumed)
    real = max(0, horizon - consumed)
    assert rest.shape == data.shape
    assert (rest[:real] == data[consumed:]).all() and (rest[real:] == data[-1]).all()


def test_steps_behind_an_observation_follow_from_the_stamps():
    assert [consumed_steps(10**9, 10**9 + round(t * 1e9), 0.2) for t in (0, 0.19, 0.2, 0.61, 9)] == [0, 1, 1, 3, 45]
    with pytest.raises(ValueError, match="0.500 s older"):
        consumed_steps(10**9, 5 * 10**8, 0.2)
    with pytest.raises(ValueError, match="at least 0"):
        remainder(np.zeros((2, 2)), -1)


@given(st.integers(0, 30), st.integers(-2, 30))
def test_the_delay_is_the_estimate_but_never_more_than_was_executed(estimate, consumed):
    assert 0 <= delay_steps(estimate, consumed) == max(0, min(estimate, consumed))


def test_the_cold_first_call_is_left_out_of_the_estimate():
    latency = LatencyEstimate()
    assert latency.seconds is None and latency.steps(0.1) == 0
    latency.add(30.0)
    assert latency.seconds is None and latency.steps(0.1) == 0
    for milliseconds in range(1, 101):
        latency.add(milliseconds / 1000)
    assert latency.seconds == pytest.approx(np.percentile(np.arange(1, 101), 95) / 1000)
    assert latency.steps(0.05) == 2
    for _ in range(100):
        latency.add(0.01)
    assert latency.steps(0.05) == 1, "old times are forgotten"


def pose(rng):
    transform = np.eye(4)
    transform[:3, :3] = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    transform[:3, 3] = rng.uniform(-1, 1, 3)
    return transform


def deltas_of(*arms):
    names = [arm_channel(arm, name) for arm in arms for name in CHANNELS]
    return ActionLayout.parse(ControlMode.EEF_DELTA, names)


@given(st.integers(0, 2**31), st.sampled_from([("",), ("left", "right")]))
def test_reanchored_deltas_lead_to_the_same_poses(seed, arms):
    rng = np.random.default_rng(seed)
    layout = deltas_of(*arms)
    old, new = ({arm: pose(rng) for arm in arms} for _ in range(2))
    targets = {arm: np.stack([pose(rng) for _ in range(5)]) for arm in arms}
    grippers = rng.uniform(0, 1, (5, len(arms)))

    def chunk(anchors):
        parts = [(delta_from_poses(anchors[arm], targets[arm]), grippers[:, i, None]) for i, arm in enumerate(arms)]
        return np.concatenate([block for pair in parts for block in pair], axis=1)

    moved = reanchored(chunk(old), layout, anchor_motion(old, new))
    for i, arm in enumerate(arms):
        np.testing.assert_allclose(pose_from_delta(new[arm], moved[:, 7 * i : 7 * i + 6]), targets[arm], atol=1e-5)
        np.testing.assert_allclose(moved[:, 7 * i + 6], grippers[:, i], atol=1e-6)


def test_an_arm_without_a_motion_is_refused():
    with pytest.raises(ValueError, match="no motion of arm ''"):
        reanchored(np.zeros((2, 7)), deltas_of(""), {"left": np.eye(4)})


# --- the policy -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(checkpoint):
    policy = Policy.from_pretrained(checkpoint, euler_steps=10)
    policy.model.config.prefix_steps = 2
    return policy


def observation(stamp_s=0.0, seed=0, **fields):
    return Observation(pictures(1, seed)[0], PROMPT, stamp_ns=round(stamp_s * 1e9), **fields)


@pytest.mark.parametrize("variant", ["guided", "prefix"])
def test_a_chunk_continues_the_previous_one(policy, variant):
    """The period is 0.2 s: one step lies behind the second observation, and the tip stands still."""
    at = {"tip_poses": {"": np.eye(4)}}
    previous = policy.infer(observation(**at), seed=1)
    now = observation(0.2, seed=5, **at)
    chunk = policy.continue_chunk(now, previous, 1, 2, schedule="ones", variant=variant, seed=2)
    plain = policy.infer(now, seed=2).data
    rest = previous.data[1:3]
    scale = np.arange(1.0, 8.0)
    plain_channels = [0, 1, 2, 6]  # rotations are random up to 6 rad here, and come back as less than a turn
    error, before = (np.abs((x[:2] - rest) / scale)[0, plain_channels].max() for x in (chunk.data, plain))
    assert error < (0.2 * before if variant == "guided" else 1e-5)
    assert chunk.inference_delay == 1 and chunk.stamp_ns == now.stamp_ns


def test_a_prefix_longer_than_trained_is_refused(policy, monkeypatch):
    """A model that never saw a clean prefix would follow whatever it makes of one."""
    previous = policy.infer(observation(), seed=1)
    motion = {"": np.eye(4)}
    monkeypatch.setattr(policy.model.config, "prefix_steps", 1)
    policy.continue_chunk(observation(0.2), previous, 1, 2, variant="prefix", motion=motion)
    for trained, told in ((1, "trained for 1"), (0, "trained for none")):
        monkeypatch.setattr(policy.model.config, "prefix_steps", trained)
        with pytest.raises(ValueError, match=f"prefix of 2 steps: it was {told} .*variant 'guided'.*prefix_steps: 2"):
            policy.continue_chunk(observation(0.2), previous, 2, 2, variant="prefix", motion=motion)
    policy.continue_chunk(observation(0.2), previous, 2, 2, variant="guided", motion=motion)


def test_end_effector_deltas_are_re_anchored_or_refused(policy):
    """The statistics' range is n for channel n; the old plan goes 0.5 ahead, of which the tip has done 0.2."""
    previous = policy.infer(observation(), seed=1)
    data = np.zeros((4, 7), np.float32)
    data[:, 0] = 0.5
    previous = replace(previous, data=data)
    with pytest.raises(ValueError, match="re-anchored"):
        policy.continue_chunk(observation(0.2), previous, 1, 2)
    motion = np.eye(4)
    motion[0, 3] = -0.2
    chunk = policy.continue_chunk(observation(0.2), previous, 1, 2, variant="prefix", motion={"": motion})
    np.testing.assert_allclose(chunk.data[0, :3], [0.3, 0, 0], atol=1e-5)
    then, now = (observation(t, tip_poses={"": np.diag([1.0, 1, 1, 1]) + _ahead(x)}) for t, x in ((0, 0.0), (0.2, 0.2)))
    previous = replace(previous, tip_poses=then.tip_poses)
    again = policy.continue_chunk(now, previous, 1, 2, variant="prefix")
    np.testing.assert_allclose(again.data[0, :3], [0.3, 0, 0], atol=1e-5)


def _ahead(x):
    shift = np.zeros((4, 4))
    shift[0, 3] = x
    return shift


def test_other_control_modes_need_no_anchor(policy, monkeypatch):
    monkeypatch.setattr(policy, "embodiment", replace(policy.embodiment, control_mode="joint_position"))
    previous = policy.infer(observation(), seed=1)
    span = np.arange(1.0, 8.0)  # of the fixture's statistics; smoothing may lead a row beyond it, and the model cannot
    previous = replace(previous, data=np.clip(previous.data, -span, span))
    chunk = policy.continue_chunk(observation(0.4), previous, 2, 2, variant="prefix")
    np.testing.assert_allclose(chunk.data[:2], previous.data[2:], atol=1e-5)
    by_number = policy.continue_chunk(observation(0.4), previous, 2, 2, variant="prefix", consumed=1)
    np.testing.assert_allclose(by_number.data[:2], previous.data[1:3], atol=1e-5)


def test_a_chunk_that_is_used_up_is_not_continued(policy):
    at = {"tip_poses": {"": np.eye(4)}}
    previous = policy.infer(observation(**at), seed=1)
    late = observation(0.8, **at)
    chunk = policy.continue_chunk(late, previous, 1, 2, seed=3)
    assert np.array_equal(chunk.data, policy.infer(late, seed=3).data) and chunk.inference_delay == 0


@pytest.mark.parametrize(
    ("seconds", "delay"), [([], 0), ([30.0], 0), ([30.0, 0.15], 1), ([30.0, 0.25], 2), ([0, 9], 2)]
)
def test_delay_is_estimated_from_earlier_calls_and_fits(policy, monkeypatch, seconds, delay):
    at = {"tip_poses": {"": np.eye(4)}}
    previous = policy.infer(observation(**at))
    monkeypatch.setattr(policy, "latency", LatencyEstimate())
    for each in seconds:
        policy.latency.add(each)
    assert policy.continue_chunk(observation(0.2, **at), previous).inference_delay == delay
    with pytest.raises(ValueError, match="got delay 3, execution horizon 2, horizon 4"):
        policy.continue_chunk(observation(0.2, **at), previous, inference_delay=3)


def test_chunks_of_others_are_refused(policy):
    previous = policy.infer(observation(), seed=1)
    for other in ({"embodiment": "spot"}, {"data": previous.data[:2]}):
        with pytest.raises(ValueError, match="cannot be continued as one of 'widowx'"):
            policy.continue_chunk(observation(0.2), replace(previous, **other))
    with pytest.raises(ValueError, match="in 'joint_position' cannot be continued in 'eef_delta'"):
        policy.continue_chunk(observation(0.2), replace(previous, control_mode="joint_position"))


def test_a_model_that_has_acted_can_still_be_trained(checkpoint):
    policy = Policy.from_pretrained(checkpoint)
    policy.infer(observation())
    model, processor = policy.model.train(), policy.processor
    batch = processor.collate([Sample(PROMPT, pictures(1)[0], actions=np.zeros((4, 7)))])
    model(**batch).loss.backward()
    assert model.vlm.model.visual.pos_embed.weight.grad is not None
