# SPDX-License-Identifier: Apache-2.0
"""What is understood of a bag, also of one that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from test_rosbag import SAY, START, WIDOWX, Bag, S, T, header, record

from qwen_vla.data.formats.bags.summary import CameraSummary, summarize

NEAR = np.full(24 * 64, 2, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags")
    with Bag(path / "a_good") as bag:
        record(bag)
    with Bag(path / "b_paused") as bag:
        record(bag, 1.0)
        record(bag, 1.0, START + 60 * S)
    with Bag(path / "c_depth") as bag:
        record(bag, 1.0, without=("ego/image_raw",))
        for k in range(30):
            depth = T["sensor_msgs/msg/Image"](header(START + k * S // 30), 24, 32, "16UC1", 0, 64, NEAR)
            bag.add("ego/image_raw", depth.__msgtype__, depth, START + k * S // 30)
    (path / "d_cut.mcap").write_bytes(next((path / "a_good").glob("*.mcap")).read_bytes()[:5000])
    return path


def test_every_bag_is_summarized_with_its_topics_cameras_and_episodes(folder):
    good, paused, depth, cut = summarize(folder, WIDOWX, SAY)
    assert not good.problem and not good.interruptions and good.seconds == pytest.approx(2.99, abs=0.02)
    (joints,) = [topic for topic in good.topics if topic.name == "/joint_states"]
    assert (joints.types, joints.messages) == (("sensor_msgs/msg/JointState",), 300)
    assert joints.rate_hz == pytest.approx(100) and joints.longest_gap_s == pytest.approx(0.01)
    assert good.cameras[0] == CameraSummary("ego", "/ego/image_raw", 32, 24, "rgb8")
    assert [(e.instruction, e.rows, dict(e.bad)) for e in good.episodes] == [("lift the red cube", 15, {})]

    (why,) = paused.interruptions
    assert "no measurement was recorded for 59.0 s" in why and len(paused.episodes) == 2
    assert [list(e.bad) for e in paused.episodes] == [[4], []]

    assert depth.cameras[0].encoding == "16UC1" and "cannot be used" in depth.cameras[0].problem
    assert "the MCAP file has no end" in cut.problem and not cut.topics


def test_without_a_robot_the_topics_are_known(folder):
    good = next(summarize(folder, None))
    assert {topic.name for topic in good.topics} == {"/ego/image_raw", "/cam_wrist/image_raw", "/joint_states"}
    assert not good.episodes and not good.problem
