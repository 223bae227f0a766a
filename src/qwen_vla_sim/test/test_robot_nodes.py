# SPDX-License-Identifier: Apache-2.0
"""ALOHA and the mobile base as other nodes see them: topics, types, frames, and that commands arrive."""

from __future__ import annotations

import importlib.util
import time

import pytest
import rclpy
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, JointState

from qwen_vla_msgs.msg import TaskState
from qwen_vla_sim.aloha.node import AlohaSim
from qwen_vla_sim.mobile_base.node import MobileBaseSim
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite

DEADLINE = 60.0  # [s] for whatever should happen soon on an idle machine
NO_CAMERAS = {"image_rate": 0.0}
REAL_ALOHA = "config/embodiments/aloha_real.yaml"


class Graph:
    """A simulator in this process and a client beside it."""

    def __init__(self, kind, **parameters) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        try:
            self.sim = kind(context=self.context, parameter_overrides=overrides)
        except Exception:
            rclpy.shutdown(context=self.context)
            raise
        self.client = rclpy.create_node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        for node in (self.sim, self.client):
            self.executor.add_node(node)

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_) -> None:
        self.sim.close()
        self.executor.shutdown()
        for node in (self.client, self.sim):
            node.destroy_node()
        rclpy.shutdown(context=self.context)

    def wait(self, condition, what: str):
        end = time.monotonic() + DEADLINE
        while not (value := condition()):
            assert self.sim.failure is None
            assert time.monotonic() < end, f"no {what} within {DEADLINE} s"
            self.executor.spin_once(timeout_sec=0.1)
        return value

    def types(self, direction: str) -> dict[str, str]:
        """Topic -> type of what the simulator publishes or listens to."""
        node = self.sim
        listed = getattr(node, f"get_{direction}_names_and_types_by_node")(node.get_name(), node.get_namespace())
        return {topic: kind for topic, (kind, *_) in listed}


def listen(graph: Graph, kind, topic: str) -> list:
    received: list = []
    graph.client.create_subscription(kind, topic, received.append, 10)
    return received


def test_aloha_behind_ros2_control():
    with Graph(AlohaSim, **NO_CAMERAS) as graph:
        states = listen(graph, JointState, "joint_states")
        names = list(graph.wait(lambda: states, "joint states")[0].name)
        assert names[0] == "follower_left/waist" and "follower_right/right_finger" in names and len(names) == 16
        heard = graph.types("subscriber")
        for side in ("left", "right"):
            topic = f"/follower_{side}_controller/joint_trajectory"
            assert heard[topic] == "trajectory_msgs/msg/JointTrajectory"


def test_aloha_behind_xs_sdk():
    if importlib.util.find_spec("interbotix_xs_msgs") is None:
        with pytest.raises(RuntimeError, match="interbotix_xs_msgs is not installed"):
            Graph(AlohaSim, embodiment_config=REAL_ALOHA, **NO_CAMERAS)
        return
    with Graph(AlohaSim, embodiment_config=REAL_ALOHA, **NO_CAMERAS) as graph:
        heard = graph.types("subscriber")
        assert heard["/follower_left/commands/joint_group"] == "interbotix_xs_msgs/msg/JointGroupCommand"
        assert heard["/follower_right/commands/joint_single"] == "interbotix_xs_msgs/msg/JointSingleCommand"
        states = listen(graph, JointState, "follower_left/joint_states")
        names = list(graph.wait(lambda: states, "joint states")[0].name)
        assert names[0] == "waist" and {"gripper", "left_finger", "right_finger"} <= set(names)
        import interbotix_xs_msgs.msg as messages

        publisher = graph.client.create_publisher(messages.JointGroupCommand, "follower_left/commands/joint_group", 10)
        graph.wait(publisher.get_subscription_count, "subscriber of the group")
        start = states[-1].position[0]

        def turned() -> bool:
            publisher.publish(messages.JointGroupCommand(name="arm", cmd=[0.2, -0.96, 1.16, 0.0, -0.3, 0.0]))
            return states[-1].position[0] > start + 0.15

        graph.wait(turned, "motion")


def test_the_base_is_driven_by_stamped_velocities_and_stops_without_them():
    with Graph(MobileBaseSim, **NO_CAMERAS) as graph:
        odometry = listen(graph, Odometry, "odom")
        publisher = graph.client.create_publisher(TwistStamped, "cmd_vel", 10)
        assert graph.types("subscriber")["/cmd_vel"] == "geometry_msgs/msg/TwistStamped"
        graph.wait(lambda: odometry and publisher.get_subscription_count(), "connection")
        assert (odometry[0].header.frame_id, odometry[0].child_frame_id) == ("odom", "base_footprint")
        command = TwistStamped()  # stamp 0: now
        command.twist.linear.x = 5.0

        def at_full_speed() -> bool:
            publisher.publish(command)
            return odometry[-1].twist.twist.linear.x > 0.25

        graph.wait(at_full_speed, "full speed")
        assert max(o.twist.twist.linear.x for o in odometry) < 0.27  # not 5
        graph.wait(lambda: abs(odometry[-1].twist.twist.linear.x) < 1e-3, "rest after the last command")
        assert odometry[-1].pose.pose.position.x > 0.05


def test_the_base_publishes_the_state_of_its_task():
    with Graph(MobileBaseSim, seed=2, shift="instruction", **NO_CAMERAS) as graph:
        states = listen(graph, TaskState, "mobile_base_sim/task_state")
        state = graph.wait(lambda: states, "task state")[-1]
        scene = MobileBaseSuite().scene(2, "instruction")
        assert (state.task, state.instruction, state.target) == ("two_legs", scene.instruction, scene.target_name)
        assert not state.success and state.failure == "did not leave the room" and state.distance > 1.0


def test_a_base_of_an_older_controller_takes_plain_twists_and_other_types_are_refused():
    with Graph(MobileBaseSim, cmd_vel_message="twist", **NO_CAMERAS) as graph:
        assert graph.types("subscriber")["/cmd_vel"] == "geometry_msgs/msg/Twist"
    with pytest.raises(ValueError, match="'wheels' is not one of: twist_stamped, twist"):
        Graph(MobileBaseSim, cmd_vel_message="wheels", **NO_CAMERAS)


def test_where_everything_is_comes_with_every_exposure():
    """From it, pictures of the whole scene are rendered later."""
    with Graph(MobileBaseSim) as graph:
        (camera,) = graph.sim.embodiment.cameras
        exposures: list = []
        graph.client.create_subscription(CameraInfo, camera.info_topic, exposures.append, qos_profile_sensor_data)
        positions = listen(graph, JointState, f"{graph.sim.get_name()}/positions")

        def of_one_time() -> set:
            stamps = [{(m.header.stamp.sec, m.header.stamp.nanosec) for m in heard} for heard in (exposures, positions)]
            return set.intersection(*stamps)

        graph.wait(lambda: len(of_one_time()) > 3, "positions with the times of exposures")
        assert len(positions[-1].position) == graph.sim.world.model.nq
