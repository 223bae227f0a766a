# SPDX-License-Identifier: Apache-2.0
"""Chunks of joint positions: relative to what was measured while they are learned, absolute and smooth on the robot."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import pictures

from embodiment_descriptions import load_robot
from qwen_vla import Observation, Policy, Quantiles, QwenVLAProcessor
from qwen_vla.data.robot.robot_source import embodiment_info
from qwen_vla.model.joint_chunks import MARGIN, OVERSHOOT, smoothed, within_limits
from qwen_vla.training.reinforcement.actor import Actor, Sampling

ALOHA = load_robot("aloha")
LAYOUT = ALOHA.layout
CHANNELS, ARMS, GRIPPERS = LAYOUT.names, LAYOUT.joints, LAYOUT.grippers
TIMES = np.arange(ALOHA.chunk_size) * ALOHA.period


def accelerations(chunk):
    return np.abs(np.diff(chunk[:, ARMS], 2, axis=0)) / ALOHA.period**2


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_smoothing_leaves_constant_accelerations_alone(coefficients):
    chunk = np.polyval(coefficients, TIMES)[:, None] * np.ones(len(CHANNELS))
    np.testing.assert_allclose(smoothed(chunk, LAYOUT, ALOHA.period), chunk, atol=1e-6)


@given(st.integers(0, 1000))
def test_smoothing_brings_drawn_noise_below_the_limit_of_the_arms_and_keeps_the_way(seed):
    way = 0.3 * np.sin(2 * np.pi * 0.5 * TIMES)[:, None] * np.ones(len(CHANNELS))
    noisy = way + np.random.default_rng(seed).normal(scale=0.01, size=way.shape)
    smooth = smoothed(noisy, LAYOUT, ALOHA.period)
    limit = ALOHA.safety.max_joint_acceleration
    assert accelerations(noisy).max() > limit > accelerations(smooth).max()
    assert np.abs(smooth - way)[:, ARMS].max() < np.abs(noisy - way)[:, ARMS].max()
    np.testing.assert_array_equal(smooth[:, GRIPPERS], noisy[:, GRIPPERS])


def test_what_is_being_executed_already_stays():
    noisy = np.random.default_rng(0).normal(scale=0.01, size=(50, len(CHANNELS)))
    smooth = smoothed(noisy, LAYOUT, ALOHA.period, fixed=5)
    np.testing.assert_allclose(smooth[:5], noisy[:5], atol=1e-6)
    assert accelerations(smooth[6:]).max() < ALOHA.safety.max_joint_acceleration


def test_slow_chunks_are_hardly_smoothed():
    noisy = np.random.default_rng(0).normal(size=(16, len(CHANNELS)))
    np.testing.assert_allclose(smoothed(noisy, LAYOUT, 0.5), noisy, atol=1e-3)
    assert smoothed(noisy[:3], LAYOUT, 0.02) is not noisy and len(smoothed(noisy[:3], LAYOUT, 0.02)) == 3


def test_a_little_beyond_a_limit_is_at_it_and_much_beyond_is_left_to_the_gate():
    limits = embodiment_info(ALOHA).joint_limits
    assert set(limits) == {CHANNELS[k] for k in ARMS}
    lower, upper = (np.array([limits[CHANNELS[k]][end] for k in ARMS]) for end in (0, 1))
    chunk = np.full((5, len(CHANNELS)), 9.0)
    little, much = 0.9 * OVERSHOOT, 1.1 * OVERSHOOT
    chunk[:, ARMS] = away = [upper + little, upper + much, lower - little, lower - much, 0 * upper]
    result = within_limits(chunk, CHANNELS, limits)
    np.testing.assert_allclose(result[:, ARMS], [upper - MARGIN, away[1], lower + MARGIN, away[3], away[4]])
    assert (result[:, GRIPPERS] == 9.0).all() and not embodiment_info(load_robot("widowx")).joint_limits


# --- in a policy ------------------------------------------------------------------------------------------------------

NAMES = ("waist", "shoulder", "finger")
JOINTS = ("waist", "shoulder", "gripper")


@pytest.fixture(scope="module")
def relative(checkpoint):
    """The micro model as the policy of an arm with two joints and a gripper, whose actions are relative."""
    processor = QwenVLAProcessor.from_pretrained(checkpoint)
    processor.normalization["arm"] = Quantiles(-np.ones(3), np.ones(3), JOINTS)
    processor.normalization["arm.state"] = Quantiles(-np.ones(3), np.ones(3), NAMES)
    processor.embodiments["arm"] = dataclasses.replace(
        processor.embodiments["widowx"],
        name="arm",
        channel_names=JOINTS,
        control_mode="joint_position",
        dataset="arm",
        relative_actions=True,
    )
    model = Policy.from_pretrained(checkpoint, embodiment="widowx").model
    model.config.prefix_steps = 2
    return Policy(model, processor, "arm")


def look(state):
    return Observation(pictures(1)[0], "pick up the red cube", state=state)


def test_a_policy_adds_the_measured_joints(relative):
    assert relative.state_names == NAMES
    at_zero, elsewhere = (relative.infer(look(np.array(state)), seed=0).data for state in ([0, 0, 0], [0.5, -0.25, 1]))
    np.testing.assert_allclose(elsewhere - at_zero, np.tile([0.5, -0.25, 0], (4, 1)), atol=1e-6)


def test_a_policy_ends_where_a_joint_does(relative):
    free = relative.infer(look(np.zeros(3)), seed=0).data
    limit = free[:, 0].max() - 0.5 * OVERSHOOT
    processor = relative.processor
    info = processor.embodiments["arm"]
    processor.embodiments["arm"] = dataclasses.replace(
        info, joint_limits={"waist": (-9.0, float(limit)), "shoulder": (-9.0, 9.0)}
    )
    try:
        bounded = Policy(relative.model, processor, "arm").infer(look(np.zeros(3)), seed=0).data
    finally:
        processor.embodiments["arm"] = info
    np.testing.assert_allclose(bounded[:, 0], np.minimum(free[:, 0], limit - MARGIN), atol=1e-6)
    np.testing.assert_allclose(bounded[:, 1:], free[:, 1:], atol=1e-6)


def test_a_gripper_joint_that_is_called_like_its_channel_is_no_origin(relative):
    """The channel is a share and the joint an angle: adding one to the other would mean nothing."""
    processor = relative.processor
    statistics = processor.normalization["arm.state"]
    processor.normalization["arm.state"] = Quantiles(statistics.q01, statistics.q99, ("waist", "shoulder", "gripper"))
    try:
        policy = Policy(relative.model, processor, "arm")
        shut, wide = (policy.infer(look(np.array([0.0, 0.0, angle])), seed=0).data for angle in (0.0, 1.5))
    finally:
        processor.normalization["arm.state"] = statistics
    np.testing.assert_array_equal(shut, wide)


@pytest.fixture
def turning(relative):
    """The same policy, of an arm whose waist turns without end."""
    processor = relative.processor
    info = processor.embodiments["arm"]
    limits = {"joint_limits": {"shoulder": (-9.0, 9.0)}, "continuous_joints": ("waist",)}
    processor.embodiments["arm"] = dataclasses.replace(info, **limits)
    yield Policy(relative.model, processor, "arm")
    processor.embodiments["arm"] = info


def test_a_continuous_joint_is_moved_from_where_it_is_measured(turning):
    chunks = [turning.infer(look(np.array([waist, 0.0, 0.0])), seed=0).data for waist in (np.pi, -np.pi)]
    np.testing.assert_allclose(chunks[0] - chunks[1], np.tile([2 * np.pi, 0.0, 0.0], (4, 1)), atol=1e-6)
    assert np.abs(chunks[0][:, 0] - np.pi).max() <= 1.0, "within the statistics, however it is measured"


def test_a_chunk_goes_on_when_a_continuous_joint_passes_the_half_turn(turning):
    """Planned toward 3.3 rad, which a driver measures as 3.3 - 2 pi: the same motion, another full turn away."""
    ahead = np.full((4, 3), 0.2, np.float32)
    ahead[:, 0] = 3.3
    previous = dataclasses.replace(turning.infer(look(np.array([3.0, 0.0, 0.0])), seed=0), data=ahead)
    states = [np.array([waist, 0.0, 0.0]) for waist in (3.2, 3.2 - 2 * np.pi)]
    here, there = (
        turning.continue_chunk(look(state), previous, 2, 2, consumed=0, variant="prefix", seed=1).data
        for state in states
    )
    np.testing.assert_allclose(here[:2, 0], 3.3, atol=1e-5)
    np.testing.assert_allclose(here - there, np.tile([2 * np.pi, 0.0, 0.0], (4, 1)), atol=1e-5)


def test_a_chunk_is_continued_from_where_the_robot_is_now(relative):
    """The remainder of an absolute chunk is what is executed, wherever the robot is at the next observation."""
    previous = dataclasses.replace(relative.infer(look(np.zeros(3)), seed=0), data=np.full((4, 3), 0.6, np.float32))
    moved = Observation(pictures(1)[0], "pick up the red cube", 0, np.array([0.5, 0.5, 0.0]))
    continued = relative.continue_chunk(moved, previous, 2, 2, consumed=0, seed=1)
    free = relative.infer(moved, seed=1)
    away, freely = (np.abs(chunk.data[:2, :2] - 0.6).max() for chunk in (continued, free))
    assert away < 0.5 * freely


@pytest.mark.parametrize("state", [None, np.zeros(2), np.array([0, np.nan, 0]), np.zeros((1, 3))])
def test_without_a_whole_state_nothing_is_inferred(relative, state):
    previous = relative.infer(look(np.zeros(3)), seed=0)
    for infer in (relative.infer, lambda seen: relative.continue_chunk(seen, previous, 2, 2, consumed=0)):
        with pytest.raises(ValueError, match="waist, shoulder, finger"):
            infer(look(state))


def test_a_checkpoint_without_statistics_of_the_state_is_refused(relative):
    processor = relative.processor
    kept = processor.normalization.pop("arm.state")
    try:
        with pytest.raises(ValueError, match=r"statistics 'arm.state' are missing"):
            Policy(relative.model, processor, "arm")
        processor.normalization["arm.state"] = dataclasses.replace(kept, channel_names=())
        with pytest.raises(ValueError, match="do not name"):
            Policy(relative.model, processor, "arm")
    finally:
        processor.normalization["arm.state"] = kept


def test_reinforcement_judges_the_chunks_that_are_deployed(relative, monkeypatch):
    """Relative, smoothed and limited joints: without exploration, of the same noise, they are the policy's."""
    monkeypatch.setattr(relative.model.config, "noise_temperature", 0.6)
    actor, state = Actor(relative, Sampling(1.0, 0.5)), np.array([0.3, -0.2, 0.1])
    seen = actor.see(look(state).images, state, look(state).instruction)
    chunks, _ = actor.decide([seen], [torch.Generator().manual_seed(5)], Sampling(temperature=0.6, noise_level=0.0))
    deployed = relative.infer(look(state), seed=5).data
    np.testing.assert_allclose(chunks[0], deployed, atol=1e-5)
    raw = relative.statistics.unnormalize(np.clip(relative.statistics.normalize(deployed), -1, 1))
    assert np.abs(raw - deployed).max() > 0.05, "or the origin of the chunk shows nothing"
