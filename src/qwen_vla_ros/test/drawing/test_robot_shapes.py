# SPDX-License-Identifier: Apache-2.0
"""Appearance of a robot: shapes of the URDF, and links that move with the joints."""

from __future__ import annotations

import numpy as np
import pytest

from embodiment_descriptions import Kinematics, load_robot
from qwen_vla_ros.drawing.robot_shapes import GRAY, RobotShapes, mesh_file

URDF = """
<robot name="r">
  <material name="blue"><color rgba="0 0 1 1"/></material>
  <link name="base"><visual><geometry><box size="1 2 3"/></geometry><material name="blue"/></visual></link>
  <link name="wheel">
    <visual><origin xyz="1 0 0" rpy="0 0 1.5707963267948966"/><geometry><cylinder radius="0.1" length="0.2"/></geometry>
      <material name="own"><color rgba="1 0 0 0.5"/></material></visual>
    <visual><geometry><sphere radius="0.3"/></geometry></visual>
    <visual><geometry><mesh filename="package://nowhere/a.stl" scale="2 2 2"/></geometry></visual>
  </link>
  <link name="echo"/>
  <joint name="turn" type="continuous">
    <parent link="base"/><child link="wheel"/><origin xyz="0 0 1"/><axis xyz="0 0 1"/>
  </joint>
  <joint name="follower" type="prismatic">
    <parent link="base"/><child link="echo"/><axis xyz="1 0 0"/><limit lower="-9" upper="9"/>
    <mimic joint="turn" multiplier="-2" offset="0.5"/>
  </joint>
</robot>"""


def test_every_kind_of_shape_is_read():
    box, cylinder, sphere, mesh = RobotShapes(URDF).shapes
    assert (box.link, box.kind, box.size, box.color) == ("base", "box", (1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 1.0))
    assert (cylinder.kind, cylinder.size, cylinder.color) == ("cylinder", (0.1, 0.2), (1.0, 0.0, 0.0, 0.5))
    assert np.allclose(cylinder.placement[:3], [[0, -1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]])
    assert (sphere.kind, sphere.size, sphere.color) == ("sphere", (0.3,), GRAY)
    assert (mesh.kind, mesh.size, mesh.mesh) == ("mesh", (2.0, 2.0, 2.0), "package://nowhere/a.stl")


def test_continuous_joints_rotate_and_mimics_follow():
    links = RobotShapes(URDF).link_poses({"turn": 7.0, "unknown": 1.0})
    assert np.allclose(links["wheel"][:3, 0], [np.cos(7.0), np.sin(7.0), 0.0])
    assert links["wheel"][2, 3] == 1.0
    assert RobotShapes(URDF).moving == {"wheel", "echo"}
    assert links["echo"][0, 3] == pytest.approx(-2 * 7.0 + 0.5)


@pytest.mark.parametrize("robot", ["widowx", "aloha"])
def test_link_poses_match_the_arms_kinematics(robot):
    embodiment = load_robot(robot)
    joints = {name: position + 0.05 for name, position in embodiment.home.items()}
    links = RobotShapes(embodiment.urdf).link_poses(joints)
    for index, arm in enumerate(embodiment.arms):
        tip = Kinematics(embodiment, index).forward([joints[name] for name in arm.joints])
        assert np.allclose(links[arm.base_link] @ tip, links[arm.tip_link], atol=1e-9)


@pytest.mark.parametrize("robot", ["widowx", "aloha", "mobile_base"])
def test_the_robots_of_the_suite_have_shapes(robot):
    shapes = RobotShapes(load_robot(robot).urdf)
    assert len(shapes.shapes) >= 5 and {shape.link for shape in shapes.shapes} <= set(shapes.links)


def test_mesh_files_are_found_or_not(tmp_path):
    file = tmp_path / "a.stl"
    file.write_bytes(b"x")
    assert mesh_file(f"file://{file}") == mesh_file(str(file)) == file
    assert mesh_file("package://no_such_package/a.stl") is None
    assert mesh_file("package://qwen_vla_ros/no_such_file.stl") is None
