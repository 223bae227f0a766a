# SPDX-License-Identifier: Apache-2.0
"""Recordings of two arms at 50 Hz and of a base at 2 Hz, as their simulators write them, become samples."""

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.cache import cache_folder
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.lerobot import Feature
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.data.language.questions import QuestionData
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla_control.motion.base_path import accumulated

ALOHA, BASE = load_robot("aloha"), load_robot("mobile_base")
CONFIG = QwenVLAConfig.preset("tiny", horizon=50)
CONTEXT = SourceContext(CONFIG, 0.34)
LENGTHS = (63, 41, 30)
EVERY = 5  # frames per picture of the arms
FINGERS = [list(ALOHA.joint_names).index(arm.gripper.joint) for arm in ALOHA.arms]
IMAGE = Feature("image", (12, 16, 3), ("height", "width", "channel"))


def annotated(robot, lengths, objects, tips, rng):
    """Features, frames per episode and `info.json` of a labeled recording, without state and actions."""
    tags = [camera.tag for camera in robot.cameras]
    points = len(objects) + len(tips)
    numbers = {"points": len(tags) * points * 3, "objects": len(objects), "object": 1, "goal": 1, "task": 1, "fresh": 1}
    features = {f"observation.images.{tag}": IMAGE for tag in tags}
    for name, size in numbers.items():
        features[f"annotation.{name}"] = Feature("float32" if name == "points" else "int64", (size,))
    episodes = []
    for length in lengths:
        frames = {"annotation.points": rng.uniform(0.1, 0.9, (length, numbers["points"])).astype(np.float32)}
        frames["annotation.objects"] = np.tile(np.arange(len(objects)), (length, 1))
        frames |= {f"annotation.{name}": np.zeros(length, int) for name in ("object", "task")}
        frames["annotation.goal"], frames["annotation.fresh"] = np.ones(length, int), np.ones(length, int)
        episodes.append(frames)
    info = {"names": objects, "cameras": tags, "points": [*objects, *tips], "tasks": ["t"], "embodiment": robot.name}
    return features, episodes, info


