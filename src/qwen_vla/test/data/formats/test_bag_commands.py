# SPDX-License-Identifier: Apache-2.0
"""Every command interface defines how its commands are read from a bag, or their replacement; none is ignored."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from test_bag_robots import aloha_bag
from test_rosbag import START, WIDOWX, Bag, record

from embodiment_descriptions import Embodiment, resource_path, robot_description
from embodiment_descriptions.commands import GripperActionCommand, JointTrajectoryCommand, find_kind
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.recordings import EpisodeRecord, write_robot
from qwen_vla.data.formats.rosbag import BagOptions, RosbagEpisodes
from qwen_vla.data.formats.rosbag_commands import CommandedPositions, Trajectory, measured_poses

SAY = BagOptions(instruction="lift it")
GRIPPER = GripperActionCommand(
    backend="gripper_action", action="gripper_controller/gripper_cmd", joint="left_finger", kind="parallel"
)
WITH_ACTION = WIDOWX.model_copy(update={"commands": (WIDOWX.commands[0], GRIPPER)})
SENTENCE = (
    "gripper_action gripper_controller/gripper_cmd: bags do not have its commands; they are replaced by the measured "
    "position of left_finger one row later"
)


@pytest.fixture(scope="module")
def episode(tmp_path_factory) -> Path:
    """An episode of a robot whose gripper is commanded by an action."""
    path = tmp_path_factory.mktemp("episodes") / "first"
    with Bag(path) as bag:
        record(bag, 2.0)
        bag.trajectory(WIDOWX.commands[0].topic, START, WIDOWX.arms[0].joints, [(1.0, np.ones(6))])
    write_robot(path, WITH_ACTION)
    EpisodeRecord(name=path.name, robot="widowx", instruction="lift it", started="").write(path)
    return path


def test_the_gripper_s_measured_position_stands_in_for_the_goals_of_its_action(episode):
    (read,) = RosbagEpisodes(episode, WITH_ACTION, SAY)
    gripper = read.state.values[:, 6]
    np.testing.assert_array_equal(read.actions.values[:, 6], [*gripper[1:], gripper[-1]])
    assert not np.allclose(read.actions.values[:-1, 0], read.state.values[1:, 0]), "the arm's commands are in the bag"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_convert_says_so_in_one_line_and_converts(episode, tmp_path, workers):
    program = [Path(sys.executable).parent / "qwen-vla", "convert", episode.parent, "--out", tmp_path / "out"]
    done = subprocess.run(
        [*program, "--images", "png", "--workers", workers], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["episodes"] == 1
    assert [line for line in done.stderr.splitlines() if line == SENTENCE] == [SENTENCE]


def test_a_continuous_joint_is_commanded_by_the_shorter_way():
    plans = [
        Trajectory(0, ("wheel",), np.array([10]), np.array([[3.0]])),
        Trajectory(20, ("wheel",), np.array([30]), np.array([[-3.0]])),
    ]
    for continuous, between in (({"wheel"}, [-np.pi]), (set(), [0.0])):
        commands = CommandedPositions(("wheel",), plans, continuous)
        np.testing.assert_allclose(commands.at(25, np.array([0.0])), between)
        np.testing.assert_allclose(commands.at(40, np.array([0.0])), [-3.0])
    first = CommandedPositions(("wheel",), plans[1:], {"wheel"})
    np.testing.assert_allclose(first.at(25, np.array([3.0])), [-np.pi])


@pytest.mark.parametrize(("topic", "name"), [("joint_group", "all"), ("joint_single", "waist")])
def test_a_command_of_an_xs_sdk_for_other_motors_is_refused(tmp_path, topic, name):
    yaml = resource_path("config/embodiments/aloha_real.yaml")
    aloha = Embodiment.from_urdf(robot_description("aloha", hardware="real"), yaml)
    aloha_bag(tmp_path / "bag", aloha, names={topic: name})
    with pytest.raises(DatasetError, match=rf"/follower_left/commands/{topic} .*moves the (group|motor) '{name}'"):
        RosbagEpisodes(tmp_path / "bag", aloha, SAY)


@pytest.mark.parametrize("defined", [True, False])
def test_commands_of_an_xs_sdk_need_no_definition_in_the_bag(tmp_path, defined):
    yaml = resource_path("config/embodiments/aloha_real.yaml")
    aloha = Embodiment.from_urdf(robot_description("aloha", hardware="real"), yaml)
    aloha_bag(tmp_path / "bag", aloha)
    if not defined:  # as Humble's SQLite bags
        (file,) = (tmp_path / "bag").glob("*.db3")
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute("DROP TABLE message_definitions")
    (read,) = RosbagEpisodes(tmp_path / "bag", aloha, SAY)
    assert np.isfinite(read.actions.values).all() and not read.defects


class Unread(JointTrajectoryCommand):
    """A kind without a reader of its commands."""

    recorded: ClassVar = ""


def test_a_kind_without_a_reader_is_refused(episode):
    odd = Unread(**WIDOWX.commands[1].model_dump())
    robot = WIDOWX.model_copy(update={"commands": (WIDOWX.commands[0], odd)})
    with pytest.raises(ValueError, match="'joint_trajectory' has no reader of recorded commands"):
        RosbagEpisodes(episode, robot, SAY)


@pytest.mark.parametrize("backend", ["nav2_follow_path", "nav2_pose"])
def test_goals_of_nav2_are_replaced_by_where_the_base_went(backend):
    kind = find_kind(backend)
    assert kind.recorded.endswith(":measured_poses")
    reader = measured_poses(kind.model_validate({"backend": backend}), WIDOWX)
    assert reader.read is None and reader.measured == "the odometry of the base"
