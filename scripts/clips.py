# SPDX-License-Identifier: Apache-2.0
"""Makes the clips of docs/media: a spectator's view of episodes of the shipped checkpoint, in validation scenes.

.venv/bin/python scripts/clips.py               # or `make clips`; resumes after an interruption
.venv/bin/python scripts/clips.py widowx        # one of them

Beside the spectator's view are the robot's own camera and, as a subtitle, the instruction or the gate's reasons. Paths
are those of the policy's chunks. A clip that is there already, of the same scene and weights, is not made again; what
is drawn is not compared: --again makes it anew.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("LP_NUM_THREADS", str(os.cpu_count()))  # of the software rasterizer

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from embodiment_descriptions import Embodiment
from qwen_vla.evaluation.episode import Film, run_episode
from qwen_vla.evaluation.options import DEFAULT_POLICY
from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla.policies import PolicyOptions, open_policy
from qwen_vla.policies.chunk_policy import ActionChunk, ChunkPolicy, Observation
from qwen_vla.seeds import require_split
from qwen_vla.suites import Env, Spectator, load_suite
from qwen_vla.video_files import write_gif
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.observation.robot_pose import RobotPose
from qwen_vla_ros.drawing.chunk_geometry import CannotDraw, ChunkGeometry, planar_pose
from qwen_vla_ros.simulation.demo.clip import AT_THE_END, VIEW, Shot, draw_clip

ROOT = Path(__file__).resolve().parents[1]
MAKER = "scripts/clips.py"
FRAME_PERIOD = 0.1  # [s] simulated between two frames, at least: one control step where these are longer
LIMIT = 2_000_000  # [bytes]
REFUSED = "refused: "  # how the remarks of `run_episode` on refused chunks begin


@dataclass(frozen=True)
class Clip:
    """A scene and how it is shown.

    Attributes:
        camera: the robot's own that is shown beside; the policy sees it, among others.
        speed: simulated seconds per second of the clip.
    """

    suite: str
    seed: int
    camera: str
    speed: float = 1.0


CLIPS = {
    "widowx": Clip("widowx", 9007, "ego"),
    "aloha": Clip("aloha", 9009, "ego", speed=0.5),
    "mobile_base": Clip("mobile_base", 9000, "ego", speed=2.0),
    "gate_refuses": Clip("widowx", 9014, "ego"),
}


class Overheard:
    """A policy whose latest chunk can be looked at."""

    def __init__(self, policy: ChunkPolicy) -> None:
        self._policy = policy
        self.chunk: ActionChunk | None = None
        self.camera_tags, self.state_names, self.history = policy.camera_tags, policy.state_names, policy.history

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        return self._policy.misfits(embodiment)

    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        self.chunk = self._policy.infer(observation, seed)
        return self.chunk


@dataclass
class Watched(Film):
    """A film that also keeps what a spectator sees, and the path of the chunk that is executed or refused."""

    world: Any = field(kw_only=True)  # of the simulator
    spectator: Spectator = field(kw_only=True)
    geometry: ChunkGeometry = field(kw_only=True)
    policy: Overheard = field(kw_only=True)
    camera: str = field(kw_only=True)
    shots: list[Shot] = field(default_factory=list)
    _shown: ActionChunk | None = None
    _paths: Sequence[np.ndarray] = ()

    def add(self, env: Env, observation: Mapping[str, Any], remark: str = "") -> None:
        super().add(env, observation, remark)
        if not observation["images"]:
            return
        chunk = self.policy.chunk
        if chunk is not None and chunk is not self._shown:
            self._shown, self._paths = chunk, paths_of(self.geometry, chunk, self.world, observation)
        reason = remark.removeprefix(REFUSED) if remark.startswith(REFUSED) else ""
        seen = [self.spectator.project(path) for path in self._paths]
        images = self.spectator.image().copy(), observation["images"][self.camera]
        self.shots.append(Shot(*images, env.steps * env.period, seen, reason))


def paths_of(
    geometry: ChunkGeometry, chunk: ActionChunk, world: Any, observation: Mapping[str, Any]
) -> list[np.ndarray]:
    """(N, 3) points in the world [m] of each arm's or the base's predicted path; none for a chunk without a path."""
    robot: Embodiment = geometry.embodiment
    if geometry.moves_base:
        start = RobotPose({}, planar_pose(*world.pose), "world")
    else:
        start = RobotPose(dict(zip(robot.joint_names, map(float, observation["joints"]), strict=True)))
    try:
        paths = geometry.paths(Chunk.predicted(chunk, robot.base_frame), start)
    except CannotDraw:
        return []
    poses = [path.poses if geometry.moves_base else world.link_pose(path.frame) @ path.poses for path in paths]
    return [pose[:, :3, 3] for pose in poses]


def record(clip: Clip) -> tuple[list[Shot], EpisodeRow]:
    """Run the episode of a clip."""
    suite = load_suite(clip.suite)
    env: Any = suite.make_env()  # also has its world
    policy = Overheard(open_policy(DEFAULT_POLICY, suite.embodiment, PolicyOptions()))
    spectator = env.spectator(*VIEW)
    every = max(1, round(FRAME_PERIOD / env.period))
    film = Watched(
        every,
        world=env.world,
        spectator=spectator,
        geometry=ChunkGeometry(suite.embodiment),
        policy=policy,
        camera=clip.camera,
    )
    try:
        row = run_episode(suite, env, policy, clip.seed, film=film)
    finally:
        spectator.close()
        env.close()
    return film.shots, row


def frames_of(clip: Clip) -> tuple[list[np.ndarray], float]:
    """The frames of a clip and their rate [Hz]; the last one stays for a while."""
    shots, row = record(clip)
    drawn = list(draw_clip(shots, row.instruction, row.success, clip.speed))
    rate = clip.speed / (shots[1].seconds - shots[0].seconds)
    return [*drawn, *[drawn[-1]] * round(AT_THE_END * rate)], rate


def maker_of(clip: Clip) -> str:
    """What a clip's file says about its origin."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "checkpoints" / DEFAULT_POLICY).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return f"{MAKER} ({clip.suite}, seed {clip.seed}, weights {digest.hexdigest()[:12]})"


def origin(path: Path) -> str:
    """What a file says about its origin; empty without a file."""
    if not path.is_file():
        return ""
    with Image.open(path) as image:
        return bytes(image.info.get("comment", b"")).decode()


def main(
    clips: Annotated[tuple[str, ...], tyro.conf.Positional] = (), out: Path = ROOT / "docs/media", again: bool = False
) -> None:
    """Make clips.

    Args:
        clips: names of those to make; default: all.
        out: folder for them.
        again: also make those that are there.
    """
    if unknown := set(clips) - set(CLIPS):
        sys.exit(f"clips: {', '.join(sorted(unknown))}: unknown; there are {', '.join(CLIPS)}")
    for name in tqdm(clips or tuple(CLIPS), unit="clip"):
        clip, path = CLIPS[name], out / f"{name}.gif"
        require_split("validation", range(clip.seed, clip.seed + 1), name)
        maker = maker_of(clip)
        if not again and maker in origin(path):
            tqdm.write(f"{path}: up to date")
            continue
        frames, rate = frames_of(clip)
        size = write_gif(path, frames, rate, LIMIT, maker)
        tqdm.write(f"{path}: {len(frames)} frames, {len(frames) / rate:.1f} s, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
