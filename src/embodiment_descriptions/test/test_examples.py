# SPDX-License-Identifier: Apache-2.0
"""The robots of examples/ are robots: description and YAML fit, home is within the limits and inside the workspace."""

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, Kinematics, expand_xacro, resource_path

EXAMPLES = ("ur5e_2f85", "so101", "franka_2f85")


@pytest.fixture(params=EXAMPLES)
def robot(request: pytest.FixtureRequest) -> Embodiment:
    """An example as robot.launch.py reads it."""
    folder = f"examples/{request.param}/{request.param}"
    return Embodiment.from_urdf(expand_xacro(resource_path(f"{folder}.urdf.xacro")), resource_path(f"{folder}.yaml"))


def test_every_joint_at_home_is_within_its_limits(robot: Embodiment) -> None:
    for name in robot.joint_names:
        assert robot.limits[name].lower <= robot.home[name] <= robot.limits[name].upper


def test_the_tip_at_home_is_inside_the_workspace(robot: Embodiment) -> None:
    tip = Kinematics(robot).forward(np.array([robot.home[name] for name in robot.arms[0].joints]))[:3, 3]
    assert (tip > robot.safety.workspace.min).all() and (tip < robot.safety.workspace.max).all()


def test_the_ur5e_reaches_where_the_real_one_does() -> None:
    """UR's forward kinematics for the same joints: flange at (-0.4919, -0.1333, 0.4879) m; the tip 145 mm farther."""
    folder = "examples/ur5e_2f85/ur5e_2f85"
    robot = Embodiment.from_urdf(expand_xacro(resource_path(f"{folder}.urdf.xacro")), resource_path(f"{folder}.yaml"))
    tip = Kinematics(robot).forward(np.array([robot.home[name] for name in robot.arms[0].joints]))
    np.testing.assert_allclose(tip[:3, 3], [-0.4919, -0.1333, 0.4879 - 0.145], atol=1e-3)
    np.testing.assert_allclose(tip[:3, 2], [0.0, 0.0, -1.0], atol=1e-3)


def test_the_franka_reaches_where_the_real_one_does() -> None:
    """With all joints at zero its flange is at (0.088, 0, 0.926) m and points down; the tip is 145 mm farther."""
    folder = "examples/franka_2f85/franka_2f85"
    robot = Embodiment.from_urdf(expand_xacro(resource_path(f"{folder}.urdf.xacro")), resource_path(f"{folder}.yaml"))
    tip = Kinematics(robot).forward(np.zeros(7))
    np.testing.assert_allclose(tip[:3, 3], [0.088, 0.0, 0.926 - 0.145], atol=1e-6)
    np.testing.assert_allclose(tip[:3, 2], [0.0, 0.0, -1.0], atol=1e-6)
