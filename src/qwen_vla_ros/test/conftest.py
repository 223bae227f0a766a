"""What the tests of this package share: a robot, and chunks that are fine until a test spoils them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_ros.chunk_decision import ChunkDecision
from qwen_vla_ros.gate import Chunk

sys.path.insert(0, str(Path(__file__).parent))  # for ros_peer


@pytest.fixture(scope="session")
def widowx() -> Embodiment:
    """The robot of most tests."""
    return load_robot("widowx")


@pytest.fixture(scope="session")
def decision(widowx: Embodiment) -> ChunkDecision:
    """The gate of the WidowX."""
    return ChunkDecision(widowx)


@pytest.fixture(scope="session")
def home(widowx: Embodiment, decision: ChunkDecision) -> np.ndarray:
    """Joint positions of the home pose, in the order of the decision."""
    return np.array([widowx.home[name] for name in decision.joints])


@pytest.fixture
def good_chunk(widowx: Embodiment) -> Chunk:
    """8 cm forward along the tool axis at home, in 16 steps of 5 mm, with an open gripper."""
    rows = np.zeros((16, 7), np.float32)
    rows[:, 0] = 0.005 * np.arange(1, 17)
    rows[:, 6] = 1.0
    return Chunk(
        chunk_id=1,
        stamp_ns=10**18,
        frame_id="base_link",
        embodiment=widowx.name,
        control_mode=widowx.control_mode,
        channel_names=tuple(widowx.channel_names),
        instruction="pick up the red cube",
        horizon=16,
        execution_horizon=8,
        period=widowx.period,
        data=rows.reshape(-1),
    )


@pytest.fixture(scope="module")
def peer():
    """Everything around the nodes under test: robot, controllers, cameras and a client, on the real middleware."""
    from ros_peer import Peer

    with Peer() as node:
        yield node


@pytest.fixture(scope="module")
def processes():
    """Start console scripts of this package as processes; whatever is left at the end is killed."""
    from ros_peer import Processes

    with Processes() as started:
        yield started
