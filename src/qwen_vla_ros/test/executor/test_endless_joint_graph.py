# SPDX-License-Identifier: Apache-2.0
"""A joint that turns without end and is reported within -pi .. pi: it is commanded across pi without a turn back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from ros_peer import Peer, Processes

from embodiment_descriptions import Embodiment, embodiment_file, load_robot
from qwen_vla_msgs.msg import ActionChunk, ChunkReport

WRIST = "wrist_rotate"
START = 3.0  # [rad]


class Turning(Peer):
    """A WidowX that is moved by joint positions, and whose wrist turns without end."""

    def __init__(self, embodiment: Embodiment) -> None:
        super().__init__(embodiment=embodiment)
        self.wrapped.add(WRIST)

    def turn(self, goal: float) -> ActionChunk:
        """From where the wrist is to `goal` [rad], given within -pi .. pi, the short way, in 16 steps."""
        start, column = self.joints[WRIST], self.embodiment.arms[0].joints.index(WRIST)
        rows = np.tile([*(self.joints[name] for name in self.embodiment.arms[0].joints), 1.0], (16, 1))
        short = math.remainder(goal - start, math.tau)
        rows[:, column] = [math.remainder(start + short * (i + 1) / 16, math.tau) for i in range(16)]
        return self.chunk(execution_horizon=16, data=rows.astype(np.float32).reshape(-1).tolist())

    def commanded(self) -> np.ndarray:
        """What the wrist was told in all commands since the records were cleared [rad]."""
        messages = [message for _, message in self.arm_commands]
        return np.array([p.positions[m.joint_names.index(WRIST)] for m in messages for p in m.points])


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    settings = yaml.safe_load(embodiment_file("widowx").read_text()) | {"control_mode": "joint_position"}
    path = tmp_path_factory.mktemp("turning") / "turning.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def peer(config) -> Iterator[Turning]:
    limited, endless = (f'name="{WRIST}" type="{kind}"' for kind in ("revolute", "continuous"))
    robot = Embodiment.from_urdf(load_robot("widowx").urdf.replace(limited, endless), config)
    assert robot.limits[WRIST].type == "continuous"
    with Turning(robot) as peer, Processes() as processes:
        peer.move_by_hand(**{WRIST: START})
        processes.start("executor_node", embodiment_config=str(config))
        peer.wait_until_active("executor_node")
        peer.silent.clear()
        peer.wait_until_connected()
        peer.clear()
        yield peer


def go(peer: Turning, goal: float) -> None:
    sent = peer.send(peer.turn(goal))
    assert peer.verdict(sent).verdict == ChunkReport.ACCEPTED, peer.reports
    peer.report(sent, ChunkReport.COMPLETED)


def test_it_goes_across_pi_and_back_and_stops_there_without_a_turn_back(peer):
    go(peer, -2.6)
    beyond = math.tau - 2.6
    assert peer.commanded()[-1] == pytest.approx(beyond, abs=1e-5)
    go(peer, 2.9)
    assert peer.commanded()[-1] == pytest.approx(2.9, abs=1e-5)
    moving = peer.send(peer.turn(-2.6))
    peer.wait(lambda: peer.joints[WRIST] > math.pi + 0.05, "the wrist to pass pi")
    assert peer.trigger("executor_node/stop").success
    peer.report(moving, ChunkReport.HELD)
    peer.wait(lambda: len(peer.arm_commands) == 4, "the hold")
    held = peer.commanded()[-1]
    assert math.pi < held < beyond
    path = np.concatenate([[START], peer.commanded()[:-1]])
    assert np.abs(np.diff(path)).max() < 0.1 and path.max() < beyond + 1e-4


def test_it_goes_home_the_short_way_from_another_turn(peer):
    go(peer, -2.6)
    peer.clear()
    assert peer.trigger("executor_node/go_home").success
    peer.report(0, ChunkReport.COMPLETED)
    told = peer.commanded()
    print(told)
    assert np.abs(np.diff(told)).max() < 1.0
    assert math.remainder(told[-1], math.tau) == pytest.approx(0.0, abs=1e-5)
    assert abs(told[-1] - told[0]) < math.pi
