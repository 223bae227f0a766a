# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla collect motions`: synthetic motions as a LeRobotDataset v3.0, and a figure of some."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from embodiment_descriptions.poses import pose_vector
from qwen_vla.data.collect import COLLECTION, refuse_other_collections
from qwen_vla.data.formats.lerobot import shard_path
from qwen_vla.data.formats.lerobot_meta import Feature
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.data.formats.named_robot import NamedRobot, RobotFiles
from qwen_vla.data.motions.motion_source import NATIVE_RATE_HZ, ArmPath, MotionData, RobotMotions
from qwen_vla.output_files import complete_or_absent, write_json

MAX_SECONDS = 4.0
PER_SHARD = 500
PICTURE = "motions.png"
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class MotionFiles:
    """What to write: `count` motions of one robot, none longer than `max_seconds`."""

    out: Path
    robot: NamedRobot
    count: int
    seed: int = 0
    rate_hz: float = NATIVE_RATE_HZ
    max_seconds: float = MAX_SECONDS

    def write(self) -> dict:
        """Write dataset and figure; resumes if interrupted. Returns a summary."""
        motions = self.motions()
        wanted = motions.spec.model_dump(mode="json") | {"max_seconds": self.max_seconds}
        refuse_other_collections(self.out, wanted, wanted.__eq__)
        write_json(self.out / COLLECTION.file, wanted)
        rate, name, features = motions.embodiment.rate_hz, motions.embodiment.name, _features(motions)
        shards = [range(self.count)[first : first + PER_SHARD] for first in range(0, self.count, PER_SHARD)]
        with tqdm(total=self.count, desc=f"motions of {name}", unit="episode") as bar:
            for shard, numbers in enumerate(shards):
                if not shard_path(self.out, shard).exists():
                    episodes = [self._episode(motions, number) for number in numbers]
                    write_shard(self.out, shard, episodes, features, rate)
                bar.update(len(numbers))
        finalize(self.out, len(shards), features, rate, name, {"kind": "demonstrations", "embodiment": name})
        plot(motions, range(min(self.count, 2 * len(motions.templates))), self.out / PICTURE)
        summary = {"out": str(self.out), "episodes": self.count, "templates": motions.templates}
        return summary | {"picture": str(self.out / PICTURE)}

    def motions(self) -> RobotMotions:
        """The robot's motions: those of `kind: motions` with the same seed, time and rate."""
        spec = MotionData(kind="motions", robots=(self.robot,), count=self.count, seed=self.seed, rate_hz=self.rate_hz)
        return RobotMotions(spec, 0, max(1, int(self.max_seconds * self.rate_hz)))

    def _episode(self, robot: RobotMotions, number: int) -> Recording:
        """Row i has the arms' state and their command for one period later; the last one holds."""
        motion = robot.motion(number)
        paths = robot.paths(motion)
        grippers = [
            np.array([[robot.embodiment.gripper_to_joint(share, arm)] for share in path.openings])
            for arm, path in enumerate(paths)
            if path.openings is not None
        ]
        resting = robot.embodiment.joint_names[sum(path.joints.shape[1] for path in paths) + len(grippers) :]
        still = np.tile([robot.embodiment.home[joint] for joint in resting], (len(paths[0].joints), 1))
        poses = [pose_vector(path.poses) for path in paths]
        reached = [
            part for path, pose in zip(paths, poses, strict=True) for part in (pose, path.openings) if part is not None
        ]
        targets = np.column_stack(reached)
        frames = {
            "observation.state": np.column_stack([*(path.joints for path in paths), *grippers, still]),
            "observation.eef_pose": np.column_stack(poses),
            "action": np.concatenate([targets[1:], targets[-1:]]),
        }
        return Recording(_sentence(robot, number), {name: rows.astype(np.float32) for name, rows in frames.items()})


def choose_robot(robot: str, config: Path | None = None) -> NamedRobot:
    """A robot by its name or its embodiment YAML, or by a URDF or xacro and its YAML; ValueError for a mixture."""
    path = Path(robot).expanduser()
    if path.suffix not in (".urdf", ".xml", ".xacro"):
        if config:
            raise ValueError(f"--config requires the path of a URDF; {robot!r} has its own configuration")
        return robot
    if config is None:
        raise ValueError(f"{path}: give the links, limits and home pose of its arms with --config (embodiment YAML)")
    return RobotFiles(urdf=path, embodiment=config)


