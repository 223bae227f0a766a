# SPDX-License-Identifier: Apache-2.0
"""The demo's spectator sees a recorded moment as it was in the simulator, and paths where they lead."""

from contextlib import closing

import numpy as np
import pytest
from sensor_msgs.msg import Image

from embodiment_descriptions import load_robot
from qwen_vla.suites import load_suite
from qwen_vla_ros.simulation.demo.geometry import NOTHING_KNOWN, Situation
from qwen_vla_ros.simulation.demo.paths import PREDICTED, REFUSED
from qwen_vla_ros.simulation.demo.recording import Moment, Recording
from qwen_vla_ros.simulation.demo.stage import Stage

SIZE = (120, 160)
SEED = 9001
STAMP = 7_000_000_000


def moment(refusal: str = "") -> Moment:
    image = Image()
    image.header.stamp.sec = STAMP // 10**9
    return Moment(0.5, {"ego": image}, {}, None, "executing", refusal)


def recorded(name: str, positions: np.ndarray | None) -> Recording:
    return Recording(load_robot(name), suite=name, positions={} if positions is None else {STAMP: positions})


@pytest.fixture(scope="module", params=["widowx", "aloha", "mobile_base"])
def happened(request):
    """A robot that has moved in its scene: its name, what a spectator of it sees, and where everything is."""
    with closing(load_suite(request.param).make_env(cameras=False)) as env:
        env.reset(seed=SEED)
        env.world.data.qpos[:2] += 0.3  # the base, or joints of an arm
        env.world.step(20)
        with closing(env.spectator(*SIZE)) as spectator:
            yield request.param, spectator.image().copy(), env.world.data.qpos.copy()


def test_a_recorded_moment_looks_as_it_was(happened):
    name, seen, positions = happened
    with closing(Stage(recorded(name, positions), SEED, *SIZE)) as stage:
        drawn = stage.draw(moment(), NOTHING_KNOWN)
    assert (np.abs(drawn.astype(int) - seen).max(axis=2) > 40).mean() < 0.002
    with closing(Stage(recorded(name, None), SEED, *SIZE)) as stage:
        before = stage.draw(moment(), NOTHING_KNOWN)
    assert (np.abs(before.astype(int) - seen).max(axis=2) > 40).mean() > 0.002, "it has moved since the start"


@pytest.mark.parametrize(("refusal", "style"), [("", PREDICTED), ("too fast", REFUSED)])
def test_a_path_is_drawn_where_it_leads(happened, refusal, style):
    """The base's path, in odometry, begins where the base started; an arm's is in the world."""
    name, _, positions = happened
    points = np.array([[0.3, 0.0, 0.1], [0.2, 0.0, 0.1], [0.1, 0.0, 0.1]])
    with closing(load_suite(name).make_env(cameras=False)) as env, closing(env.spectator(*SIZE)) as spectator:
        _, info = env.reset(seed=SEED)
        x, y, heading = info.get("true_pose", (0.0, 0.0, 0.0))
        turned = points[:, :2] @ np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
        expected = spectator.project(np.column_stack([turned + (x, y), points[:, 2]]))
    with closing(Stage(recorded(name, positions), SEED, *SIZE)) as stage:
        plain = stage.draw(moment(), NOTHING_KNOWN).astype(int)
        drawn = stage.draw(moment(refusal), Situation({}, {"arm": points}, None)).astype(int)
    where = np.argwhere((np.abs(drawn - style.color).max(axis=2) < 8) & (np.abs(drawn - plain).max(axis=2) > 20))
    assert len(where) and np.abs(where.mean(axis=0)[::-1] - expected.mean(axis=0)).max() < 10
