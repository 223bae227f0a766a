# SPDX-License-Identifier: Apache-2.0
"""World and controllers together, and the cameras' thread, without ROS."""

import threading
from typing import ClassVar

import numpy as np
import pytest
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodiment_descriptions import load_robot
from embodiment_descriptions.commands import GripperActionCommand, JointTrajectoryCommand, Nav2PoseCommand
from qwen_vla_sim.controllers.joint_trajectory_controller import TrajectoryRejected
from qwen_vla_sim.controllers.position_interfaces import PositionInterface
from qwen_vla_sim.controllers.simulated_robot import SimulatedRobot
from qwen_vla_sim.node.camera_rig import CameraRig
from qwen_vla_sim.widowx.suite import WidowXSuite
from qwen_vla_sim.widowx.table_spec import CAMERAS

S = 1_000_000_000
ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")


@pytest.fixture
def robot():
    robot = SimulatedRobot(WidowXSuite().make_world())
    robot.reset(11)
    return robot


def go(positions, seconds, names=ARM, stamp_ns=0):
    point = JointTrajectoryPoint(positions=list(map(float, positions)))
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(seconds * S), S)
    message = JointTrajectory(joint_names=names, points=[point])
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, S)
    return message


def test_it_holds_home_until_commanded(robot):
    home = robot.joints().positions
    robot.advance(500)
    np.testing.assert_allclose(robot.joints().positions, home, atol=1e-3)


def test_both_controllers_move_their_own_joints(robot):
    goal = np.array(robot.joints().positions[:6]) + [0.3, -0.1, 0.1, 0.2, -0.1, 0.4]
    robot.command("arm_controller", go(goal, 1.0))
    robot.command("gripper_controller", go([0.02], 0.5, ("left_finger",)))
    robot.advance(600)
    reading = robot.joints()
    assert reading.names == (*ARM, "left_finger", "right_finger")
    np.testing.assert_allclose(reading.positions[:6], goal, atol=0.01)
    np.testing.assert_allclose(reading.positions[6:], [0.02, -0.02], atol=0.001)


def test_a_set_point_beyond_the_limit_stops_at_the_limit(robot):
    limit = robot.world.embodiment.limits["left_finger"]
    robot.command("gripper_controller", go([limit.upper + 0.1], 0.2, ("left_finger",)))
    robot.advance(300)
    assert robot.joints().positions[6] == pytest.approx(limit.upper, abs=1e-3)


def test_a_controller_that_is_activated_where_a_joint_lags_behind_makes_no_step(robot):
    start = np.array(robot.joints().positions[:6])
    robot.command("arm_controller", go(start + [0.5, 0, 0, 0, 0, 0], 0.3))
    robot.advance(75)
    lag = robot.interfaces["arm_controller"].command[0] - robot.joints().positions[0]
    assert lag > 0.02
    before = robot.limits.peak()
    robot.set_active("arm_controller", False)
    robot.set_active("arm_controller", True)
    robot.advance(50)
    assert robot.limits.peak() == before


def test_a_controller_that_is_activated_with_a_false_measurement_makes_a_step(robot):
    robot.advance(10)
    robot.set_active("arm_controller", False)
    robot.hardware.set_offset("waist", 0.02)
    robot.set_active("arm_controller", True)
    robot.advance(10)
    peak = robot.limits.peak()
    assert peak.misled_joint == "waist" and peak.misled == pytest.approx(0.02)
    assert peak.step < 2e-3 and peak.speed_share <= 1.0  # no command made it


def test_a_refused_message_moves_nothing(robot):
    before = robot.joints().positions
    with pytest.raises(TrajectoryRejected, match="missing: wrist_rotate"):
        robot.command("arm_controller", go([0.5] * 5, 0.1, ARM[:5]))
    robot.advance(100)
    np.testing.assert_allclose(robot.joints().positions, before, atol=1e-3)


