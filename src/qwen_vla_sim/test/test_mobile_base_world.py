# SPDX-License-Identifier: Apache-2.0
"""The simulated base in its room: it follows commands, collides with walls, and has things in view."""

import numpy as np
import pytest

from embodiment_descriptions import resource_path
from qwen_vla_sim.controllers.diff_drive import DiffDriveParameters
from qwen_vla_sim.mobile_base.env import CONTROLLERS
from qwen_vla_sim.mobile_base.scene import COLORS, space
from qwen_vla_sim.mobile_base.simulated_base import SimulatedBase
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite


@pytest.fixture(scope="module")
def base():
    parameters = DiffDriveParameters.from_controllers_file(resource_path(CONTROLLERS))
    robot = SimulatedBase(MobileBaseSuite().make_world(), parameters)
    yield robot
    robot.world.close()


def drive(base, linear, angular, seconds):
    """Command every tenth of a second, as a node does."""
    for _ in range(round(seconds * 10)):
        base.command_velocity(linear, angular)
        base.advance(round(0.1 / base.world.timestep))


def face(world, thing, distance, beside=0.0):
    """Put the base `distance` [m] from the center of a thing, which is `beside` [rad] to the left of its heading."""
    place = world.things()[thing]
    center = np.mean(space(world.scene, place[0] > 0), axis=0)
    angle = np.arctan2(*(center - place)[::-1])
    world.place(np.array([*(place + distance * np.array([np.cos(angle), np.sin(angle)])), angle + np.pi - beside]))


def test_the_camera_is_that_of_the_embodiment(base):
    assert base.world.cameras == tuple(camera.tag for camera in base.world.embodiment.cameras)
    links = {line.split('"')[1] for line in base.world.embodiment.urdf.splitlines() if "<link name=" in line}
    assert set(base.world.camera_frames.values()) <= links


def test_the_base_follows_commands_and_its_odometry_agrees(base):
    base.reset(0)
    start = base.world.pose.copy()
    base.world.place([-1.5, 0.0, 0.0] if start[0] < 0 else [1.5, 0.0, 0.0])
    before = base.world.pose.copy()
    drive(base, 0.1, 0.4, 3.0)
    assert base.world.pose[2] == pytest.approx(1.2, abs=0.1)
    np.testing.assert_allclose(base.drive.pose, base.world.pose - before, atol=0.02)
    left, right = base.joints().positions
    assert left < right and right > 0
    base.advance(200)  # a second without a command
    np.testing.assert_allclose(base.drive.twist, 0.0, atol=0.01)


def test_a_wall_stops_the_base_but_not_its_wheels(base):
    base.reset(3)
    depth = base.world.scene.room[0]
    base.world.place([-0.05 - depth + 0.4, base.world.scene.door, np.pi])
    drive(base, 0.2, 0.0, 3.0)
    assert base.world.pose[0] > -0.05 - depth
    assert base.drive.pose[0] > 0.4
    assert base.world.task_state().metrics["collisions"] == 1


def test_a_door_lets_the_base_through_and_the_wall_beside_it_does_not(base):
    base.reset(1)
    base.world.place([-0.5, base.world.scene.door, 0.0])
    drive(base, 0.25, 0.0, 4.0)
    assert base.world.pose[0] > 0.4
    base.reset(1)
    base.world.place([-0.5, base.world.scene.door + 0.7, 0.0])
    drive(base, 0.25, 0.0, 4.0)
    assert base.world.pose[0] < -0.05


def test_a_reset_brings_the_base_back(base):
    drive(base, 0.2, 0.0, 0.5)
    base.reset(0)
    np.testing.assert_array_equal(base.drive.pose, 0.0)
    np.testing.assert_allclose(base.world.pose, base.world.scene.start, atol=1e-9)
    base.advance(50)
    np.testing.assert_allclose(base.world.pose, base.world.scene.start, atol=1e-6)


def test_what_is_in_view_has_its_color_where_the_labels_say(base):
    """Boxes and pillars cover the pixel of their point."""
    checked = 0
    for seed in range(12):
        base.reset(seed)
        for index, thing in enumerate(base.world.scene.things):
            if thing.kind not in ("box", "pillar"):
                continue
            face(base.world, index, 0.8, beside=0.2)
            u, v, depth = base.world.image_points()[index]
            assert base.world.in_view(index) and 0 < u < 0.5
            pixel = base.world.render("ego", 120, 160)[int(v * 120), int(u * 160)].astype(float)
            own = np.array(COLORS[thing.color])
            assert np.argmax(pixel) == np.argmax(own) and np.argmin(pixel) == np.argmin(own)
            checked += 1
    assert checked > 5


def test_walls_and_things_occlude_what_is_behind_them(base):
    base.reset(2)
    hidden = [index for index, thing in enumerate(base.world.scene.things) if thing.x > 0]
    for index in hidden:  # through the wall, far from the door
        x, y = base.world.things()[index]
        away = -1.0 if base.world.scene.door > 0 else 1.0
        place = np.array([-1.0, away * 1.0])
        base.world.place([*place, np.arctan2(y - place[1], x - place[0])])
        u, v, depth = base.world.image_points()[index]
        assert 0 <= u <= 1 and 0 <= v <= 1
        assert (depth < 0) == (not base.world.in_view(index))
    assert any(not base.world.in_view(index) for index in hidden)


def test_facing_away_nothing_of_it_is_in_view(base):
    base.reset(0)
    face(base.world, 0, 1.0, beside=np.pi)
    assert not base.world.in_view(0)
