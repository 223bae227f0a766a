# SPDX-License-Identifier: Apache-2.0
"""`kind: motions`: synthetic language–action pairs for any arm, for the text-to-action stage.

Every index of a dataset is one motion of one robot: drawn from a template (motion_templates.py), planned with the
robot's kinematics and limits, and described by one of many instructions (paraphrases.py). Nothing is stored: motion i
is a function of (seed, robot, i), computed on demand and cached in memory. `qwen-vla collect motions` writes
and plots them (motion_files.py).

All motions start at the robot's home pose, and an action chunk is always the whole motion, with its own number of
steps: otherwise, without images or state, the instruction would not determine the actions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from embodiment_descriptions import ControlMode, delta_from_poses
from embodiment_descriptions.actions import Action, ArmAction
from qwen_vla.data.formats.named_robot import NamedRobot, load
from qwen_vla.data.formats.spec import DataError, DataSpec, kept_statistics, log, opened_wide, quantiles, split
from qwen_vla.data.motions.motion_templates import TEMPLATES, Motion, MotionError, Planner
from qwen_vla.data.motions.paraphrases import corpus, paraphrase
from qwen_vla.data.samples import Label, SourceContext
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.sample import Sample

NATIVE_RATE_HZ = 50.0
SHORTEST_TIME = 1.0  # [s] lower bound of the allowed duration of motions
KEPT = 10_000  # motions in memory, about 10 KB each
STATISTICS_MOTIONS = 300  # the first ones of the training data
STILL = 1e-3  # [m, rad or share] smaller motion is only the tolerance of the inverse kinematics
SPOKEN_MOTIONS = 300  # motions whose instructions train a tokenizer, besides the list of all words

Template = Literal["move", "turn", "reach", "arc", "gripper", "sequence"]


class MotionData(DataSpec):
    """Synthetic motions of robots of the suite (by name) or of a user's robot (by the path of its embodiment YAML)."""

    kind: Literal["motions"]
    robots: tuple[NamedRobot, ...] = Field(min_length=1)
    count: int = Field(default=2000, ge=1, description="motions per robot")
    seed: int = Field(default=0, ge=0)
    rate_hz: float | Literal["embodiment"] = Field(default=NATIVE_RATE_HZ, description="[Hz]; 50 is the paper's")
    templates: tuple[Template, ...] = Field(default=TEMPLATES, min_length=1)
    control_mode: Literal[ControlMode.EEF_DELTA, ControlMode.JOINT_POSITION] | None = Field(
        default=None, description="default: the robot's own"
    )
    statistics: str | None = Field(default=None, description="name of the statistics; default: <robot>_motions")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.rate_hz != "embodiment" and not 0 < self.rate_hz < float("inf"):
            raise ValueError(f"rate_hz must be positive, got {self.rate_hz}")
        if self.statistics is not None and len(self.robots) > 1:
            raise ValueError("robots have different channels: `statistics` can be set only for a single robot")
        return self

    def open(self, context: SourceContext) -> Motions:
        return Motions(self, context)


@dataclass(frozen=True)
class ArmPath:
    """One arm over time: joints (T, n), tip poses (T, 4, 4) in its base link, gripper openings (T,) 0…1 or None."""

    joints: np.ndarray
    poses: np.ndarray
    openings: np.ndarray | None


