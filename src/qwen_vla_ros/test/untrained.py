# SPDX-License-Identifier: Apache-2.0
"""An untrained checkpoint: its robot moves a little, which is enough for testing a graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_ros.simulation.runtime_benchmark.measurement import _calm_checkpoint

AHEAD = 0.08  # [m] of a base, per waypoint: 0.16 m/s
SPREAD = 0.002  # [m], [rad], [1] around the center


def untrained_checkpoint(folder: Path, robot: Embodiment) -> Path:
    """Save one whose chunks pass the gate: small motions around home; a base creeps forward."""

    def wide_enough(config: dict) -> None:
        config["horizon"] = max(config["horizon"], robot.chunk_size)

    def around_home(statistics: dict) -> None:
        middle = _middle(robot)
        statistics[robot.name] |= {"q01": (middle - SPREAD).tolist(), "q99": (middle + SPREAD).tolist()}

    _calm_checkpoint(folder, robot)
    _change(folder / "config.json", wide_enough)
    _change(folder / "normalization.json", around_home)
    return folder


def _middle(robot: Embodiment) -> np.ndarray:
    if robot.control_mode == "joint_position":
        arms = [
            [
                *(robot.home[joint] for joint in arm.joints),
                robot.gripper_from_joint(robot.home[arm.gripper.joint], number),
            ]
            for number, arm in enumerate(robot.arms)
        ]
        return np.concatenate(arms)
    return np.where(np.array(robot.channel_names) == "dx", AHEAD, 0.0)


def _change(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
