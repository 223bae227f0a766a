# SPDX-License-Identifier: Apache-2.0
"""`kind: navigation`: a mobile base that follows an instruction, as history frames and the next waypoints.

Poses are (x, y, θ) [m, m, rad] on the ground in any fixed frame, axes as in REP-103: x forward, y left, θ
counter-clockwise. Waypoint k is the increment (Δx, Δy, Δθ) from waypoint k−1, in the frame of waypoint k−1; the first
starts at the current pose. Whether the paper's Δs are increments or cumulative is [open]; the model uses increments,
and a policy's chunks contain the poses that they add up to. Beyond the end of a successful episode the robot stands
still: all-zero waypoints are STOP ([open]).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from embodiment_descriptions import ActionLayout, ControlMode, build_prompt
from embodiment_descriptions.prompt import TAG_PATTERN
from qwen_vla.data.formats.spec import (
    DataError,
    FileSpec,
    Text,
    check_steps,
    file_hash,
    kept_statistics,
    quantiles,
    read_rows,
    split,
)
from qwen_vla.data.language.images import CameraFrames, check_address, pictures
from qwen_vla.data.samples import Label, SourceContext
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.sample import Sample
from qwen_vla_control.motion.base_path import increments

CHANNELS = ActionLayout.of_base(ControlMode.BASE_WAYPOINTS).names


class NavigationData(FileSpec):
    """Navigation episodes. Defaults are those of the paper, if any: frames at 2 Hz, 8 waypoints."""

    kind: Literal["navigation"]
    robot: str = Field(
        default="navigation", pattern=f"^{TAG_PATTERN.pattern}$", description="name of embodiment and statistics"
    )
    robot_tag: Text = Field(default="a mobile robot", description="name of the robot in the prompt")
    waypoints: int = Field(default=8, ge=1)
    period: float = Field(default=0.5, gt=0, description="time between two waypoints [s]; [open] in the paper")
    history: int = Field(
        default=8, ge=1, description="frames shown, including the current one; fewer at an episode's start"
    )
    history_rate_hz: float = Field(default=2.0, gt=0)
    only_successful: bool = Field(default=True, description="skip episodes that are not marked as successful")

    def open(self, context: SourceContext) -> Navigation:
        return Navigation(self, context)


class NavigationEpisode(BaseModel):
    """One line: pose i and frame i of every camera are at time i / rate_hz."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: Text
    rate_hz: FiniteFloat = Field(gt=0)
    poses: tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat], ...] = Field(min_length=2)
    frames: CameraFrames = Field(default_factory=dict)
    success: bool = True

    @model_validator(mode="after")
    def _frames_match(self) -> NavigationEpisode:
        for tag, addresses in self.frames.items():
            if len(addresses) != len(self.poses):
                raise ValueError(f"camera {tag!r} has {len(addresses)} frames for {len(self.poses)} poses")
        return self

    @cached_property
    def path(self) -> np.ndarray:
        """(N, 3) poses with unwrapped angles."""
        poses = np.array(self.poses)
        poses[:, 2] = np.unwrap(poses[:, 2])
        return poses

    def pose_at(self, time: np.ndarray) -> np.ndarray:
        """(..., 3) poses at times [s], linearly interpolated, and constant before and after the logged ones."""
        index = np.asarray(time) * self.rate_hz
        return np.stack([np.interp(index, np.arange(len(self.path)), column) for column in self.path.T], axis=-1)

    def waypoints(self, frame: np.ndarray, count: int, period: float) -> np.ndarray:
        """(..., count, 3) increments that follow the given frames."""
        times = np.asarray(frame)[..., None] / self.rate_hz + period * np.arange(count + 1)
        return increments(self.pose_at(times))

    def remaining(self, frame: int, period: float) -> int:
        """Waypoints until the robot stands at the end, and one more for STOP."""
        return int(np.ceil((len(self.poses) - 1 - frame) / self.rate_hz / period - 1e-9)) + 1


