# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla inspect` of bags, and conversion by the same checks."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rosbag import SAY, START, WIDOWX, Bag, S, joints_at, record

from embodiment_descriptions.commands import JointStates
from qwen_vla.data.convert import BadEpisodes, convert
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.data.formats.rosbag import RosbagEpisodes
from qwen_vla.inspection import inspect


def bag(path, far=()):
    """Three seconds; `far`: numbers of the joint messages whose elbow is in degrees."""
    with Bag(path) as writer:
        record(writer, 3.0, without=("joints",))
        for number in range(300):
            values = joints_at(number / 100)
            values[2] = np.degrees(values[2]) if number in far else values[2]
            writer.joints(START + number * S // 100, values)
    return path


def test_a_bag_is_described(tmp_path):
    findings = inspect(bag(tmp_path / "bag"), robot="widowx", instruction="lift it", row=2)
    assert findings.ok, findings.problems
    assert findings.episodes == 1 and findings.rows == 15 and findings.rate_hz == WIDOWX.rate_hz
    assert {camera.tag: (camera.width, camera.height) for camera in findings.cameras} == {
        "ego": (32, 24),
        "cam_wrist": (32, 24),
    }
    assert list(findings.sample["state"]) == list(WIDOWX.joint_names)
    assert findings.instructions == [{"text": "lift it", "rows": 15}]


def test_a_terminal_shows_at_once_what_is_being_read_and_a_file_does_not(tmp_path):
    path = bag(tmp_path / "bag")
    command = [sys.executable, "-m", "qwen_vla", "inspect", str(path), "--robot", "widowx", "--instruction", "lift it"]
    screen, terminal = pty.openpty()
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}, timeout=60
        )
        os.close(terminal)  # so that a screen without anything on it is an error, not a wait
        shown = os.read(screen, 65536)
    finally:
        os.close(screen)
    assert done.returncode == 0 and b"reading" in shown and b"reading" not in done.stdout
    silent = subprocess.run(command, capture_output=True, timeout=60)
    assert silent.returncode == 0 and not silent.stderr


def test_a_bag_without_instruction_or_robot_is_refused_with_the_remedy(tmp_path):
    path = bag(tmp_path / "bag")
    assert "no instruction" in inspect(path, robot="widowx").problems[0].what
    assert "--robot" in inspect(path, instruction="lift it").problems[0].remedy


def test_what_inspection_refuses_conversion_refuses(tmp_path):
    path = bag(tmp_path / "bags/far", far=range(100, 140))
    findings = inspect(path, robot="widowx", instruction="lift it")
    assert findings.bad_rows == 2 and "elbow is" in findings.bad_rows_listed[0]
    options = ConvertOptions(path.parent, tmp_path / "out", "widowx", instruction="lift it", workers=1)
    with pytest.raises(BadEpisodes, match=r"2 of 15 rows are bad: row 5: .*observation.state: elbow is .* limit 1.61"):
        convert(options)


def with_rival(path, offset, topic="joint_states", rate=10, joint=1):
    """Three seconds, and a second publisher of the joints that has one of them elsewhere."""
    events = [(number / 100, "joint_states", 0.0) for number in range(300)]
    events += [((number + 0.4) / rate, topic, offset) for number in range(3 * rate)]
    with Bag(path) as writer:
        record(writer, 3.0, without=("joints",))
        for seconds, where, off in sorted(events):
            values = joints_at(seconds)
            values[joint] += off
            writer.joints(START + round(seconds * S), values, topic=where)
    return path


def test_two_publishers_of_a_joint_that_disagree_are_reported_and_refused(tmp_path):
    path = with_rival(tmp_path / "bags/rivals", 0.3)
    findings = inspect(path, robot="widowx", instruction="lift it")
    assert not findings.ok and findings.bad_rows > 0
    told = r"/joint_states: 'shoulder' is reported at -?[0-9.]+ and -?[0-9.]+ rad within [0-9.]+ s, faster than it can"
    assert re.search(told, findings.problems[0].what)
    options = ConvertOptions(path.parent, tmp_path / "out", "widowx", instruction="lift it", workers=1)
    with pytest.raises(BadEpisodes, match=told):
        convert(options)


def test_two_topics_of_a_joint_that_disagree_are_both_named(tmp_path):
    path = with_rival(tmp_path / "bag", 0.3, topic="other_states")
    sources = [JointStates(topic=topic) for topic in ("joint_states", "other_states")]
    (episode,) = RosbagEpisodes(path, WIDOWX.model_copy(update={"joint_states": sources}), SAY)
    assert any(
        why.startswith("/joint_states and /other_states: 'shoulder'") for why in episode.defects["observation"].values()
    )


def test_two_publishers_that_agree_are_no_problem(tmp_path):
    assert inspect(with_rival(tmp_path / "bag", 0.0), robot="widowx", instruction="lift it").ok


@settings(max_examples=20)
@given(joint=st.integers(0, 5), offset=st.floats(0.15, 1.0), rate=st.sampled_from([5, 10, 50]))
def test_a_rival_is_found_whatever_it_tells(tmp_path_factory, joint, offset, rate):
    path = with_rival(tmp_path_factory.mktemp("bags") / "bag", offset, rate=rate, joint=joint)
    (episode,) = RosbagEpisodes(path, WIDOWX, SAY)
    found = episode.defects["observation"]
    assert all(f"'{WIDOWX.joint_names[joint]}'" in why for why in found.values())
    apart = np.abs(episode.state.values - np.array([joints_at(t) for t in episode.columns["timestamp"].values[:, 0]]))
    assert found.keys() >= set(np.flatnonzero(apart[:, joint] > 0.14).tolist())
