# SPDX-License-Identifier: Apache-2.0
"""`kind: trajectories`: future positions of an agent or an object, as chunks of points with a prompt that names it.

The paper supervises trajectories of the agent itself and of surrounding entities; their format and wording are [open].
Here a line of a JSON Lines file is one moment: the camera images and, per entity, the points that follow, in the image
(0–1000, as in grounding), on the ground, or in space; the latter two in the agent's frame at that moment
(REP-103).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from embodiment_descriptions.prompt import TAG_PATTERN
from qwen_vla.data.formats.spec import (
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
from qwen_vla.data.language.vision_language import SCALE
from qwen_vla.data.samples import Label, SourceContext
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.sample import Sample

Space = Literal["image", "ground", "space"]


@dataclass(frozen=True)
class Axes:
    """Names of a space's coordinates, and their description in the prompt."""

    channels: tuple[str, ...]
    words: str


SPACES: dict[str, Axes] = {
    "image": Axes(("u", "v"), "as u right and v down in thousandths of the image"),
    "ground": Axes(("x", "y"), "as x forward and y left [m] on the ground, seen from here"),
    "space": Axes(("x", "y", "z"), "as x forward, y left and z up [m], seen from here"),
}
PROMPT = "The control frequency is {rate:g} Hz. Please predict the next {count} positions of {entity}, {axes}{task}."


class TrajectoryData(FileSpec):
    """Trajectories of agents and objects."""

    kind: Literal["trajectories"]
    name: str = Field(default="trajectories", pattern=f"^{TAG_PATTERN.pattern}$", description="of the statistics")
    steps: int = Field(default=16, ge=1, description="points in a chunk; missing ones of a shorter line are masked")

    def open(self, context: SourceContext) -> Trajectories:
        return Trajectories(self, context)


class Entity(BaseModel):
    """A moving entity, with its name in the prompt; a point is null where it was not seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    points: tuple[tuple[FiniteFloat, ...] | None, ...]


class Moment(BaseModel):
    """One line. Point i of an entity is its position (i + 1) / rate_hz seconds later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: Space
    rate_hz: FiniteFloat = Field(gt=0)
    entities: tuple[Entity, ...] = Field(min_length=1)
    instruction: Text | None = None
    frames: CameraFrames = Field(default_factory=dict, description="images, oldest first")
    frames_rate_hz: FiniteFloat = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _points_fit(self) -> Moment:
        width = len(SPACES[self.space].channels)
        for entity in self.entities:
            known = [point for point in entity.points if point is not None]
            if not known:
                raise ValueError(f"{entity.name!r} has no known point")
            if wrong := [point for point in known if len(point) != width]:
                raise ValueError(f"{entity.name!r}: points of space {self.space!r} have {width} numbers: {wrong[0]}")
            if self.space == "image" and not all(0 <= value <= SCALE for point in known for value in point):
                raise ValueError(f"{entity.name!r}: image points are 0…{SCALE} over each axis; null where out of view")
        return self


