# SPDX-License-Identifier: Apache-2.0
"""`kind: robot`: recordings of one robot as samples: prompt, camera images, action chunk, state, labels if any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from embodiment_descriptions import ControlMode, Embodiment
from qwen_vla.data.formats.bad_rows import usable_rows
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.frames import DecodedFrames, decode_camera
from qwen_vla.data.formats.lerobot import LeRobotEpisodes
from qwen_vla.data.formats.spec import check_steps, kept_statistics, opened_wide, split
from qwen_vla.data.robot.annotations import (
    POINTS_COLUMN,
    Annotations,
    fresh_frames,
    gripper_openings,
    point_columns,
    point_labels,
)
from qwen_vla.data.robot.color_jitter import jittered
from qwen_vla.data.robot.mismatched_prompts import MismatchedPrompts, hold_chunk, zeros_hold
from qwen_vla.data.robot.range_checks import Ranges, channel_ranges
from qwen_vla.data.robot.robot_dataset import RobotDataset
from qwen_vla.data.robot.statistics import cached_quantiles
from qwen_vla.data.samples import Label, SourceContext
from qwen_vla.data.table import OtherPrompts, SampleTable
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.sample import PointLabels, Sample

EXECUTION_SHARE = 0.5  # share of a chunk executed until the next one is requested
STILL_ROTATION = 0.02  # [rad] or share of gripper travel: smaller motion of a channel is only tracking noise
BLOCK = 4096  # rows whose chunks are in memory at a time for statistics
CHUNKS_IN_MEMORY = 1 << 27  # numbers; half a gigabyte
ROBOT_OF_STATISTICS = {"control_mode", "rate_hz", "arms", "urdf"}


class RobotData(RobotDataset):
    """Demonstrations, or single labeled frames without actions, of one robot."""

    kind: Literal["robot"]  # pyright: ignore[reportGeneralTypeIssues]  # required in a recipe

    def open(self, context: SourceContext) -> RobotSource:
        return RobotSource(self, context)


class RobotSource:
    """One dataset, ready for sampling: decoded images, action chunks, labels, and the episodes held out.

    An index is a frame: its images and the chunk that starts there, of all rows that follow. Where the recording
    repeats images, only frames with new ones are indices. With `context.trajectory_steps` it is the first frame of a
    trajectory of up to that many steps, cut at the end of its episode. Rates and horizons are those of the dataset
    (paper §2.3), and the prompt states this rate.
    """

    def __init__(self, spec: RobotData, context: SourceContext) -> None:
        self.spec, self.steps = spec, context.trajectory_steps
        see = context.images and spec.use_images
        self.recording, embodiment = spec.open_recording(see)
        self.source, self.embodiment = self.recording.source, self.recording.embodiment
        self.name = self.source.name
        check_steps(self.embodiment.chunk_size, context, spec.path)
        dataset = spec.statistics or embodiment.name
        # Relative to its first pose a trajectory goes farther than a chunk, so it has other statistics.
        dataset = f"{dataset}/trajectories" if self.steps else dataset
        self.info = embodiment_info(self.embodiment, dataset, spec.relative_actions)
        self.camera_tags = self.info.camera_tags
        if spec.other_prompts and not zeros_hold(self.info):
            raise DatasetError(f"{spec.path}: other_prompts needs relative_actions; absolute chunks cannot mean `hold`")
        self._other_prompts = MismatchedPrompts(embodiment.name, spec.other_prompts)
        self.episodes = self.source.episodes
        self._ends, self._episode = self.recording.ends, self.recording.episode_of
        self._tasks = self.recording.instructions
        self.recording.check_columns()
        self._read()
        self.bad_rows = self.recording.bad_rows()
        self.images = self._images(context) if see else {}
        self.bad_rows.settle(spec.on_bad_rows)
        self._split(context)
        self.statistics = self._statistics(context)
        self._check_statistics()
        self.embodiments: Mapping[str, EmbodimentInfo] = {self.info.name: self.info}
        self._normalize()

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The frame's sample; the spec may randomize the colors of its images and the robot of its prompt."""
        tags = self.camera_tags if self.images else ()
        other = self._other_prompts.draw(self._task(index), rng) if self._may_have_another(index) else None
        return Sample(
            text=other or self._prompt(index),
            images=self._pictures(index, tags, rng),
            actions=None if self.targets is None else self._still(index) if other else self._actions(index),
            state=None if self._states is None else self._states[index],
            labels=self._point_labels(index, tags),
        )

    def table(self) -> SampleTable | None:
        """All training samples; None for whole trajectories, or if the chunks do not fit into memory."""
        rows = self.training
        if self.steps or (self.targets is not None and self._ready is None):
            return None
        tasks, number = np.unique(self._tasks[rows].astype(str), return_inverse=True)
        others = self._other_prompts.of(tasks) if self.targets is not None else []
        return SampleTable(
            rows,
            (*(self.info.prompt(task) for task in tasks), *others),
            number,
            self.images,
            None if self._ready is None else self._ready[: len(rows)],
            None if self._states is None else self._states[rows],
            self._point_columns(rows),
            self.spec.color_jitter,
            self._others(len(tasks)) if len(others) else None,
        )

    def chunk(self, index: int) -> np.ndarray:
        """(steps, channels) the actions after a frame, in physical units."""
        return self._chunks(np.array([index]), self._length(index))[0]

    def _chunks(self, rows: np.ndarray, steps: int) -> np.ndarray:
        """(rows, steps, channels) the actions after some frames, in physical units."""
        if self.targets is None:
            raise DatasetError(f"{self.spec.path}: its frames have no actions")
        return self.targets.chunks(rows, steps)

    def label(self, index: int) -> Label | None:
        if self.targets is None:
            return None
        values = self.chunk(index)
        return Label(self.info.dataset, values, np.ones(values.shape, bool))

    def use_statistics(self, statistics: Mapping[str, Quantiles]) -> None:
        name = self.info.dataset
        self.statistics = {**statistics, **({name: self._at_rest(statistics[name])} if name in statistics else {})}
        self._normalize()

    @property
    def tasks(self) -> np.ndarray:
        """The instruction of every training index, for balanced sampling."""
        return self._tasks[self.training]

    def texts(self) -> Iterable[str]:
        return [self.info.prompt(task) for task in sorted(set(self._tasks))]

    def provenance(self) -> dict:
        found = {
            "kind": "demonstrations",
            "path": self.spec.path,
            "robot": self.info.name,
            "hash": self.source.fingerprint,
        }
        if isinstance(self.source, LeRobotEpisodes):
            info = self.source.reader.info
            found |= {key: info[key] for key in ("suite", "kind", "seeds") if key in info}
        found |= {"total_episodes": len(self.episodes), "total_frames": len(self._ends)}
        return found | {"usable_rows": int(self._usable.sum())} | self.bad_rows.summary()

    # --- opening ----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Columns and labels. A recording of single frames has no targets."""
        found = self.recording.read()
        self.state, self.state_names, self.used = found.state, found.state_names, found.used
        self.targets, self._looks_ahead = found.targets, found.looks_ahead
        self.labels = self.openings = None
        self.fresh = np.ones(len(self._ends), bool)
        if not isinstance(self.source, LeRobotEpisodes):
            return
        reader = self.source.reader
        if reader.info.get("kind", "demonstrations") != "demonstrations":
            self.targets = None
        self.fresh = fresh_frames(reader)
        if POINTS_COLUMN in reader.features:
            self.labels, self.openings = Annotations.of(reader), gripper_openings(reader, self.embodiment)

    def _images(self, context: SourceContext) -> dict[str, DecodedFrames]:
        """Decoded frames by camera tag; rows without an image are bad."""
        side, found = context.config.image_size, {}
        for tag in self.camera_tags:
            key = self.recording.image_key(tag)
            found[tag] = decode_camera(self.source, key, (side, side), self.fresh)
            for row, why in found[tag].bad.items():
                self.bad_rows.add(row, *why.split(": ", 1))
        return found

    def _split(self, context: SourceContext) -> None:
        self._usable = self._usable_rows()
        training, held_out = split(len(self.episodes), context.held_out_share, f"{self.source.root}: episodes")
        self._is_held_out = np.isin(np.arange(len(self.episodes)), held_out)
        self.training, self.held_out = (self._indices(self.episodes[chosen]) for chosen in (training, held_out))
        if not len(self.training):
            raise DatasetError(f"{self.source.root}: no row is left for training; {len(self.bad_rows)} rows are bad")

    def _usable_rows(self) -> np.ndarray:
        """(N,) rows whose chunk, or trajectory, has no bad row and no missing action."""
        rows = np.arange(len(self._ends))
        steps = (self.steps or self.info.horizon) + self._looks_ahead if self.targets is not None else 1
        needed = np.minimum(rows + steps, self._ends) - rows
        return usable_rows(self.bad_rows.mask(len(rows)), needed)

    def _indices(self, episodes: np.ndarray) -> np.ndarray:
        """Every frame with new images, if images are used; for whole trajectories, only their first frames, which cover
        the episodes."""
        stride = self.steps or 1
        rows = np.concatenate([np.arange(0), *(np.arange(first, end, stride) for first, end in episodes)])
        return rows[self._usable[rows] & (self.fresh[rows] if self.images and not self.steps else True)]

    # --- statistics -------------------------------------------------------------------------------------------------

    @property
    def _reads_state(self) -> bool:
        """Whether a policy needs the state: as an input, or as the origin of its actions."""
        return self.state is not None and (self.spec.use_state or self.spec.relative_actions)

    def _statistics(self, context: SourceContext) -> dict[str, Quantiles]:
        found = {}
        if self.targets is not None:
            name = self.info.dataset
            found[name] = kept_statistics(context, name, self.info.channel_names) or self._action_quantiles()
        if (state := self.state) is not None and self._reads_state:
            name = self.info.state_dataset
            found[name] = kept_statistics(context, name, self.state_names) or self._quantiles(
                "state", lambda: [state[self.training]], self.state_names
            )
        return found

    def _check_statistics(self) -> None:
        """DatasetError if statistics, own or of the checkpoint to start from, are not those of this robot."""
        absolute = self.info.control_mode is ControlMode.JOINT_POSITION and not self.info.relative_actions
        for name, quantiles in self.statistics.items():
            where = f"{self.spec.path}: statistics {name}"
            if name == self.info.state_dataset and not self.info.control_mode.moves_base:
                Ranges.of_joints(self.embodiment).refuse_statistics(quantiles, where)
            elif name == self.info.dataset and absolute:
                channel_ranges(self.embodiment).refuse_statistics(quantiles, where)

    def _action_quantiles(self) -> Quantiles:
        """q01/q99 over the training chunks; grippers have their known range."""
        found = self._quantiles("actions", self._chunk_blocks, self.info.channel_names)
        return opened_wide(self._at_rest(found), self.info.layout)

    def _at_rest(self, found: Quantiles) -> Quantiles:
        """Statistics in which rotations at rest are degenerate: noise is not motion."""
        still = found.q99 - found.q01 < STILL_ROTATION
        still &= np.isin(np.arange(len(still)), self.info.layout.rotations)
        middle = (found.q01 + found.q99) / 2
        return Quantiles(np.where(still, middle, found.q01), np.where(still, middle, found.q99), found.channel_names)

    def _quantiles(self, what: str, blocks, names: Sequence[str]) -> Quantiles:
        """Quantiles from the dataset's cache if data, robot and rows are unchanged."""
        made_from = {
            "values": what,
            "data": self.source.fingerprint,
            "rows": [int(self.training[0]), int(self.training[-1]), len(self.training)],
            "bad_rows": self.bad_rows.summary(),
            "steps": self.steps or self.info.horizon,
            "trajectories": bool(self.steps),
            "robot": self.embodiment.model_dump(mode="json", include=ROBOT_OF_STATISTICS),
            "maps": [[map.column, *map.picks, *map.scale, *map.offset] for map in self.recording.reader.maps.values()],
            "columns": self.spec.columns.model_dump(mode="json"),
            "relative": self.spec.relative_actions,
        }
        return cached_quantiles(self.source.root, made_from, blocks, names)

    def _chunk_blocks(self) -> Iterator[np.ndarray]:
        if self.steps:
            for index in self.training.tolist():
                yield self.chunk(index).astype(np.float32)
            return
        for start in range(0, len(self.training), BLOCK):
            chunks = self._chunks(self.training[start : start + BLOCK], self.info.horizon)
            yield chunks.reshape(-1, chunks.shape[-1]).astype(np.float32)

    def _normalize(self) -> None:
        """Normalize states, and chunks if they fit into memory: cutting single ones would dominate a sample's cost."""
        known, name = self.statistics, self.info.state_dataset
        self._states = known[name].normalize(self.state) if self.spec.use_state and self.state is not None else None
        self._ready = None
        rows = np.concatenate([self.training, self.held_out])
        shape = (len(rows), self.info.horizon, len(self.info.channel_names))
        if self.targets is None or self.steps or np.prod(shape) > CHUNKS_IN_MEMORY:
            return
        self._ready, self._place = np.zeros(shape, np.float32), np.full(len(self._ends), -1)
        self._place[rows] = np.arange(len(rows))
        for start in range(0, len(rows), BLOCK):
            chunks = self.targets.chunks(rows[start : start + BLOCK], self.info.horizon)
            self._ready[start : start + BLOCK] = known[self.info.dataset].normalize(chunks)

    # --- samples ----------------------------------------------------------------------------------------------------

    def _actions(self, index: int) -> np.ndarray:
        if self._ready is not None and self._place[index] >= 0:
            return self._ready[self._place[index]]
        return self.statistics[self.info.dataset].normalize(self.chunk(index))

    def _pictures(self, index: int, tags: Iterable[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
        images = {tag: self.images[tag][index] for tag in tags}
        strength = 0.0 if self._held_out(index) else self.spec.color_jitter
        return jittered(images, strength, rng) if strength else images

    def _held_out(self, index: int) -> bool:
        """Whether a frame is for evaluation, with the robot's own prompt and colors."""
        return bool(self._is_held_out[self._episode[index]])

    def _still(self, index: int) -> np.ndarray:
        return self.statistics[self.info.dataset].normalize(hold_chunk(self.chunk(index), self.info))

    def _may_have_another(self, index: int) -> bool:
        """Whether the prompt may name another robot; without actions there is nothing to hold."""
        return self.targets is not None and not self.steps and not self._held_out(index)

    def _task(self, index: int) -> str:
        return self._tasks[index]

    def _prompt(self, index: int) -> str:
        """The prompt states the number of steps: the robot's own horizon, or the trajectory's length."""
        task = self._task(index)
        if self.steps is None:
            return self.info.prompt(task)
        return self.embodiment.model_copy(update={"chunk_size": self._length(index)}).prompt(task)

    def _length(self, index: int) -> int:
        left = int(self._ends[index]) - int(index)
        return min(self.steps, left) if self.steps else self.info.horizon

    def _others(self, tasks: int) -> OtherPrompts:
        layout, statistics = self.info.layout, self.statistics[self.info.dataset]
        rest = statistics.normalize(np.zeros((1, len(self.info.channel_names))))[0]
        prompts = tasks + np.arange(tasks * self._other_prompts.robots).reshape(tasks, -1)
        return OtherPrompts(self._other_prompts.share, prompts, rest, np.asarray(layout.grippers, int))

    def _point_columns(self, rows: np.ndarray) -> PointLabels | None:
        if self.labels is None or self.openings is None or not self.images:
            return None
        cameras = [self.labels.cameras.index(tag) for tag in self.camera_tags]
        objects = np.stack(
            [column[rows].reshape(-1) for column in (self.labels.object, self.labels.goal)], axis=1
        ).astype(int)
        return point_columns(self.labels, rows, cameras, objects, self.openings[rows])

    def _point_labels(self, index: int, tags: Iterable[str]) -> PointLabels | None:
        if self.labels is None or self.openings is None or not tags:
            return None
        cameras = [self.labels.cameras.index(tag) for tag in tags]
        number, goal = int(self.labels.object[index]), int(self.labels.goal[index])
        return point_labels(self.labels, index, cameras, number, goal, self.openings[index])


def embodiment_info(
    embodiment: Embodiment, statistics: str | None = None, relative_actions: bool = False
) -> EmbodimentInfo:
    """A checkpoint's entry for an `Embodiment`; `statistics`: name of its normalization statistics."""
    layout, limits = embodiment.layout, embodiment.limits
    joints = [layout.names[column] for column in layout.joints]
    return EmbodimentInfo(
        name=embodiment.name,
        channel_names=layout.names,
        control_mode=embodiment.control_mode,
        period=embodiment.period,
        horizon=embodiment.chunk_size,
        execution_horizon=max(1, round(embodiment.chunk_size * EXECUTION_SHARE)),
        prompt_template=embodiment.prompt("{instruction}"),
        camera_tags=tuple(camera.tag for camera in embodiment.cameras),
        dataset=statistics or embodiment.name,
        relative_actions=relative_actions,
        joint_limits={n: (limits[n].lower, limits[n].upper) for n in joints if limits[n].type != "continuous"},
        continuous_joints=tuple(name for name in joints if limits[name].type == "continuous"),
    )
