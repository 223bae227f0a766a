# SPDX-License-Identifier: Apache-2.0
"""Inspects recordings of a robot, by the checks of training: every problem is collected instead of the first raised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.markup import escape
from tqdm import tqdm

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.bad_rows import BadRows, usable_rows
from qwen_vla.data.formats.episodes import DatasetError, EpisodeSource
from qwen_vla.data.formats.lerobot import INDEX_COLUMNS, LeRobotEpisodes
from qwen_vla.data.formats.spec import refuse_evaluation_scenes
from qwen_vla.data.inspection.findings import (
    LISTED,
    CameraFinding,
    ColumnFinding,
    Findings,
    Problem,
    as_numbers,
    bounds,
    told,
)
from qwen_vla.data.robot.annotations import fresh_frames
from qwen_vla.data.robot.robot_columns import RobotColumns
from qwen_vla.data.robot.robot_dataset import RobotDataset
from qwen_vla.data.robot.robot_recording import RobotRecording

REASONS_SHOWN = 3
Result = TypeVar("Result")


class RobotInspection:
    """One dataset. findings: what was found; recording: None if it cannot be opened."""

    def __init__(self, spec: RobotDataset, row: int | None = None) -> None:
        """row: the one to show. ValueError if there is no such row."""
        self.spec = spec
        self.findings = Findings(spec.path, "robot")
        self.recording: RobotRecording | None = None
        self.bad = BadRows()
        with Console(stderr=True).status(f"reading {escape(spec.path)}"):  # seen on a terminal only
            opened = self._try(lambda: spec.open_episodes(spec.use_images))
        if opened:
            self._look_at(*opened)
        if row is not None and self.recording is not None:
            self._show(self.recording, row)

    def _try(self, step: Callable[[], Result]) -> Result | None:
        """The result of a step, or None and a problem."""
        try:
            return step()
        except (ValueError, OSError) as error:  # what a command reports in one line
            problem = Problem.of(error, self.spec.path)
            if problem not in self.findings.problems:
                self.findings.problems.append(problem)
            return None

    def _look_at(self, source: EpisodeSource, embodiment: Embodiment) -> None:
        found = self.findings
        found.robot, found.robot_rate_hz, found.rate_hz = embodiment.name, embodiment.rate_hz, source.rate_hz
        found.episodes, found.rows = len(source.episodes), int(source.episodes[-1, 1])
        self._try(lambda: _check_seeds(source))
        spec = self.spec
        arguments = (source, embodiment, spec.columns, spec.cameras, spec.relative_actions)
        self.recording = recording = self._try(lambda: RobotRecording(*arguments))
        if recording is None:
            found.columns = [_unused(source, name) for name in _numeric(source)]
            return
        found.instructions, found.action_kind = told(recording.instructions), recording.reader.kind
        self._columns(recording)
        self.bad = self._try(recording.bad_rows) or BadRows()
        if spec.use_images:
            for tag in [camera.tag for camera in embodiment.cameras]:
                self._try(lambda tag=tag: self._camera(recording, tag))
        self._judge_rows(recording)

    # --- columns ----------------------------------------------------------------------------------------------------

    def _columns(self, recording: RobotRecording) -> None:
        found, reader = self.findings, recording.reader
        found.problems += [Problem.of(error, self.spec.path) for error in reader.errors]
        found.columns = [_column(recording, name) for name in reader.maps]
        for name in reader.maps:
            self._try(lambda name=name: recording.check_column(name))
        found.columns += [_unused(recording.source, name) for name in _numeric(recording.source) - reader.maps.keys()]

    # --- rows -------------------------------------------------------------------------------------------------------

    def _camera(self, recording: RobotRecording, tag: str) -> None:
        """Decode every image, as training does."""
        source, key = recording.source, recording.image_key(tag)
        rows = np.flatnonzero(_fresh(source))
        size, faults = (0, 0), 0
        images = source.images(key, lambda image: image, rows)
        seen = tqdm(images, total=len(rows), desc=f"decode {key}", unit="frame", leave=False, disable=None)
        for row, image in zip(rows, seen, strict=True):
            if isinstance(image, DatasetError):
                faults += 1
                self.bad.add(int(row), *str(image).split(": ", 1))
            else:
                size = image.shape[1], image.shape[0]
        self.findings.cameras.append(CameraFinding(key, tag, *size, source.codec(key), faults))

    def _judge_rows(self, recording: RobotRecording) -> None:
        found, lines = self.findings, self.bad.lines()
        found.bad_rows, found.bad_rows_listed = len(self.bad), lines[:LISTED]
        found.gaps = sum(
            any(why.startswith("missing frame") for why in reasons) for reasons in self.bad.reasons.values()
        )
        columns = None if recording.reader.errors else self._try(recording.read)
        found.usable_rows = int(self._usable(recording, columns).sum()) if columns else 0
        if lines and self.spec.on_bad_rows == "refuse":
            shown = "; ".join(lines[:REASONS_SHOWN]) + (" …" if len(lines) > REASONS_SHOWN else "")
            remedy = "repair them, or skip them with `on_bad_rows: skip`"
            found.problems.append(
                Problem(self.spec.path, f"{len(lines)} of {found.rows} rows are bad: {shown}", remedy)
            )
        elif columns and not found.usable_rows:
            found.problems.append(Problem(self.spec.path, "no row is left for training", "repair the bad rows"))

    def _usable(self, recording: RobotRecording, columns: RobotColumns) -> np.ndarray:
        """(N,) rows whose chunk has no bad row."""
        rows, ends = np.arange(len(recording)), recording.ends
        steps = recording.embodiment.chunk_size + columns.looks_ahead if columns.targets is not None else 1
        return usable_rows(self.bad.mask(len(rows)), np.minimum(rows + steps, ends) - rows)

    # --- one row ----------------------------------------------------------------------------------------------------

    def _show(self, recording: RobotRecording, row: int) -> None:
        """The row as it is understood: state, action and instruction, and the first action of its chunk."""
        if not 0 <= row < len(recording):
            raise ValueError(f"--row {row}: {self.spec.path} has rows 0 … {len(recording) - 1}")
        number = int(recording.episode_of[row])
        episode, place = recording.source[number], row - int(recording.episodes[number, 0])
        reader, action, state = recording.reader, {}, {}
        commanded = reader.action.column if reader.kind != "none" and reader.action else ""
        for name, how in reader.maps.items():
            values = as_numbers(reader.values(episode, name)[place])
            (action if name == commanded else state).update(zip(how.elements, values, strict=True))
        self.findings.sample = {
            "row": row,
            "episode": number,
            "state": state,
            "action": action,
            "instruction": str(recording.instructions[row]),
            "chunk": self._first_action(recording, row),
        }
        if not commanded:
            self.findings.sample["action"] = self.findings.sample["chunk"]

    def _first_action(self, recording: RobotRecording, row: int) -> dict[str, Any]:
        """By channel, what the model learns as the first action of this row."""
        columns = None if recording.reader.errors else self._try(recording.read)
        if columns is None or columns.targets is None:
            return {}
        values = columns.targets.chunks(np.array([row]), 1)[0, 0]
        return dict(zip(recording.embodiment.channel_names, as_numbers(values), strict=True))


def _column(recording: RobotRecording, name: str) -> ColumnFinding:
    reader = recording.reader
    how, ranges = reader.maps[name], reader.ranges[name]
    low, high = bounds(_all_values(recording.source, name))
    lower, upper, signs = (np.full(how.width, np.nan) for _ in range(3))
    limits = np.sort(np.stack([how.in_file(ranges.lower), how.in_file(ranges.upper)]), axis=0)
    picks = list(how.picks)
    lower[picks], upper[picks], signs[picks] = *limits, np.sign(how.scale)
    return ColumnFinding(
        name,
        how.names,
        how.mapped_to,
        how.unit,
        low,
        high,
        as_numbers(lower),
        as_numbers(upper),
        [int(sign) if np.isfinite(sign) else 1 for sign in signs],
    )


def _check_seeds(source: EpisodeSource) -> None:
    if isinstance(source, LeRobotEpisodes):
        refuse_evaluation_scenes(source.reader.info.get("seeds"), source.root)


def _fresh(source: EpisodeSource) -> np.ndarray:
    if isinstance(source, LeRobotEpisodes):
        return fresh_frames(source.reader)
    return np.ones(int(source.episodes[-1, 1]), bool)


def _numeric(source: EpisodeSource) -> set[str]:
    """Names of the columns that may mean something."""
    return {name for name in source.features if name not in INDEX_COLUMNS and not name.startswith("annotation.")}


def _all_values(source: EpisodeSource, name: str) -> np.ndarray:
    return np.concatenate([episode.columns[name].values for episode in source])


def _unused(source: EpisodeSource, name: str) -> ColumnFinding:
    values = _all_values(source, name).astype(np.float64)
    low, high = bounds(values)
    nothing: Sequence[str] = [""] * values.shape[1]
    return ColumnFinding(name, source.features[name], nothing, "", low, high)