class Trajectories:
    """One sample per moment and entity. The moments at the file's end are held out, with all their entities."""

    embodiments: dict = {}

    def __init__(self, spec: TrajectoryData, context: SourceContext) -> None:
        self.spec = spec
        self.size, self.limit = context.config.image_size, context.trajectory_steps
        check_steps(spec.steps, context, str(spec.path))
        self.name = f"trajectories {spec.path.stem}"
        self.moments, self.bad = read_rows(spec.path, self._parse, spec.on_bad_rows)
        tags = sorted({tag for moment in self.moments for tag in moment.frames})
        self.camera_tags = tuple(tags) if context.images else ()
        kept, held_out = split(len(self.moments), context.held_out_share, f"{spec.path}: moments")
        pairs = ((m, e) for m, moment in enumerate(self.moments) for e in range(len(moment.entities)))
        self._index = [(m, e) for m, e in pairs if self._points(m, e)[1].any()]
        owner = np.array([moment for moment, _ in self._index])
        self.training = np.flatnonzero(np.isin(owner, kept))
        self.held_out = np.flatnonzero(np.isin(owner, held_out))
        found = self._quantiles()
        self.statistics: Mapping[str, Quantiles] = {
            key: kept_statistics(context, key, own.channel_names) or own for key, own in found.items()
        }

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample of one entity at one moment; it is deterministic."""
        moment, entity = self._at(index)
        points, valid = self._points(*self._index[index])
        folder = self.spec.path.parent
        images = {}
        for tag in self.camera_tags:
            if shown := moment.frames.get(tag):
                images |= pictures(folder, {tag: shown}, range(len(shown)), self.size)
        actions = self.statistics[self._key(moment)].normalize(np.where(valid[:, None], points, 0.0))
        prompt, rate = self._prompt(moment, entity, len(points)), moment.frames_rate_hz
        return Sample(prompt, images, actions=actions, valid=valid, frame_rate=rate)

    def label(self, index: int) -> Label:
        moment, _ = self._at(index)
        points, valid = self._points(*self._index[index])
        return Label(
            self._key(moment), np.where(valid[:, None], points, 0.0), np.repeat(valid[:, None], points.shape[1], 1)
        )

    def use_statistics(self, statistics: Mapping[str, Quantiles]) -> None:
        self.statistics = statistics

    def texts(self) -> Iterable[str]:
        counts = range(1, self.limit + 1) if self.limit else [self.spec.steps]
        prompts = {self._prompt(moment, entity, counts[-1]) for moment in self.moments for entity in moment.entities}
        return sorted(prompts) + [f"the next {count} positions" for count in counts]

    def provenance(self) -> dict:
        counts = {"moments": len(self.moments), "samples": len(self._index), "bad_rows": len(self.bad)}
        return {"kind": "trajectories", "path": str(self.spec.path), "sha256": file_hash(self.spec.path), **counts}

    def _parse(self, row: dict, line: int) -> Moment:
        moment = Moment.model_validate(row)
        for addresses in moment.frames.values():
            for address in addresses:
                check_address(self.spec.path.parent, address)
        return moment

    def _at(self, index: int) -> tuple[Moment, Entity]:
        moment, entity = self._index[index]
        return self.moments[moment], self.moments[moment].entities[entity]

    def _points(self, moment_number: int, entity_number: int) -> tuple[np.ndarray, np.ndarray]:
        """(steps, c) points of an entity, NaN where unknown, and (steps,) whether they are known."""
        moment = self.moments[moment_number]
        entity = moment.entities[entity_number]
        width = len(SPACES[moment.space].channels)
        count = min(self.limit, len(entity.points)) if self.limit else self.spec.steps
        points = np.full((count, width), np.nan)
        for step, point in enumerate(entity.points[:count]):
            if point is not None:
                points[step] = point
        return points, ~np.isnan(points[:, 0])

    def _quantiles(self) -> dict[str, Quantiles]:
        """q01/q99 of the training points, per space."""
        by_space: dict[str, list[int]] = {}
        for index in self.training.tolist():
            by_space.setdefault(self._at(index)[0].space, []).append(index)
        for moment in self.moments:  # a space that occurs only in held-out moments
            by_space.setdefault(moment.space, [])
        found = {}
        for space, indices in by_space.items():
            channels = SPACES[space].channels
            points = np.concatenate(
                [np.empty((0, len(channels))), *(self._points(*self._index[i])[0] for i in indices)]
            )
            found[f"{self.spec.name}_{space}"] = quantiles(points, ~np.isnan(points), channels)
        return found

    def _key(self, moment: Moment) -> str:
        return f"{self.spec.name}_{moment.space}"

    @staticmethod
    def _prompt(moment: Moment, entity: Entity, count: int) -> str:
        task = f", while the task is: {moment.instruction}" if moment.instruction else ""
        axes = SPACES[moment.space].words
        return PROMPT.format(rate=moment.rate_hz, count=count, entity=entity.name, axes=axes, task=task)
