"""`qwen-vla convert`: recorded episodes and other bags as a LeRobotDataset v3.0, decoded as the policy does it live.

One bag is one shard, so that an interrupted conversion goes on where it was, and bags that are recorded later can be
added. What was done is kept in conversion.json beside the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from embodiment_descriptions import Embodiment, EmbodimentError, load_robot
from qwen_vla.data.bad_rows import BadRows
from qwen_vla.data.episodes import DatasetError, Episode
from qwen_vla.data.lerobot import Feature, shard_path
from qwen_vla.data.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.data.recordings import (
    RECORD,
    UNFINISHED,
    RecordedEpisode,
    is_recorded,
    mend,
    read_record,
    unfinished,
    write_robot,
)
from qwen_vla.data.rosbag import BagOptions, RosbagEpisodes, bag_paths
from qwen_vla.data.spec import clean_text
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import Marker, check_folder
from qwen_vla.parallel import parallel_map

CONVERSION = Marker("conversion.json", frozenset({"settings", "bags"}), "convert")
IMAGE_PREFIX = "observation.images."
AXES = ("height", "width", "channels")
REASONS_SHOWN = 3  # of one bad episode


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and how.

    bags: a bag, or a folder of bags. robot: name, needed for bags that do not bring theirs. images: video is small, png
    exact. rate_hz: rows per second; default: the robot's. failed: what to do with episodes labelled as failed. on_bad:
    what to do with bags that cannot be used: refuse (the others are converted, so that the next call is quick), or
    skip. mend: finish recordings whose recorder was killed.
    """

    bags: Path
    out: Path
    robot: str | None = None
    bag: BagOptions = field(default_factory=BagOptions)
    images: Literal["video", "png"] = "video"
    rate_hz: float | None = None
    failed: Literal["leave_out", "keep"] = "leave_out"
    on_bad: Literal["refuse", "skip"] = "refuse"
    mend: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be above 0, got {self.rate_hz}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    @property
    def settings(self) -> dict:
        """What the content of the data set depends on."""
        return {"robot": self.robot, "bag": asdict(self.bag), "images": self.images, "rate_hz": self.rate_hz}


@dataclass(frozen=True)
class Converted:
    """What became of one bag: episodes and rows in its shard, or why there are none.

    version: of the bag's files, by which the next conversion knows whether it is still the same.
    """

    bag: str
    version: str
    episodes: int = 0
    rows: int = 0
    left_out: str = ""
    problem: str = ""


class BadEpisodes(DatasetError):
    """Bags that cannot be used; the message names each, what is wrong, and the way out."""


def convert(options: ConvertOptions) -> dict:
    """Convert and write the metadata; returns a summary. DatasetError, BadEpisodes: see `ConvertOptions.on_bad`."""
    known = _earlier(options)
    problems = _unfinished(options)
    bags = [path for path in bag_paths(options.bags) if not path.name.endswith(UNFINISHED)]
    if not bags:
        raise DatasetError(f"{options.bags}: no finished bag is in it")
    if not known:
        write_json(options.out / CONVERSION.file, {"settings": options.settings, "bags": []})
    embodiment, features = _layout(options, bags)
    if known.get("features") not in (None, _as_json(features)):
        known = {}  # of the bags that are there now another one sets the columns
    done = _convert_all(options, bags, features, embodiment.rate_hz, known)
    problems += [f"{one.bag}: {one.problem}" for one in done if one.problem]
    if problems and options.on_bad == "refuse":
        listed = "\n".join(problems)
        raise BadEpisodes(
            f"{listed}\n{len(problems)} bad episodes; record or mend them, or leave them out: --on-bad skip"
        )
    write_robot(options.out / "meta", embodiment)
    extra = {"kind": "demonstrations", "bags": len(bags), "bags_left_out": len([b for b in done if not b.episodes])}
    finalize(options.out, len(bags), features, embodiment.rate_hz, embodiment.name, extra)
    return {
        "out": str(options.out),
        "episodes": sum(one.episodes for one in done),
        "rows": sum(one.rows for one in done),
        "failed_left_out": [one.bag for one in done if one.left_out],
        "bad_skipped": problems,
    }


# --- before -----------------------------------------------------------------------------------------------------------


def _unfinished(options: ConvertOptions) -> list[str]:
    """Mend interrupted recordings if that is asked for; one line per recording that stays unfinished."""
    problems = []
    for folder in unfinished(options.bags) if options.bags.is_dir() else []:
        if not options.mend:
            problems.append(
                f"{folder.name}: is not finished; if its recorder was killed, --mend makes an episode of it"
            )
            continue
        try:
            mend(folder)
        except DatasetError as error:
            problems.append(f"{folder.name}: {error}")
    return problems


def _earlier(options: ConvertOptions) -> dict:
    """What is known of an earlier run; DatasetError where it had other settings, OutputRefused where it was none."""
    present = check_folder(options.out, CONVERSION) or {}
    settings = json.loads(json.dumps(options.settings))
    if present and present["settings"] != settings:
        different = [key for key in settings if present["settings"].get(key) != settings[key]]
        raise DatasetError(f"{options.out} was converted with another {', '.join(different)}; choose another folder")
    return present


def _layout(options: ConvertOptions, bags: list[Path]) -> tuple[Embodiment, dict[str, Feature]]:
    """The robot and the columns of the data set: those of the first bag that can be used."""
    reasons = []
    for path in bags:
        try:
            source = _open(options, path)
            return source.embodiment, _features(options, source[0])
        except DatasetError as error:
            reasons.append(str(error))
    raise BadEpisodes("\n".join([*reasons, f"none of {len(bags)} bags can be used"]))


