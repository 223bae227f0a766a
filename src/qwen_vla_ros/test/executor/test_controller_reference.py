# SPDX-License-Identifier: Apache-2.0
"""How what controllers start from comes together with where the joints are, where no controller manager helps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from embodiment_descriptions import Embodiment
from qwen_vla_control.gate import ArmGate
from qwen_vla_control.motion.command_state import CommandState
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason
from qwen_vla_ros.executor.controller_reference import ControllerReference
from qwen_vla_ros.ros.environment import ros_environment

MOVED = 0.4  # [rad] of the waist


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    os.environ.update(ros_environment())
    context = rclpy.Context()
    context.init(domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    made = Node("reference", context=context)
    made.parameters = SimpleNamespace(home_speed_share=0.25)
    yield made
    made.destroy_node()
    context.try_shutdown()


class Moved:
    """A robot that was commanded to stand at home, and whose waist and gripper somebody has moved since.

    Attributes:
        home, measured: (joints,).
        commanded: what its controllers were told.
        led: paths that were sent.
        restarts: of controllers, how they ended.
    """

    def __init__(self, home: np.ndarray, gate: ArmGate) -> None:
        self.home, self.led, self.restarts = home, [], []
        names = np.array(gate.joints)
        self.measured = home + MOVED * (names == "waist") - 0.01 * (names == "left_finger")
        self.commanded = CommandState()
        self.commanded.stand(home)

    def resynchronize(self, controllers: ControllerReference) -> str:
        return controllers.resynchronize(self.measured, self.led.append, self._on_restarted)

    def _on_restarted(self, good: bool, text: str) -> None:
        self.restarts.append(text)


@pytest.fixture
def moved(home: np.ndarray, gate: ArmGate) -> Moved:
    return Moved(home, gate)


@pytest.fixture
def watch(node: Node, gate: ArmGate, moved: Moved):
    """Build what knows the reference of a robot, which is removed after the test."""
    made: list[ControllerReference] = []

    def build(robot: Embodiment, streamed: tuple[str, ...] = ()) -> ControllerReference:
        made.append(ControllerReference(node, robot, gate, moved.commanded, streamed, lambda: moved.measured))
        return made[-1]

    yield build
    for one in made:
        one.destroy()


def assert_led_to_the_waist(moved: Moved, gate: ArmGate) -> None:
    (path,) = moved.led
    assert isinstance(path, JointPath) and path.joints == gate.joints and path.duration >= 1.0
    np.testing.assert_array_equal(path.positions[0], moved.home)
    changed = path.positions[-1] - moved.home
    np.testing.assert_allclose(changed, MOVED * (np.array(gate.joints) == "waist"), atol=1e-12)
    assert not moved.restarts


def test_a_trajectory_controller_is_led_from_its_last_command_and_the_gripper_keeps_what_it_holds(
    watch, moved, gate, widowx
):
    controllers = watch(widowx)
    (found,) = controllers.check(moved.measured)
    assert found.reason == Reason.REFERENCE_MISMATCH and "joint 'waist'" in found.message
    assert "moving the reference of arm_controller to where waist are" in moved.resynchronize(controllers)
    assert_led_to_the_waist(moved, gate)


def test_a_device_that_plays_paths_and_has_no_known_controller_is_led_not_restarted(watch, moved, gate, widowx):
    controllers = watch(widowx.model_copy(update={"commands": ()}))
    assert "moving the reference of the devices to where waist are" in moved.resynchronize(controllers)
    assert_led_to_the_waist(moved, gate)


def test_a_device_that_takes_set_points_starts_where_it_is_and_is_sent_nothing(watch, moved, gate, widowx):
    controllers = watch(widowx, streamed=gate.joints)
    assert controllers.check(moved.measured)
    assert "the next motion starts where the joints are" in moved.resynchronize(controllers)
    assert not moved.led and not controllers.check(moved.measured)
    finger = gate.joints.index("left_finger")
    assert moved.commanded.last[finger] == moved.home[finger], "it would let go"


def test_a_device_that_takes_set_points_stays_where_it_is_while_another_one_is_led(watch, moved, gate, widowx):
    shoulder = gate.joints.index("shoulder")
    moved.measured[shoulder] += 0.3
    assert "to where waist are" in moved.resynchronize(watch(widowx, streamed=("shoulder",)))
    (path,) = moved.led
    np.testing.assert_array_equal(path.positions[:, shoulder], moved.measured[shoulder])


def test_joints_that_did_not_follow_may_start_anywhere_until_somebody_has_looked(watch, moved, gate, widowx):
    controllers = watch(widowx)
    moved.measured = moved.home
    assert controllers.check(moved.measured) == []
    controllers.not_followed = True
    (found,) = controllers.check(moved.measured)
    assert found.reason == Reason.REFERENCE_MISMATCH and "do not publish where they would start from" in found.message
    moved.resynchronize(controllers)
    assert controllers.check(moved.measured) == [] and len(moved.led) == 1


def test_joints_that_did_not_follow_must_be_nearer_to_where_their_controller_is_than_others(
    node, watch, moved, gate, widowx
):
    kind = pytest.importorskip("control_msgs.msg", reason="apt install ros-jazzy-control-msgs")
    controllers, arm = watch(widowx), widowx.arms[0].joints
    publisher = node.create_publisher(kind.JointTrajectoryControllerState, "arm_controller/controller_state", 10)
    message = kind.JointTrajectoryControllerState(joint_names=list(arm))
    message.reference.positions = [moved.home[gate.joints.index(joint)] for joint in arm]
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    while "last command" in controllers.reference(moved.home).sources[0]:
        publisher.publish(message)
        executor.spin_once(timeout_sec=0.1)
    behind = moved.home + 0.05 * (np.array(gate.joints) == "waist")
    assert controllers.check(behind) == []
    controllers.not_followed = True
    assert controllers.check(moved.home) == []
    (found,) = controllers.check(behind)
    assert found.reason == Reason.REFERENCE_MISMATCH and "0.0500 away (limit 0.0200)" in found.message
    executor.shutdown()
    node.destroy_publisher(publisher)


def test_where_both_agree_nothing_is_done(watch, moved, widowx):
    moved.measured = moved.home
    assert "nothing was done" in moved.resynchronize(watch(widowx))
    assert not moved.led and not moved.restarts


def test_a_gripper_that_is_measured_beyond_its_limit_starts_at_the_limit(watch, moved, gate, widowx):
    finger = gate.joints.index("left_finger")
    moved.measured = moved.home.copy()
    moved.measured[finger] = gate.motion.lower[finger] - 1e-4
    moved.commanded.stand(moved.measured)
    assert watch(widowx).reference(moved.measured).positions[finger] == gate.motion.lower[finger]


def test_a_joint_that_is_measured_beyond_a_limit_is_led_to_the_limit(watch, moved, gate, widowx):
    wrist = gate.joints.index("wrist_angle")
    moved.measured = moved.home.copy()
    moved.measured[wrist] = gate.motion.upper[wrist] + 0.02
    controllers = watch(widowx)
    assert "moving the reference of arm_controller" in moved.resynchronize(controllers)
    (path,) = moved.led
    assert path.positions[-1, wrist] == gate.motion.upper[wrist]
    moved.commanded.stand(path.positions[-1])
    assert controllers.check(moved.measured) == []
