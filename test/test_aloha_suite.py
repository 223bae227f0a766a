# SPDX-License-Identifier: Apache-2.0
"""Recording, planning and holding of the bimanual suite."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from qwen_vla.data.formats.lerobot import Feature, shard_path
from qwen_vla.data.formats.lerobot_writer import Recording, write_shard
from qwen_vla.evaluation.episode import follow
from qwen_vla.suites import load_suite
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_sim.aloha.env import IMAGE_STEPS
from qwen_vla_sim.aloha.world import CAMERAS

EXECUTED = 25  # rows of a chunk


@pytest.fixture(scope="module")
def suite():
    return load_suite("aloha")


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env()
    env.render_size = (60, 80)
    yield env
    env.close()


@pytest.fixture(scope="module")
def recording(suite, env):
    return suite.demonstrate(env, 2)


@pytest.fixture(scope="module")
def start(suite, env):
    """An observation at home, and the chunk that stays there."""
    observation, _ = env.reset(seed=0)
    joints = observation["joints"].astype(float)
    row = np.concatenate([joints[:6], [0.0], joints[6:12], [0.0]])
    return observation, np.tile(row, (50, 1))


def test_recordings_have_the_columns_that_they_announce(suite, recording):
    sentence, frames, success = recording
    assert success and "tray" in sentence
    length = len(frames["action"])
    for name, (dtype, shape, _) in suite.features().items():
        assert len(frames[name]) == length, name
        if dtype == "image":
            assert frames[name][0].shape == shape and frames[name][0].dtype == np.uint8
        else:
            assert np.asarray(frames[name]).size == length * np.prod(shape), name
    info = suite.extra_info()
    named = [info["names"][i] for i in frames["annotation.objects"][0] if i >= 0]
    assert named[frames["annotation.object"][0]] in sentence


def test_a_picture_is_taken_every_fifth_frame_and_repeated_between(recording):
    _, frames, _ = recording
    fresh = np.array(frames["annotation.fresh"]).astype(bool)
    np.testing.assert_array_equal(fresh, np.arange(len(fresh)) % IMAGE_STEPS == 0)
    for tag in CAMERAS:
        images = frames[f"observation.images.{tag}"]
        assert [image is not before for image, before in zip(images[1:], images, strict=False)] == fresh[1:].tolist()


def test_a_repeated_picture_is_stored_once(suite, recording, tmp_path):
    sentence, frames, _ = recording
    features = {name: Feature(*spec) for name, spec in suite.features().items()}
    write_shard(tmp_path / "all", 0, [Recording(sentence, frames)], features, 50.0)
    rows = np.flatnonzero(frames["annotation.fresh"])
    fresh = {name: [values[row] for row in rows] for name, values in frames.items()}
    write_shard(tmp_path / "fresh", 0, [Recording(sentence, fresh)], features, 50.0)
    sizes = [shard_path(tmp_path / name, 0).stat().st_size for name in ("all", "fresh")]
    assert sizes[0] < 1.5 * sizes[1]
    images = pq.read_table(shard_path(tmp_path / "all", 0))["observation.images.ego"].to_pylist()
    assert images[0] == images[1] != images[-1]


def test_labels_are_where_things_are(suite, env):
    _, frames, _ = suite.snapshot(env, 4)
    points = np.array(frames["annotation.points"]).reshape(len(CAMERAS), -1, 3)
    world = env.world
    tips = world.project("ego", world.points()[-2:])
    np.testing.assert_allclose(points[0, -2:, :2], tips[:, :2], atol=1e-5)
    assert (np.abs(points[0, -2:, 2]) > 0.3).all()


def test_a_hand_sees_what_it_holds(suite, env):
    """Whatever the camera's own housing is to a ray."""
    for seed in (600, 609, 648):  # begin with the cube in the right hand
        _, frames, _ = suite.snapshot(env, seed)
        points = np.array(frames["annotation.points"]).reshape(len(CAMERAS), -1, 3)
        world = env.world
        assert world.situation().right.touched[world.scene.target] == 2
        assert points[CAMERAS.index("cam_right_wrist"), world.scene.target, 2] > 0.05


def test_what_is_hidden_is_not_visible(env):
    world = env.world
    world.reset(0)
    assert (world.visible_points("ego")[:, 2] > 0).all()
    camera, place = world.data.camera("ego").xpos, world.points()[0]
    world.things.place(world.data, world.things.names[1], place + 0.3 * (camera - place))  # the other cube before it
    world.step(1)
    assert world.visible_points("ego")[0, 2] < 0 < world.visible_points("ego")[1, 2]


