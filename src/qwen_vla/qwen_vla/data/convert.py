# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla convert`: converts recorded episodes, other bags, or data of other sources to a LeRobotDataset v3.0.

One recording is one shard, so that an interrupted conversion resumes, and later recordings can be added. The progress
is kept in conversion.json beside the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.data.formats.bad_rows import BadRows
from qwen_vla.data.formats.episodes import DatasetError, Episode, EpisodeSource, files_of
from qwen_vla.data.formats.lerobot import LeRobotEpisodes, shard_path
from qwen_vla.data.formats.lerobot_meta import Feature
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.data.formats.opening import find_source, open_source, robot_of
from qwen_vla.data.formats.recordings import mend, unfinished, write_robot
from qwen_vla.data.formats.spec import clean_text
from qwen_vla.data.robot.range_checks import ranges_of
from qwen_vla.output_files import resumable, write_json
from qwen_vla.output_paths import Marker, check_folder
from qwen_vla.parallel import parallel_map

CONVERSION = Marker("conversion.json", frozenset({"settings", "recordings"}), "convert")
IMAGE_PREFIX = "observation.images."
AXES = ("height", "width", "channels")
REASONS_SHOWN = 3  # per bad episode


@dataclass(frozen=True)
class Converted:
    """The result of one recording: episodes and rows in its shard, or why there are none.

    version: of its files, by which the next conversion detects changes.
    """

    recording: str
    version: str
    episodes: int = 0
    rows: int = 0
    left_out: str = ""
    problem: str = ""


class BadEpisodes(DatasetError):
    """Recordings that cannot be used; the message names each, its fault, and the remedy."""


def convert(options: ConvertOptions) -> dict:
    """Convert and write the metadata; returns a summary. DatasetError, BadEpisodes: see `ConvertOptions.on_bad`."""
    options.check()
    known = _earlier(options)
    source = _source(options)
    problems = _unfinished(options)
    recordings = source.recordings(options.path)
    if not recordings:
        raise DatasetError(f"{options.path}: contains no finished recording")
    embodiment, features = _layout(options, source, recordings)
    if not known:
        write_json(options.out / CONVERSION.file, {"settings": options.settings, "recordings": []})
    if known.get("features") not in (None, _as_json(features)):
        known = {}  # a different recording now defines the columns
    work = _Converter(options, source, recordings, features, embodiment)
    done = _convert_all(work, known)
    problems += [f"{one.recording}: {one.problem}" for one in done if one.problem]
    if problems and options.on_bad == "refuse":
        count = f"{len(problems)} bad episode{'s' if len(problems) > 1 else ''}"
        listed = "\n".join(problems)
        raise BadEpisodes(f"{listed}\n{count}; record again or repair what is bad, or skip it: --on-bad skip")
    write_robot(options.out / "meta", embodiment)
    counts = {"recordings": len(recordings), "recordings_left_out": len([one for one in done if not one.episodes])}
    extra = {"kind": "demonstrations"} | counts
    finalize(options.out, len(recordings), features, embodiment.rate_hz, embodiment.name, extra)
    return {
        "out": str(options.out),
        "episodes": sum(one.episodes for one in done),
        "rows": sum(one.rows for one in done),
        "failed_left_out": [one.recording for one in done if one.left_out],
        "bad_skipped": problems,
    }


# --- before -----------------------------------------------------------------------------------------------------------


def _source(options: ConvertOptions) -> type[EpisodeSource]:
    source = find_source(options.path)
    if source is LeRobotEpisodes:
        raise DatasetError(f"{options.path} is already a LeRobotDataset; use it in a recipe as it is")
    return source


def _unfinished(options: ConvertOptions) -> list[str]:
    """Repair interrupted recordings if requested; one line per recording that stays unfinished."""
    problems = []
    for folder in unfinished(options.path) if options.path.is_dir() else []:
        if not options.mend:
            problems.append(
                f"{folder.name}: is not finished; if its recorder was killed, --mend turns it into an episode"
            )
            continue
        try:
            mend(folder)
        except DatasetError as error:
            problems.append(f"{folder.name}: {error}")
    return problems


