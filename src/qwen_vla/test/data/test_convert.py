# SPDX-License-Identifier: Apache-2.0
"""Bags as a LeRobotDataset: the loader reads of it what it reads of the bags; bad ones are named; it resumes."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from test_lerobot_parity import PYTHON, eight_bits, lerobot
from test_rosbag import START, WIDOWX, Bag, S, record

from qwen_vla import QwenVLAConfig
from qwen_vla.data.convert import BadEpisodes, convert
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.lerobot import LeRobotReader, shard_path
from qwen_vla.data.formats.recordings import RECORD, EpisodeRecord, write_robot
from qwen_vla.data.formats.rosbag import BagOptions, RosbagEpisodes
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla.output_paths import OutputRefused

CONTEXT = SourceContext(QwenVLAConfig.preset("tiny"), 0.0)
SAY = BagOptions(instruction="lift it")
SMOOTH = np.add.outer(np.arange(24), np.arange(32))[:, :, None] * np.array([3, 2, 1])


def bag(path, seconds=2.0, commands=True, without=()):
    """A bag as test_rosbag makes them, with commands to the arm; 24×32 images."""
    with Bag(path) as writer:
        record(writer, seconds, without=without)
        if commands:
            points = [(1.0, np.full(6, 0.2)), (1.5, np.full(6, 0.4))]
            writer.trajectory("arm_controller/joint_trajectory", START + S // 2, WIDOWX.arms[0].joints, points)
    return path


def labeled(path, **about):
    """Make an episode of episode_recorder of a bag: it brings its robot and its instruction."""
    write_robot(path, WIDOWX)
    EpisodeRecord(name=path.name, robot="widowx", instruction=f"do {path.name}", started="", **about).write(path)
    return path


def options(bags, out, **changes):
    return ConvertOptions(
        bags, out, **{"robot": "widowx", "instruction": "lift it", "workers": 1, "images": "png", **changes}
    )


def test_the_loader_reads_the_same_of_the_bag_and_of_the_data_set(tmp_path):
    path = bag(tmp_path / "bag")
    assert convert(options(path, tmp_path / "out")) | {"out": ""} == {
        "out": "",
        "episodes": 1,
        "rows": 10,
        "failed_left_out": [],
        "bad_skipped": [],
    }
    (episode,) = RosbagEpisodes(path, WIDOWX, SAY)
    reader = LeRobotReader(tmp_path / "out")
    assert reader.tasks == ["lift it"] and reader.rate_hz == 5.0 and reader.info["robot_type"] == "widowx"
    assert reader.features["action"] == WIDOWX.joint_names
    for row in range(10):
        for tag in ("ego", "cam_wrist"):
            np.testing.assert_array_equal(reader.image(f"observation.images.{tag}", row), episode.images[tag][row])
    sources = [
        RobotData(kind="robot", path=str(path), robot="widowx", bag={"instruction": "lift it"}).open(CONTEXT),
        RobotData(kind="robot", path=str(tmp_path / "out")).open(CONTEXT),
    ]
    np.testing.assert_array_equal(sources[0].training, sources[1].training)
    for index in sources[0].training:
        ours, theirs = (source.sample(int(index), None) for source in sources)
        assert ours.text == theirs.text
        np.testing.assert_allclose(ours.actions, theirs.actions, atol=2e-4)
        np.testing.assert_allclose(ours.state, theirs.state, atol=2e-4)
        for tag, image in ours.images.items():
            np.testing.assert_array_equal(image, theirs.images[tag])


def test_videos_hold_the_frames_in_their_order(tmp_path):
    with Bag(tmp_path / "bag") as writer:
        record(writer, 3.0, without=("ego/image_raw", "cam_wrist/image_raw"))
        for k in range(90):
            for topic in ("ego/image_raw", "cam_wrist/image_raw"):
                writer.image(topic, START + k * S // 30, ((SMOOTH + 2 * k) % 256).astype(np.uint8))
    convert(options(tmp_path / "bag", tmp_path / "out", images="video", rate_hz=10.0))
    (episode,) = RosbagEpisodes(tmp_path / "bag", WIDOWX.model_copy(update={"rate_hz": 10.0}), SAY)
    reader = LeRobotReader(tmp_path / "out")
    assert reader.rate_hz == 10.0 and len(reader) == len(episode) > 25
    errors = [
        np.abs(reader.image("observation.images.ego", row).astype(int) - episode.images["ego"][other]).mean()
        for row in range(len(episode))
        for other in (row, max(row - 1, 0))
    ]
    own, neighbor = np.reshape(errors, (-1, 2))[1:].T
    assert (own < neighbor).all() and own.mean() < 4.0
    source = RobotData(kind="robot", path=str(tmp_path / "out")).open(CONTEXT)
    assert set(source.sample(0, None).images) == {"ego", "cam_wrist"}


def test_bad_episodes_are_named_and_skipped_only_by_choice(tmp_path):
    bags = tmp_path / "bags"
    bag(bags / "a")
    bag(bags / "b", without=("cam_wrist/image_raw",))
    with Bag(bags / "c") as writer:
        record(writer, 1.0)
        record(writer, 1.5, START + S, without=("ego/image_raw",))
        record(writer, 1.0, START + int(2.5 * S))
    (bags / "d.recording").mkdir()
    with pytest.raises(BadEpisodes) as refused:
        convert(options(bags, tmp_path / "out"))
    said = str(refused.value)
    assert "d.recording: is not finished; if its recorder was killed, --mend" in said
    assert "b: " in said and "lacks /cam_wrist/image_raw" in said and "--on-bad skip" in said
    assert re.search(r"^c: \d+ of 18 rows are bad: row \d+: missing frame: camera 'ego'", said, re.MULTILINE), said
    assert not (tmp_path / "out/meta/info.json").exists(), "no data set"
    summary = convert(options(bags, tmp_path / "out", on_bad="skip"))
    assert summary["episodes"] == 1 and len(summary["bad_skipped"]) == 3
    assert len(LeRobotReader(tmp_path / "out").episodes) == 1


def test_it_goes_on_where_it_was_and_takes_new_bags(tmp_path):
    bags, out = tmp_path / "bags", tmp_path / "out"
    bag(bags / "a")
    bag(bags / "b", without=("cam_wrist/image_raw",))
    with pytest.raises(BadEpisodes):
        convert(options(bags, out))
    first = shard_path(out, 0).stat().st_mtime_ns
    shutil.rmtree(bags / "b")
    bag(bags / "b", seconds=1.0)
    assert convert(options(bags, out))["episodes"] == 2
    bag(bags / "c", seconds=1.5)
    assert convert(options(bags, out, workers=2))["episodes"] == 3
    assert shard_path(out, 0).stat().st_mtime_ns == first
    np.testing.assert_array_equal(LeRobotReader(out).episodes, [[0, 10], [10, 15], [15, 23]])
    with pytest.raises(DatasetError, match="was converted with another images; choose another folder"):
        convert(options(bags, out, images="video"))
    with pytest.raises(OutputRefused, match="is not empty and was not made by convert"):
        convert(options(bags, bags))


def test_failed_episodes_are_left_out_and_may_be_kept(tmp_path, caplog):
    bags = tmp_path / "bags"
    for name, success in (("good", True), ("open", None), ("poor", False)):
        labeled(bag(bags / name), success=success)
    summary = convert(ConvertOptions(bags, tmp_path / "out", images="png", workers=1))
    assert summary["episodes"] == 2 and summary["failed_left_out"] == ["poor"]
    assert LeRobotReader(tmp_path / "out").tasks == ["do good", "do open"]
    direct = RosbagEpisodes(bags, WIDOWX)
    assert [episode.instruction for episode in direct] == ["do good", "do open"]
    assert "1 failed episodes are skipped: poor" in caplog.text
    record = json.loads((bags / "open" / RECORD).read_text())
    (bags / "open" / RECORD).write_text(json.dumps(record | {"success": False}))
    assert convert(ConvertOptions(bags, tmp_path / "out", images="png", workers=1))["failed_left_out"] == [
        "open",
        "poor",
    ]
    assert convert(ConvertOptions(bags, tmp_path / "all", images="png", failed="keep", workers=1))["episodes"] == 3
    mine = tmp_path / "out/meta"
    files = {"urdf": mine / "robot.urdf", "embodiment": mine / "embodiment.yaml"}
    for robot in (files, str(mine / "embodiment.yaml"), None):
        assert len(RobotData(kind="robot", path=str(tmp_path / "out"), robot=robot).open(CONTEXT).training) == 10


def test_a_robot_must_be_known(tmp_path):
    with pytest.raises(BadEpisodes, match="does not name its robot; give the robot with --robot"):
        convert(ConvertOptions(bag(tmp_path / "bag"), tmp_path / "out"))
    assert not (tmp_path / "out").exists(), "the same folder can be taken when it is named"


def test_a_robot_is_named_by_the_path_of_its_yaml(tmp_path):
    own = WIDOWX.model_copy(update={"name": "mine", "robot_tag": "My arm"})
    (tmp_path / "lab").mkdir()
    write_robot(tmp_path / "lab", own)
    convert(options(bag(tmp_path / "bag"), tmp_path / "out", robot=str(tmp_path / "lab/embodiment.yaml")))
    assert LeRobotReader(tmp_path / "out").info["robot_type"] == "mine"
    sample = RobotData(kind="robot", path=str(tmp_path / "out")).open(CONTEXT).sample(0, None)
    assert "My arm" in sample.text, "which the data set brings"


def test_an_episode_says_its_namespace_and_remapped_topics(tmp_path):
    with Bag(tmp_path / "bag", namespace="/r1") as writer:
        record(writer, 1.0, without=("ego/image_raw",))
        for k in range(30):
            writer.image("front/image_raw", START + k * S // 30, np.full((24, 32, 3), k, np.uint8))
    labeled(tmp_path / "bag", namespace="r1", remapped={"ego/image_raw": "/r1/front/image_raw"})
    convert(ConvertOptions(tmp_path / "bag", tmp_path / "out", images="png", workers=1))
    reader = LeRobotReader(tmp_path / "out")
    shown = [int(reader.image("observation.images.ego", row).max()) for row in range(len(reader))]
    assert len(shown) == 5 and shown == sorted(set(shown)) and reader.tasks == ["do bag"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not PYTHON.exists(), reason=f"no lerobot in {PYTHON}; scripts/lerobot_venv.sh makes it")
def test_lerobot_opens_converted_videos(tmp_path):
    for name in ("a", "b"):
        with Bag(tmp_path / "bags" / name) as writer:
            record(writer, 2.0, without=("ego/image_raw", "cam_wrist/image_raw"))
            for k in range(60):
                pixels = np.kron((SMOOTH + 2 * k) % 256, np.ones((4, 4, 1))).astype(np.uint8)
                for topic in ("ego/image_raw", "cam_wrist/image_raw"):
                    writer.image(topic, START + k * S // 30, pixels)
    convert(options(tmp_path / "bags", tmp_path / "out", images="video"))
    read, about = lerobot("read", tmp_path / "out", tmp_path / "read.npz")
    assert about["episodes"] == 2 and set(about["tasks"]) == {"lift it"}
    reader = LeRobotReader(tmp_path / "out")
    ours = np.stack([reader.image("observation.images.ego", row) for row in range(len(reader))])
    np.testing.assert_allclose(eight_bits(read["observation.images.ego"]).astype(int), ours, atol=2)
    np.testing.assert_array_equal(read["observation.state"], reader.frames["observation.state"])