def test_the_experts_chunks_are_done_and_the_arms_come_to_rest_before_the_next_picture(suite, recording):
    _, frames, _ = recording
    for t in range(1, len(frames["action"]) - 50, 25):
        rows = np.array(frames["action"][t : t + 50], float)
        observation = {"joints": frames["observation.state"][t], "command": frames["action"][t - 1]}
        actions = suite.plan(chunk_of(suite, channels(suite, rows)), observation)
        assert EXECUTED < len(actions) < 40 and len(actions) % IMAGE_STEPS == 0
        lag = np.abs(observation["joints"] - rows[0])[:12].max()
        np.testing.assert_allclose(actions[:EXECUTED, :12], rows[:EXECUTED, :12], atol=lag + 0.02)
        velocity, period = np.diff(actions[:, :12], axis=0) / suite.embodiment.period, suite.embodiment.period
        limit = suite.embodiment.safety.max_joint_acceleration
        assert np.abs(velocity[-1]).max() < limit * period, "it rests"
        assert np.abs(np.diff(velocity, axis=0)).max() / period < limit


def channels(suite, rows):
    """Joint positions (H, 14) as the channels of a chunk."""
    openings = [
        [suite.embodiment.gripper_from_joint(float(v), k) for v in rows[:, 12 + k]] for k in range(2)
    ]  # fmt: skip
    return np.column_stack([rows[:, :6], openings[0], rows[:, 6:12], openings[1]])


def chunk_of(suite, rows):
    return Chunk.of_rows(suite.embodiment, rows, EXECUTED)


def turned(chunk, channel, values):
    changed = chunk.copy()
    changed[:, channel] += values
    return changed


REFUSED = {
    Reason.START_JUMP: lambda chunk: turned(chunk, 0, 0.4),
    Reason.POSITION_LIMIT: lambda chunk: turned(chunk, 2, np.linspace(0, 1.5, 50)),
    Reason.VELOCITY_LIMIT: lambda chunk: turned(chunk, 0, np.minimum(0.08 * np.arange(50), 1.2)),
    Reason.ACCELERATION_LIMIT: lambda chunk: turned(chunk, 0, 0.02 * (np.arange(50) % 2)),
    Reason.NON_FINITE: lambda chunk: turned(chunk, 3, np.nan),
    Reason.SELF_COLLISION: lambda chunk: turned(turned(chunk, 1, np.linspace(0, 1.4, 50)), 2, np.linspace(0, -0.5, 50)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_chunk_is_refused_with_its_reasons(suite, start, reason):
    observation, rows = start
    with pytest.raises(Refused) as refused:
        suite.plan(chunk_of(suite, REFUSED[reason](rows)), observation)
    assert reason in refused.value.reasons


def test_a_gripper_channel_in_a_wrong_unit_is_refused(suite, start):
    observation, rows = start
    with pytest.raises(Refused, match="opening 1.200 is outside 0 closed .. 1 open"):
        suite.plan(chunk_of(suite, turned(rows, 6, 1.2)), observation)


def test_a_chunk_that_stays_stays(suite, start):
    observation, rows = start
    actions = suite.plan(chunk_of(suite, rows), observation)
    np.testing.assert_allclose(actions, np.tile(observation["joints"], (len(actions), 1)), atol=1e-6)


def test_a_picture_is_there_when_a_chunk_is_done(suite, env, start):
    """Also where the cameras were off meanwhile."""
    _, rows = start
    observation, _ = env.reset(seed=0)
    actions = suite.plan(chunk_of(suite, turned(rows, 0, np.linspace(0.0, 0.2, 50))), observation)
    observation, _, _ = follow(env, actions)
    assert env.fresh and all(image.any() for image in observation["images"].values())


def test_holding_keeps_the_fingers_closed(suite, env):
    env.reset(seed=0)
    command = env.world.joint_positions().copy()
    observation = env.step(command)[0]
    np.testing.assert_allclose(suite.hold(observation), command, atol=1e-6)


def test_the_other_sentence_names_the_other_thing(suite, env):
    _, info = env.reset(seed=1)
    other = suite.other_instruction(env, 1)
    assert info["target"] in info["instruction"] and info["target"] not in other
