# SPDX-License-Identifier: Apache-2.0
"""ALOHA in its world: it holds still, follows commands, and its cameras have images."""

from types import SimpleNamespace

import numpy as np
import pytest
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodiment_descriptions import Embodiment, resource_path, robot_description
from qwen_vla_rclpy.messages import time_message
from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.controllers.position_interfaces import PositionsRejected
from qwen_vla_sim.controllers.simulated_robot import SimulatedRobot
from qwen_vla_sim.node.messages import joint_state_message

S = 1_000_000_000


@pytest.fixture(scope="module")
def aloha():
    robot = SimulatedRobot(AlohaSuite().make_world())
    yield robot
    robot.world.close()


@pytest.fixture(scope="module")
def real_aloha():
    """The same arms, commanded as a real ALOHA is."""
    yaml = resource_path("config/embodiments/aloha_real.yaml")
    embodiment = Embodiment.from_urdf(robot_description("aloha"), yaml)
    return SimulatedRobot(AlohaSuite().make_world(embodiment=embodiment))


def going_to(positions, names, seconds):
    """A message of a trajectory with one point."""
    point = JointTrajectoryPoint(positions=list(map(float, positions)))
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(seconds * S), S)
    return JointTrajectory(joint_names=names, points=[point])


def group(values, name="arm"):
    """What an interbotix_xs_msgs/JointGroupCommand has, which is not installed everywhere."""
    return SimpleNamespace(name=name, cmd=values)


def test_cameras_are_those_of_the_embodiment_and_see_something(aloha):
    world = aloha.world
    assert set(world.cameras) == {camera.tag for camera in world.embodiment.cameras}
    links = {line.split('"')[1] for line in world.embodiment.urdf.splitlines() if "<link name=" in line}
    assert set(world.camera_frames.values()) <= links
    for camera in world.cameras:
        assert world.render(camera).std() > 10


def test_aloha_holds_home(aloha):
    aloha.reset(1)
    home = aloha.joints().positions
    aloha.advance(500)
    np.testing.assert_allclose(aloha.joints().positions, home, atol=2e-3)


def test_one_controller_moves_one_arm_and_its_gripper(aloha):
    aloha.reset(1)
    before = dict(zip(aloha.joints().names, aloha.joints().positions, strict=True))
    controller = aloha.interfaces["follower_left_controller"]
    goal = [before[name] + 0.1 for name in controller.joint_names[:6]] + [0.05]
    aloha.command("follower_left_controller", going_to(goal, controller.joint_names, 0.5))
    aloha.advance(600)
    after = dict(zip(aloha.joints().names, aloha.joints().positions, strict=True))
    np.testing.assert_allclose([after[name] for name in controller.joint_names], goal, atol=0.01)
    assert after["follower_left/right_finger"] == pytest.approx(-0.05, abs=0.01)
    right = [name for name in after if name.startswith("follower_right/")]
    np.testing.assert_allclose([after[n] for n in right], [before[n] for n in right], atol=2e-3)


def test_the_table_stops_an_arm(aloha):
    """Arm and table top are both part of the URDF; still the one cannot pass through the other."""
    aloha.reset(1)
    controller = aloha.interfaces["follower_left_controller"]
    goal = [0.0, 0.9, 0.9, 0.0, 0.6, 0.0, 0.021]
    aloha.command("follower_left_controller", going_to(goal, controller.joint_names, 1.0))
    aloha.advance(1000)
    assert aloha.world.link_pose("follower_left/ee_gripper_link")[2, 3] > -0.02


def test_xs_groups_and_the_gripper_motor(real_aloha):
    real_aloha.reset(0)
    arm = real_aloha.interfaces["follower_left/commands/joint_group"]
    real_aloha.command("follower_left/commands/joint_group", group([0.1, -0.9, 1.1, 0.1, -0.2, 0.1]))
    real_aloha.command("follower_left/commands/joint_single", SimpleNamespace(name="gripper", cmd=1.6214))
    real_aloha.advance(750)
    message = joint_state_message(real_aloha.joints(), "follower_left/", time_message(S), "base_link")
    reported = dict(zip(message.name, message.position, strict=True))
    assert list(reported)[:6] == [name.removeprefix("follower_left/") for name in arm.joint_names]
    np.testing.assert_allclose(list(reported.values())[:6], [0.1, -0.9, 1.1, 0.1, -0.2, 0.1], atol=0.01)
    assert reported["left_finger"] == pytest.approx(0.057, abs=0.002)  # the calibration says 0.0579, the URDF 0.057
    assert reported["gripper"] == pytest.approx(1.6214, abs=0.15)
    assert reported["right_finger"] == pytest.approx(-reported["left_finger"])


def test_an_xs_group_moves_no_faster_than_its_motors(real_aloha):
    real_aloha.reset(0)
    name = "follower_left/commands/joint_group"
    controller = real_aloha.interfaces[name]
    start = controller.update(real_aloha.time_ns).copy()
    real_aloha.command(name, group(start + [1.5, 0, 0, 0, 0, 0]))
    real_aloha.advance(50)  # 0.1 s
    assert controller.update(real_aloha.time_ns)[0] - start[0] == pytest.approx(0.1 * np.pi, abs=0.02)


@pytest.mark.parametrize("values, why", [([0.0] * 5, "5 values for 6 joints"), ([0.0] * 5 + [np.nan], "not finite")])
def test_a_bad_group_command_is_refused_whole(real_aloha, values, why):
    real_aloha.reset(0)
    before = real_aloha.joints().positions
    with pytest.raises(PositionsRejected, match=why):
        real_aloha.command("follower_left/commands/joint_group", group(values))
    real_aloha.advance(50)
    np.testing.assert_allclose(real_aloha.joints().positions, before, atol=2e-3)


def test_a_command_to_another_group_is_refused_by_name(real_aloha):
    with pytest.raises(PositionsRejected, match="'hand' is unknown; it has: arm"):
        real_aloha.command("follower_left/commands/joint_group", group([0.0] * 6, name="hand"))
    with pytest.raises(PositionsRejected, match="'waist' is unknown; it has: gripper"):
        real_aloha.command("follower_left/commands/joint_single", group(1.0, name="waist"))