class RobotMotions:
    """The motions of one robot: number → motion, its actions, and the prompt with an instruction for it.

    max_steps: longest motion, in steps at the rate of the data.
    """

    def __init__(self, spec: MotionData, number: int, max_steps: int) -> None:
        self.spec, self.number, self.max_steps = spec, number, max_steps
        embodiment = load(spec.robots[number])
        rate = embodiment.rate_hz if spec.rate_hz == "embodiment" else spec.rate_hz
        mode = spec.control_mode or embodiment.control_mode
        if mode.moves_base:
            raise DataError(
                f"robot {embodiment.name!r} is commanded by {mode}; set a `control_mode` of its arms for motions"
            )
        if max_steps / rate < SHORTEST_TIME:
            raise DataError(
                f"motions of {embodiment.name!r}: {max_steps} steps at {rate:g} Hz are {max_steps / rate:.2f} s, too "
                "short for whole motions; allow more steps (trajectory_steps), or a lower rate (`rate_hz: embodiment`)"
            )
        changes = {"rate_hz": rate, "control_mode": mode, "chunk_size": max_steps}
        self.embodiment = embodiment.model_copy(update=changes)
        self.dataset = spec.statistics or f"{embodiment.name}_motions"
        self.planners = [Planner(self.embodiment, arm, max_steps / rate) for arm in range(len(embodiment.arms))]
        self.ways = self._ways()
        self._known: dict[int, Motion] = {}
        self._lock = Lock()  # batches are prefetched in a thread, and kinematics is not thread-safe

    @property
    def templates(self) -> list[str]:
        return list(self.ways)

    def motion(self, number: int) -> Motion:
        """Motion `number`; templates alternate, so that all are equally frequent."""
        with self._lock:
            if number not in self._known:
                if len(self._known) >= KEPT:
                    self._known.clear()
                self._known[number] = self._draw(number)
            return self._known[number]

    def _draw(self, number: int) -> Motion:
        rng = np.random.default_rng([self.spec.seed, self.number, number])
        template = self.templates[number % len(self.ways)]
        arms = self.ways[template]
        return self.planners[arms[int(rng.integers(len(arms)))]].draw(template, rng)

    def paths(self, motion: Motion) -> list[ArmPath]:
        """The path of every arm, at the rate of the data, from the start; other arms hold still."""
        found = []
        for number, planner in enumerate(self.planners):
            joints, openings = motion.sample(self.embodiment.rate_hz)
            if number != motion.arm:
                joints = np.repeat(planner.start[None], len(joints), axis=0)
                openings = np.full(len(joints), planner.opening)
            with self._lock:
                poses = planner.poses(joints)
            found.append(ArmPath(joints, poses, openings if planner.gripper else None))
        return found

    def actions(self, motion: Motion) -> np.ndarray:
        """(steps, c) float32 in physical units, channels as `Embodiment.channel_names`."""
        layout, parts, home = self.embodiment.layout, [], self.embodiment.home
        for arm, described, path in zip(layout.arms, self.embodiment.arms, self.paths(motion), strict=True):
            by_pose = layout.control_mode is ControlMode.EEF_DELTA
            moved = delta_from_poses(path.poses[0], path.poses[1:]) if by_pose else path.joints[1:]
            opening = None if path.openings is None else path.openings[1:]
            still = np.tile([home[joint] for joint in described.hand], (len(moved), 1))
            hand = still if described.hand and not by_pose else None
            parts.append(ArmAction(arm, moved, opening, hand))
        waist = [home[layout.names[column]] for column in layout.waist]
        waists = np.tile(waist, (len(parts[0].motion), 1)) if waist else None
        return layout.encode(Action(tuple(parts), waists)).astype(np.float32)

    def sentence(self, motion: Motion, rng: np.random.Generator) -> str:
        return paraphrase(motion, self.arm_names[motion.arm], rng)

    @property
    def arm_names(self) -> list[str | None]:
        """Names of the arms in instructions; None for a single arm."""
        names: list[str | None] = [arm.name.replace("_", " ") for arm in self.embodiment.arms]
        return names if len(names) > 1 else [None]

    def prompt(self, motion: Motion, sentence: str) -> str:
        """The embodiment prompt; its horizon is the motion's own number of steps."""
        steps = motion.count(self.embodiment.rate_hz)
        return self.embodiment.model_copy(update={"chunk_size": steps}).prompt(sentence)

    def quantiles(self, numbers: np.ndarray) -> Quantiles:
        """q01/q99 per channel over the steps in which it moves, widened to include rest.

        Most channels are at rest in most motions; over all steps, 1 % at either end would clip most rotations.
        """
        chunks = [self.actions(self.motion(int(number))) for number in numbers]
        rest = np.median(np.concatenate(chunks), axis=0)
        moved = [np.abs(chunk - chunk[0]) > STILL for chunk in chunks]
        names = self.embodiment.channel_names
        found = quantiles(np.concatenate(chunks), np.concatenate(moved), names)
        moving = np.concatenate(moved).any(axis=0)
        low, high = (np.where(moving, bound, rest) for bound in (found.q01, found.q99))
        return opened_wide(Quantiles(np.minimum(low, rest), np.maximum(high, rest), names), self.embodiment.layout)

    def info(self) -> EmbodimentInfo:
        """The checkpoint's entry needed to execute these motions."""
        return EmbodimentInfo(
            name=f"{self.embodiment.name}_motions",
            channel_names=self.embodiment.channel_names,
            control_mode=self.embodiment.control_mode,
            period=self.embodiment.period,
            horizon=self.max_steps,
            execution_horizon=self.max_steps,
            prompt_template=self.embodiment.prompt("{instruction}"),
            camera_tags=(),
            dataset=self.dataset,
        )

    def _ways(self) -> dict[str, list[int]]:
        """Template → arms that can execute it. Templates that no arm can execute are omitted."""
        ways: dict[str, list[int]] = {}
        for template in self.spec.templates:
            for arm, planner in enumerate(self.planners):
                try:
                    planner.draw(template, np.random.default_rng(self.spec.seed))
                    ways.setdefault(template, []).append(arm)
                except MotionError as error:
                    log.warning("%s; omitted", error)
        if not ways:
            raise DataError(f"robot {self.embodiment.name!r} cannot execute any of {', '.join(self.spec.templates)}")
        return ways