def _open(options: ConvertOptions, path: Path) -> RosbagEpisodes:
    """A bag as the policy of its robot sees it."""
    try:
        if options.robot:
            embodiment = load_robot(options.robot)
        elif is_recorded(path):
            embodiment = RecordedEpisode(path, read_record(path)).embodiment()
        else:
            raise DatasetError(f"{path} does not say which robot it is of; name it with --robot")
    except (EmbodimentError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from error
    if options.rate_hz:
        embodiment = embodiment.model_copy(update={"rate_hz": options.rate_hz})
    return RosbagEpisodes(path, embodiment, options.bag)


def _features(options: ConvertOptions, episode: Episode) -> dict[str, Feature]:
    kind = "video" if options.images == "video" else "image"
    images = {IMAGE_PREFIX + tag: Feature(kind, frames[0].shape, AXES) for tag, frames in episode.images.items()}
    columns = {
        name: Feature("float32", (channels.values.shape[1],), channels.names)
        for name, channels in episode.columns.items()
        if name != "timestamp" and channels.names  # a base without arms has no joints
    }
    return images | columns


# --- the bags ---------------------------------------------------------------------------------------------------------


def _convert_all(
    options: ConvertOptions, bags: list[Path], features: dict[str, Feature], rate_hz: float, known: Mapping[str, Any]
) -> list[Converted]:
    """Convert what is new or has changed; after every bag it is written down what was done."""
    done = dict(_kept(options, bags, known))
    missing = [number for number in range(len(bags)) if number not in done]
    sizes = [_size(path) for path in bags]
    state = {"settings": options.settings, "features": _as_json(features)}
    work = partial(_Converter, replace(options, rate_hz=rate_hz), bags, features)
    with tqdm(total=sum(sizes), initial=sum(sizes[k] for k in done), desc="convert", unit="B", unit_scale=True) as bar:
        for number, result in zip(missing, _map(work, missing, options.workers), strict=True):
            done[number] = result
            bar.set_postfix_str(result.bag)
            bar.update(sizes[number])
            listed = [asdict(done[k]) if k in done else None for k in range(len(bags))]
            write_json(options.out / CONVERSION.file, {**state, "bags": listed})
    return [done[number] for number in range(len(bags))]


def _map(prepare: partial, numbers: list[int], workers: int) -> Iterator[Converted]:
    if workers > 1:
        yield from parallel_map(prepare, _Converter.convert, numbers, workers)
    else:
        yield from map(prepare().convert, numbers)


def _kept(options: ConvertOptions, bags: list[Path], known: Mapping[str, Any]) -> Iterator[tuple[int, Converted]]:
    """The shards of an earlier run that hold what they would hold now."""
    for number, (path, before) in enumerate(zip(bags, known.get("bags", []), strict=False)):
        if before is None or not shard_path(options.out, number).exists():
            continue
        result = Converted(**before)
        if (result.bag, result.version) != (path.name, _version(path)) or result.problem:
            continue
        if bool(result.left_out) == _is_left_out(options, path):
            yield number, result


class _Converter:
    """Converts single bags, in this process or in another one."""

    def __init__(self, options: ConvertOptions, bags: list[Path], features: dict[str, Feature]) -> None:
        self.options, self.bags, self.features = options, bags, features

    def convert(self, number: int) -> Converted:
        """Write shard `number`; an empty one where the bag cannot be used."""
        path = self.bags[number]
        result = Converted(path.name, _version(path))
        if _is_left_out(self.options, path):
            self._write(number, [])
            return replace(result, left_out="labelled as failed")
        try:
            episodes = list(_open(self.options, path))
            for episode in episodes:
                self._check(episode)
            recordings = [self._recording(episode) for episode in episodes]
            self._write(number, recordings)
            return replace(result, episodes=len(recordings), rows=sum(map(len, recordings)))
        except DatasetError as error:
            self._write(number, [])
            return replace(result, problem=str(error))

    def _write(self, number: int, recordings: list[Recording]) -> None:
        write_shard(self.options.out, number, recordings, self.features, self.options.rate_hz)

    def _check(self, episode: Episode) -> None:
        """DatasetError with the first reasons why an episode cannot be learned from."""
        bad = BadRows()
        for rows in episode.defects.values():
            for row, why in rows.items():
                bad.add(row, f"row {row}", why)
        for name, channels in episode.columns.items():
            bad.add_not_finite(channels.values, 0, name, lambda row: f"row {row}")
        if lines := bad.lines():
            more = f" … and {len(lines) - REASONS_SHOWN} rows more" if len(lines) > REASONS_SHOWN else ""
            raise DatasetError(f"{len(lines)} of {len(episode)} rows are bad: {'; '.join(lines[:REASONS_SHOWN])}{more}")
        present = _features(self.options, episode)
        if present != self.features:
            names = sorted(name for name in present | self.features if present.get(name) != self.features.get(name))
            raise DatasetError(f"{', '.join(names)} differ from the data set's; convert it into a folder of its own")

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


def _is_left_out(options: ConvertOptions, path: Path) -> bool:
    return options.failed == "leave_out" and is_recorded(path) and read_record(path).success is False


def _version(path: Path) -> str:
    """Sizes and times of change of a bag's files, and its label."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.name != RECORD]
    record = read_record(path).model_dump(include={"instruction", "success"}) if is_recorded(path) else {}
    return json.dumps([stats, record])


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())


def _as_json(features: Mapping[str, Feature]) -> dict:
    return json.loads(json.dumps({name: feature.to_json() for name, feature in features.items()}))
