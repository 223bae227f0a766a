# SPDX-License-Identifier: Apache-2.0
"""Inspects JSON Lines files: navigation, hands, trajectories, conversations. Every image is decoded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qwen_vla.data.formats.spec import DataError
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
from qwen_vla.data.language.chat import Chat, ChatData
from qwen_vla.data.language.images import image_facts
from qwen_vla.data.navigation.navigation_source import CHANNELS as WAYPOINTS
from qwen_vla.data.navigation.navigation_source import Navigation, NavigationData
from qwen_vla.data.navigation.trajectories import Trajectories, TrajectoryData
from qwen_vla.data.robot.hands import CHANNELS as HANDS
from qwen_vla.data.robot.hands import HandData, Hands
from qwen_vla.data.samples import SourceContext
from qwen_vla.errors.error_text import as_line
from qwen_vla.model.configuration import QwenVLAConfig

# The key that only lines of one kind have.
KINDS = {"poses": NavigationData, "hands": HandData, "entities": TrajectoryData, "messages": ChatData}
FileData = NavigationData | HandData | TrajectoryData | ChatData
Frames = Iterator[tuple[str, str]]


def spec_of(path: Path) -> FileData:
    """The kind of a JSON Lines file, by the keys of its first object; DataError if it has none of them."""
    try:
        with path.open("rb") as lines:
            first = next((json.loads(line.decode("utf-8-sig")) for line in lines if line.strip()), None)
    except OSError as error:
        raise DataError(as_line(error)) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"not JSON Lines: {error}", where=str(path), remedy="name another file") from error
    if first is None:
        raise DataError("is empty", where=str(path), remedy="name another file")
    for key, kind in KINDS.items():
        if isinstance(first, dict) and key in first:
            return kind(kind=kind.model_fields["kind"].annotation.__args__[0], path=path)
    raise DataError(
        f"its first line has none of the keys {', '.join(KINDS)}",
        where=str(path),
        remedy="see docs/reference/data_formats.md",
    )


def inspect_file(spec: FileData, row: int | None = None) -> Findings:
    """What is understood of a file; `row`: the sample to show. ValueError if there is no such row."""
    found = Findings(str(spec.path), spec.kind)
    config = QwenVLAConfig.from_dict(QwenVLAConfig.preset("tiny").to_dict() | {"horizon": getattr(spec, "steps", 64)})
    try:
        source = spec.model_copy(update={"on_bad_rows": "skip"}).open(SourceContext(config, 0.0))
    except (ValueError, OSError) as error:
        found.problems.append(Problem.of(error, str(spec.path)))
        return found
    _bad_lines(found, source.bad, spec.on_bad_rows)
    found.rows = found.usable_rows = len(source.training)
    _LOOK[type(source)](found, source)
    _cameras(found, spec.path.parent, _frames(source))
    if row is not None:
        _show(found, source, row)
    return found


def _bad_lines(found: Findings, lines: Sequence[str], on_bad_rows: str) -> None:
    found.bad_rows, found.bad_rows_listed = len(lines), list(lines[:LISTED])
    if on_bad_rows == "refuse":
        for line in lines[:LISTED]:
            place, _, why = line.partition(": ")
            found.problems.append(Problem(place, why, "repair the line, or skip it with `on_bad_rows: skip`"))


# --- kinds ------------------------------------------------------------------------------------------------------------


def _navigation(found: Findings, source: Navigation) -> None:
    found.episodes, found.robot = len(source.episodes), source.spec.robot
    found.rate_hz = source.episodes[0].rate_hz
    found.instructions = told(source.tasks)
    poses = np.concatenate([np.array(episode.poses) for episode in source.episodes])
    found.columns = [
        _column("poses", ("x", "y", "theta"), poses, "m, rad"),
        _column("waypoints", WAYPOINTS, _chunks(source), "m, rad"),
    ]


def _hands(found: Findings, source: Hands) -> None:
    found.episodes, found.rate_hz = len(source.episodes), source.episodes[0].line.rate_hz
    found.instructions = told(source.tasks)
    found.columns = [_column("hands", HANDS, _chunks(source), "m, rad, 1")]


def _trajectories(found: Findings, source: Trajectories) -> None:
    found.episodes, found.rate_hz = len(source.moments), source.moments[0].rate_hz
    found.instructions = told([moment.instruction or "" for moment in source.moments for _ in moment.entities])
    for space in dict.fromkeys(moment.space for moment in source.moments):
        points = [p for m in source.moments if m.space == space for e in m.entities for p in e.points if p is not None]
        names = source.statistics[f"{source.spec.name}_{space}"].channel_names
        found.columns.append(
            _column(f"points ({space})", names, np.array(points), "0–1000" if space == "image" else "m")
        )


def _chat(found: Findings, source: Chat) -> None:
    found.episodes = len({turn.line for turn in source.turns})


_LOOK = {Navigation: _navigation, Hands: _hands, Trajectories: _trajectories, Chat: _chat}


def _column(name: str, channels: Sequence[str], values: np.ndarray, unit: str) -> ColumnFinding:
    low, high = bounds(values)
    return ColumnFinding(name, channels, channels, unit, low, high)


def _chunks(source: Navigation | Hands) -> np.ndarray:
    """(N, channels) the values that are learned; NaN where masked."""
    parts = []
    for index in source.training.tolist():
        values, valid = source.chunk(index)
        parts.append(np.where(valid.reshape(len(values), -1), values, np.nan))
    return np.concatenate(parts)


# --- images -----------------------------------------------------------------------------------------------------------


def _frames(source: Any) -> Frames:
    """Tag and address of every image; those of conversations have no tag."""
    by_tag: list[Mapping[str, Sequence[str]]] = []
    if isinstance(source, Navigation):
        by_tag = [episode.frames for episode in source.episodes]
    elif isinstance(source, Hands):
        by_tag = [episode.line.frames for episode in source.episodes]
    elif isinstance(source, Trajectories):
        by_tag = [moment.frames for moment in source.moments]
    else:
        yield from (("", part.address) for turn in source.turns for part in turn.images)
    for frames in by_tag:
        for tag, addresses in frames.items():
            yield from ((tag, address) for address in addresses)


def _cameras(found: Findings, folder: Path, frames: Frames) -> None:
    facts: dict[str, tuple[int, int, str]] = {}
    faults: dict[str, list[str]] = {}
    for tag, address in frames:
        try:
            facts[tag] = image_facts(folder, address)
        except ValueError as error:
            faults.setdefault(tag, []).append(str(error))
    for tag in facts | faults:
        found.cameras.append(CameraFinding(tag, tag, *facts.get(tag, (0, 0, "")), len(faults.get(tag, []))))
        if tag in faults:
            what = f"{len(faults[tag])} images of camera {tag!r} cannot be decoded: {faults[tag][0]}"
            found.problems.append(Problem(found.path, what, "replace the images, or remove their lines"))


# --- one row ----------------------------------------------------------------------------------------------------------


def _show(found: Findings, source: Any, row: int) -> None:
    if not 0 <= row < found.rows:
        raise ValueError(f"--row {row}: {found.path} has rows 0 … {found.rows - 1}")
    index, state, action = int(source.training[row]), {}, {}
    if isinstance(source, (Navigation, Hands)):
        names = WAYPOINTS if isinstance(source, Navigation) else HANDS
        action = dict(zip(names, as_numbers(source.chunk(index)[0][0]), strict=True))
    if isinstance(source, Navigation):
        episode, frame = source.at(index)
        state = dict(zip(("x", "y", "theta"), as_numbers(episode.poses[frame]), strict=True))
    if isinstance(source, Chat):
        text = source.turns[index].before[-1].text
    else:
        tasks = getattr(source, "tasks", None)
        text = source.sample(index, np.random.default_rng(0)).text if tasks is None else str(tasks[row])
    found.sample = {"row": row, "state": state, "action": action, "instruction": text}
