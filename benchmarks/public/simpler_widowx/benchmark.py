# SPDX-License-Identifier: Apache-2.0
"""Simpler-WidowX: SIMPLER's four Bridge tasks, 24 start states each, four times."""

from __future__ import annotations

from pathlib import Path

from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.environment import Environment
from benchmarks.public.simpler_widowx.tasks import NAMES, OFFICIAL_STATES, TASKS

HERE = Path(__file__).parent
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "left_finger")
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
REPEATS = 4

SIMPLER_WIDOWX = Benchmark(
    name="simpler_widowx",
    protocol=f"SIMPLER's Bridge tasks in mani_skill 3.0.1, {OFFICIAL_STATES} start states × {REPEATS} repeats a task, "
    "5 Hz, 60 steps (eggplant 120), success as judged after the last step; the look of eggplant and sink may differ "
    "from SIMPLER's, see docs/how-to/public_benchmarks.md",
    robot=HERE / "simpler_widowx.yaml",
    module="benchmarks.public.simpler_widowx.world",
    environment=Environment("simpler_widowx", HERE / "requirements.txt", HERE / "mesa.sh"),
    groups={task: (task,) for task in TASKS},
    episodes=OFFICIAL_STATES * REPEATS,
    columns={"observation.state": JOINTS, "observation.eef_pose": POSE, "action": (*POSE, "gripper")},
    image_size=(144, 192),
    published={
        "X-VLA": 95.8, "Qwen-VLA": 73.7, "UniVLA": 69.8, "Qwen3-GR00T": 65.3, "GR00T N1.6": 57.1, "CogACT": 51.3,
    },
    annotated=NAMES,
)  # fmt: skip
