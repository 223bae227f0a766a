# SPDX-License-Identifier: Apache-2.0
"""LIBERO: four suites of ten tasks, 50 start states each."""

from __future__ import annotations

from pathlib import Path

from benchmarks.public.libero.tasks import DEMONSTRATED, FEW, NAMES, OFFICIAL_STATES, SUITES
from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.environment import Environment

HERE = Path(__file__).parent
JOINTS = (*(f"panda_joint{number}" for number in range(1, 8)), "panda_finger_joint1")
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")

LIBERO = Benchmark(
    name="libero",
    protocol=f"LIBERO's four suites of ten tasks, {OFFICIAL_STATES} start states a task after 10 idle actions, 20 Hz, "
    "at most 220 (spatial), 280 (object), 300 (goal), 520 (10) actions, two images of 256² turned by 180°; score: mean "
    "of the suites",
    robot=HERE / "libero_panda.yaml",
    module="benchmarks.public.libero.world",
    environment=Environment("libero", HERE / "requirements.txt"),
    groups=SUITES,
    episodes=OFFICIAL_STATES,
    columns={"observation.state": JOINTS, "observation.eef_pose": POSE, "action": (*POSE, "gripper")},
    image_size=(128, 128),
    few_tasks=FEW,
    published={
        "X-VLA": 98.1, "Qwen-VLA": 97.9, "OpenVLA-OFT": 97.1, "π0.5": 96.9, "SmolVLA": 87.3, "OpenVLA": 76.5,
    },
    demonstrated=DEMONSTRATED,
    annotated=NAMES,
)  # fmt: skip
