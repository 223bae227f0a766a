# SPDX-License-Identifier: Apache-2.0
"""A small benchmark whose simulator is a process like any other: a hand on a line that must stay where it is.

Task `hold` succeeds after its second chunk in even start states; task `lift` never does. A start state named in the
file of `BROKEN` ends the process.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.environment import Environment
from benchmarks.public.protocol.track import annotations
from benchmarks.public.protocol.world_server import serve_world

ROBOT = Path(__file__).parents[1] / "metaworld/sawyer.yaml"
JOINTS = ("x", "y", "z", "fingers")
HOME = np.array([0.0, 0.6, 0.2, 0.1])
BROKEN = "FAKE_WORLD_BROKEN"  # environment variable: a file with the start state at which the process ends
PERIOD = 0.05
ROWS = 40  # of an episode


class OneAxis:
    """See `World`."""

    def start(self, task: str, start: int) -> dict:
        self.task, self.number, self.rows, self.success = task, start, 0, False
        broken = Path(os.environ.get(BROKEN, ""))
        if broken.is_file() and int(broken.read_text()) == start:
            os._exit(7)
        return self._seen()

    def execute(self, rows: np.ndarray, film: bool) -> dict:
        looks = []
        for row in rows:
            if not np.allclose(row[:3], HOME[:3], atol=1e-4):
                raise ValueError(f"row {row.tolist()} leaves its place")
            self.rows += 1
            self.success = self.task == "hold" and self.number % 2 == 0 and self.rows == len(rows) * 2
            looks.append({"seconds": self.rows * PERIOD, "images": self._seen()["images"]})
            if self._over:
                break
        return {
            "observation": self._seen(),
            "success": self.success,
            "over": self._over,
            "seconds": self.rows * PERIOD,
            "failure": "" if self.success else "did not move",
            "distance": 0.1,
            "looks": looks if film else [],
            "elapsed": self.rows / ROWS,
            "free": self.rows % 20 > 0,
        }

    def demonstrate(self, task: str, start: int, size: list[int] | None) -> dict:
        self.start(task, start)
        return self.take_over(size)

    def take_over(self, size: list[int] | None) -> dict:
        start = self.number
        state = np.tile(HOME, (6, 1)).astype(np.float32)
        frames = {"observation.state": state, "action": state + np.float32(1e-3 * (start % 10))}
        if size:
            frames["observation.images.ego"] = np.full((6, *size, 3), start % 200, np.uint8)
        return {"success": start % 5 != 0, "instruction": f"{self.task} the hand", "frames": frames}

    def snapshot(self, task: str, start: int, size: list[int]) -> dict:
        frames = {name: rows[:1] for name, rows in self.demonstrate(task, start, size)["frames"].items()}
        labels = annotations(np.full((1, 3, 3), 0.5), (0, 1), 0) | {"annotation.fresh": np.array([1])}
        frames |= {name: value[None] for name, value in labels.items()}
        return {"success": True, "instruction": f"{task} the hand", "frames": frames}

    @property
    def _over(self) -> bool:
        return self.success or self.rows >= ROWS

    def _seen(self) -> dict:
        image = np.full((48, 48, 3), min(255, 6 * self.rows), np.uint8)
        return {"images": {"ego": image}, "state": HOME, "instruction": f"{self.task} the hand"}


@dataclass(frozen=True)
class ThisEnvironment(Environment):
    """The environment in which the tests run."""

    @property
    def python(self) -> Path:
        return Path(sys.executable)

    @property
    def is_ready(self) -> bool:
        return True


FAKE = Benchmark(
    name="fake",
    protocol="four trials of each task",
    robot=ROBOT,
    module="benchmarks.public.test.fake",
    environment=ThisEnvironment("fake", Path(__file__)),
    groups={"easy": ("hold",), "hard": ("lift",)},
    episodes=4,
    columns={"observation.state": JOINTS, "action": JOINTS},
    image_size=(32, 32),
    published={"somebody": 50.0},
)
LABELED = replace(FAKE, annotated=("hand", "line"))

if __name__ == "__main__":
    serve_world(OneAxis())
