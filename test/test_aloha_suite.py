"""Recording, planning and holding of the bimanual suite."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from qwen_vla.data.formats.lerobot import Feature, shard_path
from qwen_vla.data.formats.lerobot_writer import Recording, write_shard
from qwen_vla.suites import load_suite
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import ArmGate
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.reasons import Refused
from qwen_vla_sim.aloha.env import PICTURE_STEPS
from qwen_vla_sim.aloha.world import CAMERAS

NOW = 10**18  # [ns] of the decisions


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
    np.testing.assert_array_equal(fresh, np.arange(len(fresh)) % PICTURE_STEPS == 0)
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


def test_the_experts_chunks_are_planned_as_they_are(suite, recording):
    _, frames, _ = recording
    for t in range(1, len(frames["action"]) - 50, 25):
        rows = np.array(frames["action"][t : t + 50], float)
        observation = {"joints": frames["observation.state"][t], "command": frames["action"][t - 1]}
        planned = suite.plan(channels(suite, rows), observation)
        np.testing.assert_allclose(planned[:, :12], rows[:, :12], atol=0.02)
        np.testing.assert_allclose(planned[-1], rows[-1], atol=1e-4)


def channels(suite, rows):
    """Joint positions (H, 14) as the channels of a chunk."""
    openings = [
        [suite.embodiment.gripper_from_joint(float(v), k) for v in rows[:, 12 + k]] for k in range(2)
    ]  # fmt: skip
    return np.column_stack([rows[:, :6], openings[0], rows[:, 6:12], openings[1]])


def turned(chunk, channel, values):
    changed = chunk.copy()
    changed[:, channel] += values
    return changed


REFUSED = {
    "start jump": lambda chunk: turned(chunk, 0, 0.4),
    "position limit": lambda chunk: turned(chunk, 2, np.linspace(0, 1.5, 50)),
    "speed": lambda chunk: turned(chunk, 0, np.minimum(0.08 * np.arange(50), 1.2)),
    "acceleration": lambda chunk: turned(chunk, 0, 0.02 * (np.arange(50) % 2)),
    "gripper channel": lambda chunk: turned(chunk, 6, 1.2),
    "not finite": lambda chunk: turned(chunk, 3, np.nan),
    "would touch": lambda chunk: turned(turned(chunk, 1, np.linspace(0, 1.4, 50)), 2, np.linspace(0, -0.5, 50)),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_the_gate_refuses_is_not_planned(suite, start, why):
    observation, chunk = start
    bad = REFUSED[why](chunk)
    with pytest.raises(ValueError, match=why):
        suite.plan(bad, observation)
    gate = ArmGate(suite.embodiment)
    joints = observation["joints"].astype(float)
    with pytest.raises(Refused):
        gate.decide(message(suite, bad), RobotState(NOW, joints, joints))
    gate.decide(message(suite, chunk), RobotState(NOW, joints, joints))
    np.testing.assert_allclose(suite.plan(chunk, observation), np.tile(joints, (50, 1)), atol=1e-6)


def message(suite, chunk):
    e = suite.embodiment
    return Chunk(
        1, 0, e.base_frame, e.name, e.control_mode, tuple(e.channel_names), "", 50, 25, e.period, chunk.reshape(-1)
    )


def test_holding_keeps_the_fingers_closed(suite, env):
    env.reset(seed=0)
    command = env.world.joint_positions().copy()
    observation = env.step(command)[0]
    np.testing.assert_allclose(suite.hold(observation), command, atol=1e-6)


def test_the_other_sentence_names_the_other_thing(suite, env):
    _, info = env.reset(seed=1)
    other = suite.other_instruction(env, 1)
    assert info["target"] in info["instruction"] and info["target"] not in other
