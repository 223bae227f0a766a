# SPDX-License-Identifier: Apache-2.0
"""What the tests of this package share: a robot, and chunks that are fine until a test spoils them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, embodiment_file, load_robot
from embodiment_descriptions.config import load_config
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import ArmGate


@pytest.fixture(scope="session")
def widowx() -> Embodiment:
    """The robot of most tests."""
    return load_robot("widowx")


@pytest.fixture(scope="session")
def turning() -> Embodiment:
    """A WidowX that is moved by joint positions and whose wrist turns without end."""
    urdf = load_robot("widowx").urdf
    limited, endless = (f'name="wrist_rotate" type="{kind}"' for kind in ("revolute", "continuous"))
    config = load_config(embodiment_file("widowx")).model_dump()
    return Embodiment.from_urdf(urdf.replace(limited, endless), config | {"control_mode": "joint_position"})


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


# Two sliders at right angles on a torso that lifts them; each slider carries a wrist, and beside it there is a finger.
# Every joint has limits of its own. In the frame of its arm the tip is at (slide + 0.1 cos wrist, 0.1 sin wrist, 0);
# the boxes of the sliders meet where the right one is at 0.3 .. 0.5 and the left one within 0.1 of 0.
ARM = """
  <link name="{arm}_base"/><link name="{arm}_wrist"/><link name="{arm}_tip"/><link name="{arm}_pad"/>
  <link name="{arm}_carriage"><collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision></link>
  <joint name="{arm}_mount" type="fixed"><parent link="torso"/><child link="{arm}_base"/><origin {origin}/></joint>
  <joint name="{arm}_slide" type="prismatic"><parent link="{arm}_base"/><child link="{arm}_carriage"/>
    <axis xyz="1 0 0"/><limit lower="-1.2" upper="{reach}" velocity="{slide}" effort="1"/></joint>
  <joint name="{arm}_turn" type="revolute"><parent link="{arm}_carriage"/><child link="{arm}_wrist"/>
    <axis xyz="0 0 1"/><limit lower="-2" upper="1.5" velocity="{turn}" effort="1"/></joint>
  <joint name="{arm}_end" type="fixed"><parent link="{arm}_wrist"/><child link="{arm}_tip"/>
    <origin xyz="0.1 0 0"/></joint>
  <joint name="{arm}_finger" type="prismatic"><parent link="{arm}_wrist"/><child link="{arm}_pad"/>
    <axis xyz="0 1 0"/><limit lower="-0.01" upper="0.05" velocity="{finger}" effort="1"/></joint>
"""
RIG = f"""<robot name="rig"><link name="stand"/><link name="torso"/>
  <joint name="lift" type="prismatic"><parent link="stand"/><child link="torso"/><axis xyz="0 0 1"/>
    <limit lower="0" upper="0.6" velocity="90" effort="1"/></joint>
{ARM.format(arm="left", origin='xyz="0 0.2 0"', reach=1.2, slide=80, turn=70, finger=6)}
{ARM.format(arm="right", origin='xyz="0 -0.2 0" rpy="0 0 1.5707963"', reach=1.1, slide=50, turn=40, finger=3)}
</robot>"""
FINGERS = {"left": {"closed": 0.0, "open": 0.04}, "right": {"closed": 0.03, "open": -0.01}}


def _arm_of_rig(name: str) -> dict[str, Any]:
    joints = {"joints": [f"{name}_slide", f"{name}_turn"], "gripper": {"joint": f"{name}_finger", **FINGERS[name]}}
    return {"name": name, "base_link": f"{name}_base", "tip_link": f"{name}_tip", **joints}


@pytest.fixture(scope="session")
def rig() -> Callable[..., Embodiment]:
    """A robot of two arms and a torso whose limits are wide; `rig(max_step_rad=0.1)` narrows one of them."""

    def make(**safety: Any) -> Embodiment:
        config = {"name": "rig", "robot_tag": "Rig", "control_mode": "joint_position", "rate_hz": 10.0, "chunk_size": 8}
        config |= {"arms": [_arm_of_rig(name) for name in FINGERS], "waist": ["lift"]}
        config |= {"cameras": [{"tag": "ego", "topic": "ego", "info_topic": "info"}]}
        config |= {"home": {"left_slide": 0.5, "left_turn": 0.0, "right_slide": 0.4, "right_turn": 0.3}}
        config["home"] |= {"left_finger": 0.04, "right_finger": 0.03, "lift": 0.2}
        return Embodiment.from_urdf(RIG, config | {"safety": {"max_start_jump_rad": 9.0, "max_step_rad": 9.0} | safety})

    return make