def taken(rng, length, every):
    """Images, each repeated until the next one is taken, as the same array object."""
    own = rng.integers(0, 256, (-(-length // every), *IMAGE.shape), dtype=np.uint8)
    return [own[row // every] for row in range(length)]


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Three episodes of ALOHA at 50 Hz, images at 10 Hz: folder and frames."""
    root, rng = tmp_path_factory.mktemp("arms"), np.random.default_rng(0)
    features, episodes, info = annotated(ALOHA, LENGTHS, ["red cube", "socket"], ["left tip", "right tip"], rng)
    joints = Feature("float32", (14,), tuple(ALOHA.joint_names))
    features |= {"observation.state": joints, "action": joints}
    home = np.array([ALOHA.home[name] for name in ALOHA.joint_names])
    for frames, length in zip(episodes, LENGTHS, strict=True):
        walk = home + np.cumsum(rng.normal(scale=0.01, size=(length + 1, 14)), axis=0)
        walk[:, FINGERS] = rng.uniform(0.021, 0.057, (length + 1, 2))
        frames["observation.state"], frames["action"] = walk[:-1].astype(np.float32), walk[1:].astype(np.float32)
        frames["annotation.fresh"][:] = np.arange(length) % EVERY == 0
        for tag in info["cameras"]:
            frames[f"observation.images.{tag}"] = taken(rng, length, EVERY)
    save(root, features, episodes, info, 50.0)
    return root, episodes


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    """Three episodes of the mobile base at 2 Hz: folder and frames."""
    root, rng = tmp_path_factory.mktemp("drives"), np.random.default_rng(1)
    features, episodes, info = annotated(BASE, (12, 9, 7), ["blue chair", "door", "red box"], [], rng)
    features["observation.odometry"] = Feature("float32", (3,), ("x", "y", "theta"))
    for frames, length in zip(episodes, (12, 9, 7), strict=True):
        frames["observation.odometry"] = np.cumsum(rng.normal(scale=0.1, size=(length, 3)), axis=0).astype(np.float32)
        frames["observation.images.ego"] = taken(rng, length, 1)
    save(root, features, episodes, info, 2.0)
    return root, episodes


def save(root, features, episodes, info, fps):
    recordings = [Recording("put the red cube into the socket", frames) for frames in episodes]
    write_shard(root, 0, recordings, features, fps)
    finalize(root, 1, features, fps, info["embodiment"], info)


def robot(root, **options):
    return RobotData(kind="robot", path=root, **options).open(CONTEXT)


def test_samples_of_the_arms_begin_where_a_picture_was_taken(arms):
    root, episodes = arms
    source = robot(root)
    starts = [first + np.arange(0, length, EVERY) for first, length in ((0, 63), (63, 41))]
    np.testing.assert_array_equal(source.training, np.concatenate(starts))
    np.testing.assert_array_equal(source.held_out, 63 + 41 + np.arange(0, 30, EVERY))
    sample = source.sample(40, None)
    assert set(sample.images) == {"ego", "cam_low", "cam_left_wrist", "cam_right_wrist"}
    assert "ALOHA with dual arms. The control frequency is 50 Hz" in sample.text and sample.actions.shape == (50, 14)


def test_chunks_of_the_arms_are_made_of_all_rows(arms):
    root, episodes = arms
    chunk, told = robot(root).chunk(40), episodes[0]["action"]
    ahead = told[np.minimum(40 + np.arange(50), 62)]
    np.testing.assert_allclose(chunk[:, :6], ahead[:, :6], atol=1e-6)
    np.testing.assert_allclose(chunk[:, 7:13], ahead[:, 6:12], atol=1e-6)
    for channel, arm in ((6, 0), (13, 1)):
        opened = [ALOHA.gripper_from_joint(float(value), arm) for value in ahead[:, FINGERS[arm]]]
        np.testing.assert_allclose(chunk[:, channel], opened, atol=1e-5)


def test_chunks_relative_to_the_measured_joints_lead_to_the_same_place(arms):
    root, episodes = arms
    absolute, relative = robot(root), robot(root, relative_actions=True)
    offset = absolute.chunk(40) - relative.chunk(40)
    measured = episodes[0]["observation.state"][40]
    np.testing.assert_allclose(offset, np.tile([*measured[:6], 0, *measured[6:12], 0], (50, 1)), atol=1e-6)
    assert relative.info.relative_actions and not absolute.info.relative_actions
    assert (
        absolute.statistics["aloha"].q01[1] < -0.5 < relative.statistics["aloha"].q01[1]
    )  # home of the shoulder: -0.96
    expected = relative.statistics["aloha"].normalize(relative.chunk(40))
    np.testing.assert_allclose(relative.sample(40, None).actions, expected, atol=1e-6)


def test_a_source_can_leave_the_state_out(arms):
    root, _ = arms
    unseeing = robot(root, use_state=False)
    assert unseeing.sample(40, None).state is None and "aloha.state" not in unseeing.statistics
    anchored = robot(root, use_state=False, relative_actions=True)
    assert anchored.sample(40, None).state is None and "aloha.state" in anchored.statistics


def test_actions_of_a_base_cannot_be_relative_to_joints(drives):
    with pytest.raises(DatasetError, match="relative_actions is for joint_position"):
        robot(drives[0], relative_actions=True)


def test_only_pictures_that_were_taken_are_decoded_and_kept(arms):
    root, episodes = arms
    source = robot(root)
    fresh = sum(-(-length // EVERY) for length in LENGTHS)
    side = CONFIG.image_size
    for tag in source.camera_tags:
        assert source.images[tag].frames.shape == (fresh, side, side, 3)
        # Every row shows the last picture that was taken, whether it is decoded anew or not.
        for row in (40, 43, 62):
            expected = source.source.reader.image(f"observation.images.{tag}", row - row % EVERY)
            np.testing.assert_array_equal(source.images[tag][row][0, 0], expected[0, 0])
    files = list(cache_folder(root).glob("observation.images.ego-*.npy"))
    assert len(files) == 1 and files[0].stat().st_size < (fresh + 1) * side * side * 3


def test_labels_of_the_arms_have_an_object_a_goal_and_two_tips(arms):
    root, episodes = arms
    source = robot(root)
    labels = source.sample(45, None).labels
    points = episodes[0]["annotation.points"][45].reshape(4, 4, 3)
    np.testing.assert_allclose(labels.points, points)
    assert labels.visible.all() and not labels.hidden.any()
    state = episodes[0]["observation.state"][45]
    opened = [ALOHA.gripper_from_joint(float(state[joint]), arm) for arm, joint in enumerate(FINGERS)]
    np.testing.assert_allclose(labels.openings, opened, atol=1e-5)


def test_statistics_of_the_arms_are_those_of_the_chunks(arms):
    root, _ = arms
    source = robot(root)
    quantiles = source.statistics["aloha"]
    assert tuple(quantiles.channel_names) == ALOHA.channel_names and len(quantiles.q01) == 14
    chunks = np.concatenate([source.chunk(index) for index in source.training]).astype(np.float32)
    expected = np.quantile(chunks.astype(float), 0.99, axis=0)
    expected[ALOHA.layout.grippers] = 1.0  # their known range
    np.testing.assert_allclose(quantiles.q99, expected, rtol=1e-6)


@pytest.mark.parametrize("recording", ["arms", "drives"])
def test_questions_are_asked_about_every_robot_where_it_sees_anew(recording, request):
    root, episodes = request.getfixturevalue(recording)
    source = QuestionData(kind="questions", path=root).open(CONTEXT)
    fresh = np.concatenate([frames["annotation.fresh"] for frames in episodes]).astype(bool)
    assert fresh[source.training].all() and fresh[source.held_out].all()
    for seed in range(30):
        sample = source.sample(int(source.training[seed % len(source.training)]), np.random.default_rng(seed))
        assert len(sample.images) == 1 and sample.answer and sample.labels.points.shape == (1, 4, 3)


def test_waypoints_of_the_base_lead_where_it_went_and_then_stand_still(drives):
    root, episodes = drives
    source = robot(root)
    driven = episodes[0]["observation.odometry"].astype(float)
    chunk = source.chunk(3)
    assert chunk.shape == (8, 3)
    np.testing.assert_allclose(accumulated(driven[3], chunk)[:, :2], driven[4:12, :2], atol=1e-6)
    assert not source.chunk(9)[2:].any(), "beyond the end it stands"
    assert "Please predict the next 8 navigation waypoints" in source.sample(3, None).text


def test_labels_of_the_base_have_no_tip_and_no_gripper(drives):
    labels = robot(drives[0]).sample(2, None).labels
    assert labels.visible.tolist() == [[True, True, False, False]] and (labels.openings == -1).all()


def test_an_episode_that_begins_without_a_picture_is_refused(tmp_path):
    rng = np.random.default_rng(2)
    features, episodes, info = annotated(BASE, (6, 6), ["door"], [], rng)
    features["observation.odometry"] = Feature("float32", (3,), ("x", "y", "theta"))
    for frames in episodes:
        frames["observation.odometry"] = np.zeros((6, 3), np.float32)
        frames["observation.images.ego"] = taken(rng, 6, 1)
        frames["annotation.goal"][:] = -1
    episodes[1]["annotation.fresh"][0] = 0
    save(tmp_path, features, episodes, info, 2.0)
    with pytest.raises(DatasetError, match="file-000.parquet row 6: an episode starts without an image of its own"):
        robot(tmp_path)
