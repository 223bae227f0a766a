"""Every command interface defines how its commands are read from a bag, or their replacement; none is ignored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from test_rosbag import START, WIDOWX, Bag, record

from embodiment_descriptions.commands import GripperActionCommand, JointTrajectoryCommand, find_kind
from qwen_vla.data.formats.recordings import EpisodeRecord, write_robot
from qwen_vla.data.formats.rosbag import BagOptions, RosbagEpisodes
from qwen_vla.data.formats.rosbag_commands import measured_poses

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