def _earlier(options: ConvertOptions) -> dict:
    """The record of an earlier run; DatasetError if its settings differ, OutputRefused if it is not one."""
    present = check_folder(options.out, CONVERSION) or {}
    settings = json.loads(json.dumps(options.settings))
    if present and present["settings"] != settings:
        different = [key for key in settings if present["settings"].get(key) != settings[key]]
        raise DatasetError(f"{options.out} was converted with another {', '.join(different)}; choose another folder")
    return present


def _layout(
    options: ConvertOptions, source: type[EpisodeSource], recordings: list[Path]
) -> tuple[Embodiment, dict[str, Feature]]:
    """The robot, at the rate of the data, and the columns of the dataset: those of the first usable recording."""
    reasons = []
    for path in recordings:
        try:
            episodes, embodiment = _open(options, source, path)
            return embodiment.model_copy(update={"rate_hz": episodes.rate_hz}), _features(options, episodes[0])
        except DatasetError as error:
            reasons.append(str(error))
    raise BadEpisodes("\n".join([*reasons, f"none of {len(recordings)} recordings can be used"]))


def _open(options: ConvertOptions, source: type[EpisodeSource], path: Path) -> tuple[EpisodeSource, Embodiment]:
    """A recording, opened with the inputs of its robot's policy."""
    embodiment = load_robot(options.robot) if options.robot else robot_of(source, path)
    if options.rate_hz:
        embodiment = embodiment.model_copy(update={"rate_hz": options.rate_hz})
    episodes = open_source(source, path, embodiment, options.source)
    if options.rate_hz and episodes.rate_hz != options.rate_hz:
        raise DatasetError(
            f"{path} has {episodes.rate_hz:g} rows per second, which {source.__name__} does not resample; omit "
            f"--rate-hz {options.rate_hz:g}"
        )
    return episodes, embodiment


def _features(options: ConvertOptions, episode: Episode) -> dict[str, Feature]:
    kind = "video" if options.images == "video" else "image"
    images = {IMAGE_PREFIX + tag: Feature(kind, frames[0].shape, AXES) for tag, frames in episode.images.items()}
    columns = {
        name: Feature("float32", (channels.values.shape[1],), channels.names)
        for name, channels in episode.columns.items()
        if name != "timestamp" and channels.names  # a base without arms has no joints
    }
    return images | columns


# --- the recordings ---------------------------------------------------------------------------------------------------


def _convert_all(work: _Converter, known: Mapping[str, Any]) -> list[Converted]:
    """Convert new and changed recordings; the progress is saved after each."""
    options, recordings = work.options, work.recordings
    done = dict(_kept(work, known))
    missing = [number for number in range(len(recordings)) if number not in done]
    sizes = [sum(file.stat().st_size for file in files_of(path)) for path in recordings]
    state = {"settings": options.settings, "features": _as_json(work.features)}
    bar = tqdm(total=sum(sizes), initial=sum(sizes[k] for k in done), desc="convert", unit="B", unit_scale=True)
    with resumable(options.out), bar:
        for number, result in zip(missing, _map(work, missing), strict=True):
            done[number] = result
            bar.set_postfix_str(result.recording)
            bar.update(sizes[number])
            listed = [asdict(done[k]) if k in done else None for k in range(len(recordings))]
            write_json(options.out / CONVERSION.file, {**state, "recordings": listed})
    return [done[number] for number in range(len(recordings))]


def _map(work: _Converter, numbers: list[int]) -> Iterator[Converted]:
    if work.options.workers > 1:
        yield from parallel_map(partial(replace, work), _Converter.convert, numbers, work.options.workers)
    else:
        yield from map(work.convert, numbers)


