# SPDX-License-Identifier: Apache-2.0
"""The mobile base stands on its wheels and casters, drives as its joints are meant to, and is described as a base."""

import mujoco
import numpy as np
import pytest
from description_checks import parsed, robot, simulated, text

WHEEL_RADIUS, WHEEL_SEPARATION = 0.033, 0.288  # [m]


def test_wheels_and_casters_stand_on_the_floor() -> None:
    model, data = simulated("mobile_base")
    mujoco.mj_kinematics(model, data)
    root = parsed("mobile_base")
    for side in ("left", "right"):
        assert data.body(f"wheel_{side}_link").xpos[2] == pytest.approx(WHEEL_RADIUS)
        ball = root.find(f"link[@name='caster_back_{side}_link']/collision/geometry/sphere")
        assert data.body(f"caster_back_{side}_link").xpos[2] == pytest.approx(float(ball.get("radius")))


def driven(left: float, right: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Drive on a floor with these wheel speeds [rad/s] by MuJoCo's physics.

    Returns:
        x, y [m] and heading [rad] of the base; how far the left and the right wheel have rolled [m].
    """
    spec = mujoco.MjSpec.from_string(text("mobile_base"))
    spec.compiler.fusestatic = False
    spec.body("base_footprint").add_freejoint()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 0.1])
    for side in ("left", "right"):
        for geom in spec.body(f"caster_back_{side}_link").geoms:
            geom.friction, geom.priority = [0.01, 0.0, 0.0], 1
        actuator = spec.add_actuator(name=side, target=f"wheel_{side}_joint", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.gainprm[0], actuator.biasprm[2] = 0.3, -0.3
        actuator.forcelimited, actuator.forcerange = True, [-0.1, 0.1]
        actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    model = spec.compile()
    data = mujoco.MjData(model)
    data.ctrl[:] = left, right
    mujoco.mj_step(model, data, round(seconds / model.opt.timestep))
    body = data.body("base_footprint")
    rolled = [WHEEL_RADIUS * data.joint(f"wheel_{side}_joint").qpos[0] for side in ("left", "right")]
    return np.array([*body.xpos[:2], np.arctan2(body.xmat[3], body.xmat[0])]), np.array(rolled)


def test_both_wheels_forward_drive_along_x() -> None:
    pose, rolled = driven(6.0, 6.0, 2.0)
    assert rolled.min() > 0.3
    np.testing.assert_allclose(pose, [rolled.mean(), 0.0, 0.0], atol=0.01)


def test_the_right_wheel_forward_turns_left() -> None:
    pose, rolled = driven(-3.0, 3.0, 2.0)
    assert rolled[1] > 0.15 and rolled[0] < -0.15
    np.testing.assert_allclose(pose, [0.0, 0.0, (rolled[1] - rolled[0]) / WHEEL_SEPARATION], atol=0.05)


def test_the_camera_faces_forward_above_the_floor() -> None:
    model, data = simulated("mobile_base")
    mujoco.mj_kinematics(model, data)
    eye = data.body("camera_optical_frame")
    np.testing.assert_allclose(eye.xmat.reshape(3, 3), [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-9)
    assert eye.xpos[0] > 0.07 and 0.05 < eye.xpos[2] < 0.2


def test_embodiment() -> None:
    e = robot("mobile_base")
    assert (e.control_mode, e.rate_hz, e.chunk_size) == ("base_waypoints", 2.0, 8)
    assert e.channel_names == ("dx", "dy", "dtheta")
    assert (e.arms, e.joint_names, e.limits, e.home) == ((), (), {}, {})
    assert (e.base.kind, e.base.link, e.base_frame) == ("differential", "base_footprint", "base_footprint")
    assert (e.odometry.topic, e.odometry.max_age_s) == ("odom", 0.5)
    assert [(c.backend, c.topic, c.message) for c in e.commands] == [("base_velocity", "cmd_vel_nav", "auto")]
    limits = e.safety.base
    assert (limits.max_linear, limits.max_angular) == (0.26, 1.82)


@pytest.mark.parametrize("hardware", ["mock", "gazebo", "isaac"])
def test_a_command_is_sent_even_if_nothing_changed(hardware: str) -> None:
    """TopicBasedSystem compares command and state by default, and would swallow a stop."""
    parameters = {p.get("name"): p.text for p in parsed("mobile_base", hardware).findall("ros2_control/hardware/param")}
    assert parameters.get("trigger_joint_command_threshold") == ("-1" if hardware == "isaac" else None)
