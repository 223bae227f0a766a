# SPDX-License-Identifier: Apache-2.0
"""What the tests of this package share: a robot, and chunks that are valid until a test breaks them."""

from __future__ import annotations

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import ArmGate


@pytest.fixture(scope="session")
def widowx() -> Embodiment:
    """The robot of most tests."""
    return load_robot("widowx")


@pytest.fixture(scope="session")
def gate(widowx: Embodiment) -> ArmGate:
    """The gate of the WidowX."""
    return ArmGate(widowx)


@pytest.fixture(scope="session")
def home(widowx: Embodiment, gate: ArmGate) -> np.ndarray:
    """Joint positions of the home pose, in the order of the gate."""
    return np.array([widowx.home[name] for name in gate.joints])


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
    """Everything around the nodes under test: robot, controllers, cameras and a client, with the real middleware."""
    from ros_peer import Peer

    with Peer() as node:
        yield node


@pytest.fixture(scope="module")
def processes():
    """Start console scripts of this package as processes; those still running at the end are killed."""
    from ros_peer import Processes

    with Processes() as started:
        yield started