def _kept(work: _Converter, known: Mapping[str, Any]) -> Iterator[tuple[int, Converted]]:
    """The shards of an earlier run that are still valid."""
    for number, (path, before) in enumerate(zip(work.recordings, known.get("recordings", []), strict=False)):
        if before is None or not shard_path(work.options.out, number).exists():
            continue
        result = Converted(**before)
        if (result.recording, result.version) != (path.name, _version(path)) or result.problem:
            continue
        if bool(result.left_out) == work.is_left_out(path):
            yield number, result


@dataclass(frozen=True)
class _Converter:
    """Converts single recordings, in any process, to rows with these features, at the rate of the embodiment."""

    options: ConvertOptions
    source: type[EpisodeSource]
    recordings: list[Path]
    features: dict[str, Feature]
    embodiment: Embodiment

    @property
    def rate_hz(self) -> float:
        """Rows per second."""
        return self.embodiment.rate_hz

    def convert(self, number: int) -> Converted:
        """Write shard `number`; an empty one if the recording cannot be used."""
        path = self.recordings[number]
        result = Converted(path.name, _version(path))
        if self.is_left_out(path):
            self._write(number, [])
            return replace(result, left_out="labeled as failed")
        try:
            episodes, _ = _open(self.options, self.source, path)
            for episode in episodes:
                self._check(episode)
            rows = [self._recording(episode) for episode in episodes]
            self._write(number, rows)
            return replace(result, episodes=len(rows), rows=sum(map(len, rows)))
        except DatasetError as error:
            self._write(number, [])
            return replace(result, problem=str(error))

    def is_left_out(self, path: Path) -> bool:
        """Whether it is labeled as failed and such recordings are to be skipped."""
        return self.options.failed == "leave_out" and self.source.succeeded(path) is False

    def _write(self, number: int, recordings: list[Recording]) -> None:
        write_shard(self.options.out, number, recordings, self.features, self.rate_hz)

    def _check(self, episode: Episode) -> None:
        """DatasetError with the first reasons why an episode is unusable for training."""
        bad = BadRows()
        for rows in episode.defects.values():
            for row, why in rows.items():
                bad.add(row, f"row {row}", why)
        for name, channels in episode.columns.items():
            bad.add_not_finite(channels.values, 0, name, lambda row: f"row {row}")
            for row, why in ranges_of(self.embodiment, channels.names).rows_outside(channels.values, name).items():
                bad.add(row, f"row {row}", why)
        if lines := bad.lines():
            more = f" … and {len(lines) - REASONS_SHOWN} more rows" if len(lines) > REASONS_SHOWN else ""
            raise DatasetError(f"{len(lines)} of {len(episode)} rows are bad: {'; '.join(lines[:REASONS_SHOWN])}{more}")
        if episode.rate_hz != self.rate_hz:
            raise DatasetError(f"it has {episode.rate_hz:g} rows per second, the dataset {self.rate_hz:g}")
        present = _features(self.options, episode)
        if present != self.features:
            names = sorted(name for name in present | self.features if present.get(name) != self.features.get(name))
            raise DatasetError(f"{', '.join(names)} differ from the dataset's; convert it into a separate folder")

    def _recording(self, episode: Episode) -> Recording:
        try:
            task = clean_text(episode.instruction)
        except ValueError as error:
            raise DatasetError(str(error)) from error
        frames: dict[str, Any] = {IMAGE_PREFIX + tag: images for tag, images in episode.images.items()}
        for name, channels in episode.columns.items():
            if name in self.features:
                frames[name] = channels.values.astype(np.float32)
        return Recording(task, frames)


def _version(path: Path) -> str:
    """Sizes and modification times of a recording's files."""
    stats = [(file, file.stat()) for file in files_of(path)]
    return json.dumps([(file.name, stat.st_size, stat.st_mtime_ns) for file, stat in stats])


def _as_json(features: Mapping[str, Feature]) -> dict:
    return json.loads(json.dumps({name: feature.to_json() for name, feature in features.items()}))
