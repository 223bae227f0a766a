# SPDX-License-Identifier: Apache-2.0
"""A spectator sees the robot and what it is asked for, in good light, and changes nothing that the robot sees."""

import mujoco
import numpy as np
import pytest

from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite
from qwen_vla_sim.spectator.spectator import Spectator
from qwen_vla_sim.widowx.suite import WidowXSuite

SIZE = (90, 120)
SUITES = {suite.name: suite for suite in (WidowXSuite, AlohaSuite, MobileBaseSuite)}


@pytest.fixture(scope="module", params=SUITES)
def watched(request):
    world = SUITES[request.param]().make_world()
    world.reset(9000)
    spectator = Spectator(world, *SIZE)
    yield world, spectator
    spectator.close()
    world.close()


def test_its_pictures_are_well_lit(watched):
    _, spectator = watched
    image = spectator.image()
    assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
    assert 70 < image.mean() < 220 and np.ptp(image.mean(axis=2)) > 100
    assert (image.max(axis=2) < 12).mean() < 0.1, "hardly anything is black"


def test_the_robot_and_the_things_of_its_task_are_in_view(watched):
    world, spectator = watched
    if world.embodiment.base:
        points = np.array([[*world.pose[:2], 0.1], [*world.things()[world.scene.target], 0.1]])
    else:
        tips = [world.link_pose(arm.tip_link)[:3, 3] for arm in world.embodiment.arms]
        points = np.array([*tips, world.data.xpos[world.model.body(_target(world)).id]])
    seen = spectator.project(points)
    assert ((seen > 0) & (seen < SIZE[::-1])).all(), seen


def _target(world) -> str:
    thing = world.scene.named if hasattr(world.scene, "named") else None
    return f"{thing.kind}_{thing.slot}" if thing else world.things.names[world.scene.target]


def test_points_are_projected_to_where_they_are_drawn(watched):
    """A red ball in the middle of the air, against its pixels."""
    world, spectator = watched
    view = world.viewpoint()
    place = np.array(view.target) + 0.15 * view.axes()[1] + 0.1 * view.axes()[2] - 0.3 * view.axes()[0]
    dress = world.dress

    def with_ball(scene):
        dress(scene)
        kind, color = mujoco.mjtGeom.mjGEOM_SPHERE, np.array([1, 0, 0, 1], np.float32)
        ball, size = scene.geoms[scene.ngeom], np.full(3, 0.02 * view.distance)
        mujoco.mjv_initGeom(ball, kind, size, place, np.eye(3).ravel(), color)
        ball.emission = 1.0
        scene.ngeom += 1

    before = spectator.image().astype(int)
    world.dress = with_ball
    try:
        after = spectator.image().astype(int)
    finally:
        world.dress = dress
    changed = np.argwhere((after[..., 0] - after[..., 1] > 100) & (np.abs(after - before).sum(axis=2) > 60))
    assert len(changed) > 10
    np.testing.assert_allclose(spectator.project(place[None])[0], changed.mean(axis=0)[::-1] + 0.5, atol=1.5)


def test_what_is_behind_the_spectator_is_nowhere(watched):
    world, spectator = watched
    view = world.viewpoint()
    behind = np.array(view.target) - 2 * view.distance * view.axes()[0]
    assert np.isnan(spectator.project(behind[None])).all()


def test_the_robot_s_own_images_stay_what_they_are(watched):
    """Bit by bit: a policy must not notice that somebody watches."""
    world, spectator = watched
    camera = world.cameras[0]
    before = world.render(camera).copy()
    spectator.image()
    np.testing.assert_array_equal(world.render(camera), before)
    fresh = SUITES[type_of(world)]().make_world()
    fresh.reset(9000)
    np.testing.assert_array_equal(fresh.render(camera), before)
    fresh.close()


def type_of(world) -> str:
    return next(name for name, suite in SUITES.items() if suite.robot == world.embodiment.name)