def plot(robot: RobotMotions, numbers: Sequence[int], path: Path) -> None:
    """Plot motions with their instructions: the tip's path in space, and its displacement and the gripper over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(numbers) // 2)
    figure = pyplot.figure(figsize=(15, 3.4 * rows), layout="constrained")
    for place, number in enumerate(numbers):
        motion = robot.motion(number)
        arm = robot.paths(motion)[motion.arm]
        in_space = figure.add_subplot(rows, 4, 2 * place + 1, projection="3d")
        over_time = figure.add_subplot(rows, 4, 2 * place + 2)
        _draw_way(in_space, arm.poses)
        _draw_times(over_time, arm, robot.embodiment.rate_hz)
        over_time.set_title(
            textwrap.fill(f"{motion.template}: {_sentence(robot, number)}", 46), fontsize=9, loc="right"
        )
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, dpi=70, format="png")
    pyplot.close(figure)


def _sentence(robot: RobotMotions, number: int) -> str:
    """The instruction used in the dataset, of the many equivalent ones."""
    return robot.sentence(robot.motion(number), np.random.default_rng([robot.spec.seed, number, 1]))


def _draw_way(axes, poses: np.ndarray) -> None:
    """The tip's path, with its axes at the start (pale) and end; x red, y green, z blue."""
    way = poses[:, :3, 3]
    axes.plot(*way.T, color="black")
    axes.scatter(*way[0], color="black", s=20)
    for pose, alpha in ((poses[0], 0.35), (poses[-1], 1.0)):
        for column, color in enumerate(("tab:red", "tab:green", "tab:blue")):
            end = pose[:3, 3] + 0.06 * pose[:3, column]
            axes.plot(*np.stack([pose[:3, 3], end]).T, color=color, alpha=alpha)
    middle = (way.max(0) + way.min(0)) / 2
    half = max(0.08, np.ptp(way, axis=0).max() / 2 + 0.03)
    for axis, name in enumerate("xyz"):
        getattr(axes, f"set_{name}lim")(middle[axis] - half, middle[axis] + half)
        getattr(axes, f"set_{name}label")(f"{name} [m]", fontsize=8)
    axes.locator_params(nbins=3)
    axes.tick_params(labelsize=6)
    axes.view_init(elev=25, azim=-150)  # from behind the robot and to its left, looking forward
    axes.set_box_aspect((1, 1, 1))


def _draw_times(axes, arm: ArmPath, rate_hz: float) -> None:
    times = np.arange(len(arm.poses)) / rate_hz
    moved = 100 * (arm.poses[:, :3, 3] - arm.poses[0, :3, 3])
    turned = np.degrees(Rotation.from_matrix(arm.poses[:, :3, :3] @ arm.poses[0, :3, :3].T).magnitude())
    for column, name, color in zip(moved.T, "xyz", ("tab:red", "tab:green", "tab:blue"), strict=True):
        axes.plot(times, column, color=color, label=f"{name} [cm]")
    axes.plot(times, turned / 5, color="tab:purple", label="rotation [5°]")
    if arm.openings is not None:
        axes.plot(times, 10 * arm.openings, color="gray", linestyle="--", label="open [10 %]")
    axes.set_xlabel("time [s]", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, loc="best")


def _features(robot: RobotMotions) -> dict[str, Feature]:
    """Columns of the dataset; with two arms every pose and gripper has the arm's name."""
    several = len(robot.planners) > 1
    poses, actions = [], []
    for arm, planner in zip(robot.embodiment.arms, robot.planners, strict=True):
        prefix = f"{arm.name}_" if several else ""
        names = [prefix + name for name in POSE]
        poses += names
        actions += [*names, *([f"{prefix}gripper"] if planner.gripper else [])]
    columns = {
        "observation.state": robot.embodiment.joint_names,
        "observation.eef_pose": tuple(poses),
        "action": tuple(actions),
    }
    return {name: Feature("float32", (len(names),), names) for name, names in columns.items()}