def test_stamps_are_simulated_time(robot):
    robot.advance(500)
    with pytest.raises(TrajectoryRejected, match="before now"):
        robot.command("arm_controller", go([0.0] * 6, 0.1, stamp_ns=S // 2))
    robot.command("arm_controller", go([0.0] * 6, 1.0, stamp_ns=S // 2))


def test_a_reset_forgets_the_motion_but_not_the_time(robot):
    home = robot.joints().positions
    robot.command("arm_controller", go([0.8, *home[1:6]], 0.5))
    robot.advance(125)
    assert robot.joints().positions[0] > 0.2
    before = robot.time_ns
    robot.reset(12)
    robot.advance(250)
    np.testing.assert_allclose(robot.joints().positions, home, atol=1e-3)
    assert robot.time_ns == before + S // 2
    assert robot.episode_time == pytest.approx(0.5)


def test_a_negative_seed_is_refused_and_the_scene_stays(robot):
    instruction, cubes = robot.world.instruction, robot.world.thing_positions()
    with pytest.raises(ValueError, match="-1"):
        robot.reset(-1)
    assert robot.world.instruction == instruction
    np.testing.assert_array_equal(robot.world.thing_positions(), cubes)


def test_joined_to_the_measured_state_the_arm_starts_from_where_it_is():
    robot = SimulatedRobot(WidowXSuite().make_world(), interpolate_from_desired_state=False)
    measured = robot.joints().positions[0]
    robot.world.place_arm(np.array([0.5, *robot.joints().positions[1:7]]))
    robot.command("arm_controller", go([0.5, *robot.joints().positions[1:6]], 1.0))
    robot.advance(250)
    assert measured == pytest.approx(0.0, abs=1e-3)
    assert robot.joints().positions[0] == pytest.approx(0.5, abs=0.01)


class Unsimulated(JointTrajectoryCommand):
    """A kind that no simulator obeys."""

    simulated: ClassVar = ""


class HalfSimulated(JointTrajectoryCommand):
    """A kind whose stand-in is none."""

    simulated: ClassVar = f"{__name__}:half_a_stand_in"


def half_a_stand_in(command, embodiment, positions, **parameters):
    return PositionInterface(command.joints, positions, [1.0])


GRIPPER = {"backend": "joint_trajectory", "topic": "gripper_controller/joint_trajectory", "joints": ["left_finger"]}
ACTION = {"backend": "gripper_action", "action": "gripper_cmd", "joint": "left_finger", "kind": "parallel"}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (GripperActionCommand(**ACTION), "'gripper_action' has no stand-in in the simulator; command the robot"),
        (Unsimulated(**GRIPPER), "'joint_trajectory' has no stand-in in the simulator; command the robot through"),
        (HalfSimulated(**GRIPPER), "its stand-in in the simulator, .*half_a_stand_in, lacks topic, .*take, controller"),
        (Nav2PoseCommand(backend="nav2_pose"), "'nav2_pose' drives a base, and this simulator has none"),
    ],
)
def test_what_nobody_would_obey_is_refused_at_start(command, why):
    """A command that nobody takes would look like a robot that does not move."""
    widowx = load_robot("widowx")
    robot = widowx.model_copy(update={"commands": (widowx.commands[0], command)})
    world = WidowXSuite().make_world(embodiment=robot)
    with pytest.raises(ValueError, match=why):
        SimulatedRobot(world)
    world.close()


class TestCameraRig:
    def test_it_publishes_what_was_there_at_the_capture_in_its_own_thread(self, robot):
        """The world moves on after the capture; the image must still be the one of the captured instant."""
        seen = {}
        gate = threading.Event()

        def publish(camera, stamp_ns, image):
            assert gate.wait(30)
            seen[camera] = (stamp_ns, image.copy(), threading.current_thread())

        world = robot.world
        rig = CameraRig(world.model, CAMERAS, 120, 160, publish)
        try:
            expected = {camera: world.render(camera, 120, 160) for camera in CAMERAS}
            assert rig.capture(world.data, 123)
            assert not rig.capture(world.data, 456)  # busy: the second exposure is skipped
            assert not rig.wait_idle(0.01)
            world.place_arm(np.array([1.0, 0.3, 0.3, 0.3, 1.0, 1.0, 0.02]))
            gate.set()
            assert rig.wait_idle(30)
            assert rig.failure is None
            for camera in CAMERAS:
                stamp_ns, image, thread = seen[camera]
                assert stamp_ns == 123 and thread is not threading.current_thread()
                np.testing.assert_array_equal(image, expected[camera])
                assert np.abs(image.astype(int) - world.render(camera, 120, 160)).mean() > 1
        finally:
            rig.close()
            world.close()
        assert not rig.capture(world.data, 789)

    def test_an_image_that_cannot_be_drawn_is_reported_at_once(self, robot):
        with pytest.raises(RuntimeError, match="image_rate:=0.0"):
            CameraRig(robot.world.model, CAMERAS, 10_000, 10_000, lambda *_: None)

    def test_a_failing_publisher_is_kept_as_the_failure(self, robot):
        def publish(camera, stamp_ns, image):
            raise OSError("no room")

        rig = CameraRig(robot.world.model, CAMERAS[:1], 24, 32, publish)
        assert rig.capture(robot.world.data, 1)
        assert rig.wait_idle(30)
        assert isinstance(rig.failure, OSError)
        rig.close()
