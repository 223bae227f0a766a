# SPDX-License-Identifier: Apache-2.0
"""The cameras that the demo draws into are where the simulator has them."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped

from embodiment_descriptions import load_robot
from qwen_vla.suites import load_suite
from qwen_vla_control.observation.robot_pose import RobotPose
from qwen_vla_ros.drawing.chunk_geometry import planar_pose
from qwen_vla_ros.simulation.demo.command import SHOWS
from qwen_vla_ros.simulation.demo.geometry import Geometry
from qwen_vla_ros.simulation.demo.recording import Moment, Recording
from qwen_vla_sim.node.messages import camera_info_message, optical_pose

ROBOTS = {name: load_robot(name) for name in SHOWS}


def test_a_camera_beside_the_robot_is_where_the_simulator_says():
    """The scene's camera as the simulator publishes it, against the simulator's own projection."""
    world = load_suite("widowx").make_world()
    points = np.random.default_rng(1).uniform((0.15, -0.2, 0.0), (0.45, 0.2, 0.3), (50, 3))
    for seed in SHOWS["widowx"].seeds:
        world.reset(seed)
        info = camera_info_message(world.camera_intrinsics("ego", 240, 320), 240, 320, "ego_optical_frame")
        pose = PoseStamped(pose=optical_pose(world, "ego"))
        pose.header.frame_id = "base_link"
        moment = Moment(0.0, {}, {}, RobotPose(ROBOTS["widowx"].home), "")
        film = Recording(ROBOTS["widowx"], [moment], {"ego": info}, fixed_pose=pose)
        seen = Geometry(film).at(film.moments[0]).views["ego"].project(points)
        np.testing.assert_allclose(seen, world.project("ego", points) * [320, 240, 1], atol=1e-6)


@pytest.mark.parametrize("name", SHOWS)
def test_cameras_of_the_robot_look_from_where_its_links_are(name):
    """By the robot's description, against the simulator's own projection; the base stands elsewhere."""
    robot = ROBOTS[name]
    world = load_suite(name).make_world(embodiment=robot)
    infos = {
        tag: camera_info_message(world.camera_intrinsics(tag, 240, 320), 240, 320, frame)
        for tag, frame in world.camera_frames.items()
    }
    # Odometry counts from where the base started: here it has driven a little since.
    driven = None if robot.base is None else planar_pose(0.4, -0.3, 0.7)
    start = np.eye(4) if robot.base is None else world.link_pose(robot.base.link)
    pose = RobotPose(robot.home, driven, "odom" if robot.base else "")
    moment = Moment(0.0, {}, {}, pose, "")
    views = Geometry(Recording(robot, [moment], infos)).at(moment).views
    points = np.random.default_rng(1).uniform((-0.5, -0.5, 0.0), (1.5, 0.5, 0.5), (50, 3))
    moved = points if driven is None else points @ driven[:3, :3].T + driven[:3, 3]
    in_the_world = points @ start[:3, :3].T + start[:3, 3]
    beside = {"ego"} if name == "widowx" else set()  # not part of the robot
    assert set(views) == {camera.tag for camera in robot.cameras} - beside
    for tag, view in views.items():
        expected = world.project(tag, in_the_world) * [320, 240, 1]
        ahead = expected[:, 2] > 0.05
        assert ahead.any()
        np.testing.assert_allclose(view.project(moved)[ahead], expected[ahead], rtol=1e-3, atol=0.2)