class Navigation:
    """One sample per logged frame; with `context.trajectory_steps` one per segment of a whole trajectory.

    Whole episodes at the end are held out. In a failed episode, waypoints beyond its end are masked instead of
    meaning STOP.
    """

    def __init__(self, spec: NavigationData, context: SourceContext) -> None:
        self.spec = spec
        check_steps(spec.waypoints, context, str(spec.path))
        self.name = f"navigation {spec.path.stem}"
        self.size, self.steps = context.config.image_size, context.trajectory_steps
        episodes, self.bad = read_rows(spec.path, self._parse, spec.on_bad_rows)
        self.episodes = [episode for episode in episodes if episode.success or not spec.only_successful]
        self.failed = len(episodes) - len(self.episodes)
        if not self.episodes:
            raise DataError(f"{spec.path}: no episode succeeded; set `only_successful: false` to train on failed ones")
        tags = sorted({tag for episode in self.episodes for tag in episode.frames})
        self.camera_tags = tuple(tags) if context.images else ()
        kept, held_out = split(len(self.episodes), context.held_out_share, f"{spec.path}: episodes")
        self._index = [(number, frame) for number, e in enumerate(self.episodes) for frame in self._starts(e)]
        owner = np.array([number for number, _ in self._index])
        self.training = np.flatnonzero(np.isin(owner, kept))
        self.held_out = np.flatnonzero(np.isin(owner, held_out))
        known = kept_statistics(context, spec.robot, CHANNELS)
        self.statistics: Mapping[str, Quantiles] = {spec.robot: known or self._quantiles()}
        self.embodiments = {spec.robot: self._embodiment()}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample of one frame; it is deterministic."""
        number, frame = self._index[index]
        episode = self.episodes[number]
        waypoints, valid = self.chunk(index)
        shown = self.history_frames(episode, frame)
        images = pictures(self.spec.path.parent, episode.frames, shown, self.size) if self.camera_tags else {}
        actions = self.statistics[self.spec.robot].normalize(waypoints)
        prompt, rate = self._prompt(episode.instruction, len(actions)), self.spec.history_rate_hz
        return Sample(prompt, images, actions=actions, valid=valid, frame_rate=rate)

    def label(self, index: int) -> Label:
        values, valid = self.chunk(index)
        return Label(self.spec.robot, values, np.repeat(valid[:, None], len(CHANNELS), axis=1))

    def use_statistics(self, statistics: Mapping[str, Quantiles]) -> None:
        self.statistics = statistics

    def at(self, index: int) -> tuple[NavigationEpisode, int]:
        """Episode and frame of a sample."""
        number, frame = self._index[index]
        return self.episodes[number], frame

    @property
    def tasks(self) -> np.ndarray:
        """The instruction of every training index, for balanced sampling."""
        return np.array([self.episodes[self._index[i][0]].instruction for i in self.training], dtype=object)

    def history_frames(self, episode: NavigationEpisode, frame: int) -> list[int]:
        """The history frames of a frame, oldest first, the current one last; none is repeated as padding."""
        stride = episode.rate_hz / self.spec.history_rate_hz
        wanted = frame - stride * np.arange(self.spec.history)[::-1]
        return sorted({int(round(i)) for i in wanted if i > -0.5})

    def texts(self) -> Iterable[str]:
        instructions = sorted({episode.instruction for episode in self.episodes})
        counts = range(1, self.steps + 1) if self.steps else [self.spec.waypoints]
        return [self._prompt(text, counts[-1]) for text in instructions] + [self._prompt("go", n) for n in counts]

    def provenance(self) -> dict:
        counts = {"episodes": len(self.episodes), "failed_left_out": self.failed, "bad_rows": len(self.bad)}
        return {"kind": "navigation", "path": str(self.spec.path), "sha256": file_hash(self.spec.path), **counts}

    def _parse(self, row: dict, line: int) -> NavigationEpisode:
        episode = NavigationEpisode.model_validate(row)
        for addresses in episode.frames.values():
            for address in addresses:
                check_address(self.spec.path.parent, address)
        return episode

    def _starts(self, episode: NavigationEpisode) -> Iterable[int]:
        """Every frame; for whole trajectories, only as many as cover the episode."""
        stride = max(1, round(self.steps * self.spec.period * episode.rate_hz)) if self.steps else 1
        return range(0, len(episode.poses), stride)

    def chunk(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(count, 3) increments in physical units, and a mask of those that exist."""
        number, frame = self._index[index]
        episode = self.episodes[number]
        left = episode.remaining(frame, self.spec.period)
        count = min(self.steps, left) if self.steps else self.spec.waypoints
        valid = np.ones(count, bool) if episode.success else np.arange(count) < max(left - 1, 1)
        return episode.waypoints(np.array(frame), count, self.spec.period), valid

    def _quantiles(self) -> Quantiles:
        """q01/q99 of the training waypoints, widened to hold 0: STOP must not be clipped, even if it is rare."""
        found = [self.chunk(index) for index in self.training.tolist()]
        values = np.concatenate([waypoints for waypoints, _ in found])
        valid = np.concatenate([valid for _, valid in found])[:, None]
        bounds = quantiles(values, valid, CHANNELS)
        return Quantiles(np.minimum(bounds.q01, 0), np.maximum(bounds.q99, 0), CHANNELS)

    def _prompt(self, instruction: str, count: int) -> str:
        return self._template(count).replace("{instruction}", instruction)

    def _template(self, count: int) -> str:
        """The prompt of a mobile base, in the one wording that robots of the suite have, too."""
        return build_prompt(
            robot_tag=self.spec.robot_tag,
            arm_count=0,
            has_waist=False,
            has_base=True,
            rate_hz=1 / self.spec.period,
            chunk_size=count,
            instruction="{instruction}",
            waypoints=True,
        )

    def _embodiment(self) -> EmbodimentInfo:
        return EmbodimentInfo(
            name=self.spec.robot,
            channel_names=CHANNELS,
            control_mode=ControlMode.BASE_WAYPOINTS,
            period=self.spec.period,
            horizon=self.spec.waypoints,
            execution_horizon=max(1, self.spec.waypoints // 2),
            prompt_template=self._template(self.spec.waypoints),
            camera_tags=self.camera_tags,
            dataset=self.spec.robot,
        )