class Motions:
    """Whole motions without images; `rng` selects among the instructions for a motion."""

    camera_tags: tuple[str, ...] = ()

    def __init__(self, spec: MotionData, context: SourceContext) -> None:
        self.spec = spec
        max_steps = context.trajectory_steps or context.config.horizon
        self.robots = [RobotMotions(spec, number, max_steps) for number in range(len(spec.robots))]
        names = [robot.embodiment.name for robot in self.robots]
        if len(set(names)) < len(names):
            raise DataError(f"duplicate robot names: {', '.join(names)}")
        self.name = f"motions of {', '.join(names)}"
        kept, held_out = split(spec.count, context.held_out_share, self.name)
        first = np.arange(len(self.robots))[:, None] * spec.count
        self.training, self.held_out = (first + kept).ravel(), (first + held_out).ravel()
        self.statistics: Mapping[str, Quantiles] = {
            robot.dataset: kept_statistics(context, robot.dataset, robot.embodiment.channel_names)
            or robot.quantiles(kept[:STATISTICS_MOTIONS])
            for robot in self.robots
        }
        self.embodiments = {robot.info().name: robot.info() for robot in self.robots}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        robot, motion = self._at(index)
        actions = self.statistics[robot.dataset].normalize(robot.actions(motion))
        text = robot.prompt(motion, robot.sentence(motion, rng))
        return Sample(text, actions=actions, valid=np.ones(len(actions), bool))

    def label(self, index: int) -> Label:
        robot, motion = self._at(index)
        actions = robot.actions(motion)
        return Label(robot.dataset, actions, np.ones(actions.shape, bool))

    def use_statistics(self, statistics: Mapping[str, Quantiles]) -> None:
        self.statistics = statistics

    @property
    def tasks(self) -> np.ndarray:
        """Robot and template of every training index, for balanced sampling."""
        found = []
        for index in self.training:
            robot, number = self.robots[index // self.spec.count], index % self.spec.count
            found.append(f"{robot.embodiment.name} {robot.templates[number % len(robot.templates)]}")
        return np.array(found, dtype=object)

    def texts(self) -> Iterable[str]:
        rng = np.random.default_rng(self.spec.seed)
        texts = corpus({name for robot in self.robots for name in robot.arm_names})
        for robot in self.robots:
            for number in range(min(self.spec.count, SPOKEN_MOTIONS)):
                motion = robot.motion(number)
                texts.append(robot.prompt(motion, robot.sentence(motion, rng)))
        return texts

    def provenance(self) -> dict:
        robots = {robot.embodiment.name: robot.templates for robot in self.robots}
        settings = self.spec.model_dump(mode="json", include={"count", "seed", "rate_hz", "control_mode"})
        return {"kind": "motions", "templates": robots, **settings}

    def _at(self, index: int) -> tuple[RobotMotions, Motion]:
        robot = self.robots[index // self.spec.count]
        return robot, robot.motion(int(index % self.spec.count))
