# SPDX-License-Identifier: Apache-2.0
"""Meta-World MT50 as LeRobot evaluates SmolVLA: 50 tasks in four groups, 10 trials each."""

from __future__ import annotations

from pathlib import Path

from benchmarks.public.metaworld.tasks import FEW, GROUPS
from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.environment import Environment

HERE = Path(__file__).parent
JOINTS = ("x", "y", "z", "fingers")

METAWORLD = Benchmark(
    name="metaworld",
    protocol="Meta-World MT50 (v3), 10 trials a task with random goals, at most 500 steps, camera corner2 at 480² "
    "without shadows; score: mean of the groups easy, medium, hard, very hard",
    robot=HERE / "sawyer.yaml",
    module="benchmarks.public.metaworld.world",
    environment=Environment("metaworld", HERE / "requirements.txt"),
    groups={group: tuple(tasks) for group, tasks in GROUPS.items()},
    episodes=10,
    columns={"observation.state": JOINTS, "action": JOINTS},
    image_size=(96, 96),
    few_tasks=FEW,
    published={"SmolVLA-0.45B": 57.3, "π0": 47.9, "TinyVLA": 31.6, "Diffusion Policy": 10.5},
)
