# SPDX-License-Identifier: Apache-2.0
"""`kind: hands`: egocentric human hands as 32 action channels, left hand first.

Per hand: 3 translation [m] and 3 axis-angle [rad] of the wrist, relative to the chunk's initial frame, then 10 PCA
coefficients of MANO (paper §2.4). The initial frame is that hand's own wrist at the observation ([open]),
as for end-effector deltas: T_t⁻¹·T_{t+i}, i = 1…H. A hand out of view is masked, never treated as zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from scipy.spatial.transform import Rotation

from embodiment_descriptions import build_prompt
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
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.sample import Sample

SIDES = ("left", "right")
PCA = 10
WIDTHS = {"translation": 3, "rotation": 3, "pca": PCA}
CHANNELS = tuple(
    f"{side}_{name}" for side in SIDES for name in ("x", "y", "z", "rx", "ry", "rz", *(f"pca{i}" for i in range(PCA)))
)
STATISTICS_CHUNKS = 5000  # chunks for the statistics, evenly spread over the training data


class HandData(FileSpec):
    """Recordings of human hands."""

    kind: Literal["hands"]
    name: str = Field(default="human", pattern=f"^{TAG_PATTERN.pattern}$", description="of the statistics")
    steps: int = Field(default=16, ge=1, description="steps in a chunk")

    def open(self, context: SourceContext) -> Hands:
        return Hands(self, context)


class HandLine(BaseModel):
    """One line of the file; `hands` is the .npz with the arrays that `read_hands` describes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: Text
    rate_hz: FiniteFloat = Field(gt=0)
    hands: str
    frames: CameraFrames = Field(default_factory=dict)


@dataclass(frozen=True)
class HandEpisode:
    """Wrist poses in one fixed frame and hand shapes; per side positions (N, 3), rotations, pca (N, 10), present."""

    line: HandLine
    positions: Mapping[str, np.ndarray]
    rotations: Mapping[str, Rotation]
    pca: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.present["left"])

    def chunk(self, frame: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """(steps, 32) values of the frames that follow, and a mask of existing ones (same shape); others are 0."""
        parts = [self._hand(side, frame, steps) for side in SIDES]
        values, valid = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
        return np.where(valid, values, 0.0), valid

    def _hand(self, side: str, frame: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        rows = frame + 1 + np.arange(steps)
        present = (rows < len(self)) & self.present[side][frame]
        rows = np.minimum(rows, len(self) - 1)
        present &= self.present[side][rows]
        to_wrist = self.rotations[side][frame].inv()
        move = to_wrist.apply(self.positions[side][rows] - self.positions[side][frame])
        rotations = self.rotations[side][rows]  # pyright: ignore[reportArgumentType]  # scipy's hint lacks index arrays
        turn = (to_wrist * rotations).as_rotvec()
        values = np.concatenate([move, turn, self.pca[side][rows]], axis=1)
        return values, np.repeat(present[:, None], values.shape[1], axis=1)


class Hands:
    """One sample per frame after which a hand is visible; whole recordings at the end are held out."""

    embodiments: dict = {}

    def __init__(self, spec: HandData, context: SourceContext) -> None:
        self.spec = spec
        self.size, self.limit = context.config.image_size, context.trajectory_steps
        check_steps(spec.steps, context, str(spec.path))
        self.name = f"hands {spec.path.stem}"
        self.episodes, self.bad = read_rows(spec.path, self._parse, spec.on_bad_rows)
        tags = sorted({tag for episode in self.episodes for tag in episode.line.frames})
        self.camera_tags = tuple(tags) if context.images else ()
        kept, held_out = split(len(self.episodes), context.held_out_share, f"{spec.path}: recordings")
        self._index = [(n, frame) for n, episode in enumerate(self.episodes) for frame in self._starts(episode)]
        owner = np.array([number for number, _ in self._index], int)
        self.training = np.flatnonzero(np.isin(owner, kept))
        self.held_out = np.flatnonzero(np.isin(owner, held_out))
        if not len(self.training):
            raise DataError(f"{spec.path}: no hand is visible in two consecutive frames of the training recordings")
        known = kept_statistics(context, spec.name, CHANNELS)
        self.statistics: Mapping[str, Quantiles] = {spec.name: known or self._quantiles()}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample of one frame; it is deterministic."""
        number, frame = self._index[index]
        episode = self.episodes[number]
        values, valid = self.chunk(index)
        frames = episode.line.frames if self.camera_tags else {}
        images = pictures(self.spec.path.parent, frames, [frame], self.size)
        actions = self.statistics[self.spec.name].normalize(values)
        prompt = self._prompt(episode.line, len(values))
        return Sample(prompt, {tag: image[0] for tag, image in images.items()}, actions=actions, valid=valid)

    def label(self, index: int) -> Label:
        values, valid = self.chunk(index)
        return Label(self.spec.name, values, np.broadcast_to(valid, values.shape))

    def use_statistics(self, statistics: Mapping[str, Quantiles]) -> None:
        self.statistics = statistics

    @property
    def tasks(self) -> np.ndarray:
        """The instruction of every training index, for balanced sampling."""
        return np.array([self.episodes[self._index[i][0]].line.instruction for i in self.training], dtype=object)

    def texts(self) -> Iterable[str]:
        counts = range(1, self.limit + 1) if self.limit else [self.spec.steps]
        prompts = {self._prompt(episode.line, counts[-1]) for episode in self.episodes}
        return sorted(prompts) + [f"the next {count} control actions" for count in counts]

    def provenance(self) -> dict:
        counts = {"recordings": len(self.episodes), "samples": len(self._index), "bad_rows": len(self.bad)}
        return {"kind": "hands", "path": str(self.spec.path), "sha256": file_hash(self.spec.path), **counts}

    def _parse(self, row: dict, line: int) -> HandEpisode:
        parsed = HandLine.model_validate(row)
        episode = read_hands(self.spec.path.parent, parsed)
        for tag, addresses in parsed.frames.items():
            if len(addresses) != len(episode):
                raise ValueError(f"camera {tag!r} has {len(addresses)} frames, {parsed.hands} has {len(episode)}")
            for address in addresses:
                check_address(self.spec.path.parent, address)
        return episode

    def _starts(self, episode: HandEpisode) -> list[int]:
        """Frames with a target; for whole trajectories, only as many as cover the episode."""
        frames = range(0, len(episode) - 1, self.limit or 1)
        return [frame for frame in frames if episode.chunk(frame, self._steps(episode, frame))[1].any()]

    def _steps(self, episode: HandEpisode, frame: int) -> int:
        return min(self.limit, len(episode) - 1 - frame) if self.limit else self.spec.steps

    def chunk(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number, frame = self._index[index]
        episode = self.episodes[number]
        return episode.chunk(frame, self._steps(episode, frame))

    def _quantiles(self) -> Quantiles:
        spread = np.linspace(0, len(self.training) - 1, min(len(self.training), STATISTICS_CHUNKS)).astype(int)
        values, valid = zip(*(self.chunk(index) for index in self.training[spread]), strict=True)
        return quantiles(np.concatenate(values), np.concatenate(valid), CHANNELS)

    @staticmethod
    def _prompt(line: HandLine, steps: int) -> str:
        """The embodiment prompt; Table 2 of the paper has the human as an embodiment with dual arms."""
        return build_prompt(
            robot_tag="human",
            arm_count=2,
            has_waist=False,
            has_base=False,
            rate_hz=line.rate_hz,
            chunk_size=steps,
            instruction=line.instruction,
        )


def read_hands(folder: Path, line: HandLine) -> HandEpisode:
    """Read one recording.

    Arrays of the .npz, per side (`left_…`, `right_…`; a side may be missing altogether): translation (N, 3) [m] and
    (N, 4, 4), if present, transforms wrist poses from the camera of each frame to the fixed frame; without it they are
    assumed to be in one fixed frame.

    Raises:
        ValueError: unreadable, an array is missing or has the wrong shape, or a present hand is not finite.
    """
    path = folder / line.hands
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    arrays = _arrays(path)
    sides = [side for side in SIDES if f"{side}_translation" in arrays]
    if not sides:
        raise ValueError(f"{line.hands} has neither left_translation nor right_translation")
    count = len(arrays[f"{sides[0]}_translation"])
    camera = (
        _checked(line, arrays, "camera", (count, 4, 4)) if "camera" in arrays else np.tile(np.eye(4), (count, 1, 1))
    )
    hands = {side: _hand(line, arrays, side, count) if side in sides else _nothing(count) for side in SIDES}
    turn = Rotation.from_matrix(camera[:, :3, :3])
    return HandEpisode(
        line,
        {side: turn.apply(hand["translation"]) + camera[:, :3, 3] for side, hand in hands.items()},
        {side: turn * Rotation.from_rotvec(hand["rotation"]) for side, hand in hands.items()},
        {side: hand["pca"] for side, hand in hands.items()},
        {side: hand["present"] for side, hand in hands.items()},
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (BadZipFile, EOFError, AttributeError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npz: {error}") from error


def _hand(line: HandLine, arrays: Mapping[str, np.ndarray], side: str, count: int) -> dict[str, np.ndarray]:
    """The four arrays of a side; rows of a missing hand are replaced by zeros and stay masked."""
    present = np.asarray(arrays.get(f"{side}_present", np.ones(count)), bool)
    if present.shape != (count,):
        raise ValueError(f"{line.hands}: {side}_present has shape {present.shape}, need ({count},)")
    hand = {"present": present}
    for name, width in WIDTHS.items():
        values = _checked(line, arrays, f"{side}_{name}", (count, width), present)
        hand[name] = np.where(present[:, None], values, 0.0)
    return hand


def _nothing(count: int) -> dict[str, np.ndarray]:
    return {"present": np.zeros(count, bool)} | {name: np.zeros((count, width)) for name, width in WIDTHS.items()}


def _checked(
    line: HandLine, arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], rows: np.ndarray | None = None
) -> np.ndarray:
    """The array, finite in `rows` (default: all)."""
    if name not in arrays:
        raise ValueError(f"{line.hands} has no array {name}")
    values = np.asarray(arrays[name], np.float64)
    if values.shape != shape:
        raise ValueError(f"{line.hands}: {name} has shape {values.shape}, need {shape}")
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1) | (False if rows is None else ~rows)
    if not finite.all():
        raise ValueError(f"{line.hands}: {name} is not finite in frame {int(np.argmin(finite))}")
    return values
