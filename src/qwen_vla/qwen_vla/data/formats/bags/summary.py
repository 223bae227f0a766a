# SPDX-License-Identifier: Apache-2.0
"""What is understood of bags, before anybody trains on them: topics, cameras, interruptions, episodes, bad rows.

Nothing here is an error: a bag that cannot be used says why in its `problem`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.bags.bag import Bag, bag_paths
from qwen_vla.data.formats.bags.topics import IMAGES, BagOptions, image_topic
from qwen_vla.data.formats.episodes import DatasetError, Episode
from qwen_vla.data.formats.rosbag import RosbagEpisodes
from qwen_vla_control.observation.camera_info import image_size
from qwen_vla_control.observation.image_decoding import DecodingError, to_rgb
from qwen_vla_control.stamps import NANOSECONDS


@dataclass(frozen=True)
class TopicSummary:
    """A topic of a bag: types of its messages, their number, usual rate [Hz] and longest gap [s], by recording time."""

    name: str
    types: tuple[str, ...]
    messages: int
    rate_hz: float
    longest_gap_s: float


@dataclass(frozen=True)
class CameraSummary:
    """The first image of a camera: size [px], encoding or format, and why it cannot be used ("": it can)."""

    tag: str
    topic: str
    width: int = 0
    height: int = 0
    encoding: str = ""
    problem: str = ""


@dataclass(frozen=True)
class EpisodeSummary:
    """An episode; bad: by row, why it cannot be used."""

    name: str
    instruction: str
    rows: int
    bad: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BagSummary:
    """One bag.

    seconds: from the first to the last message, by the recorder's clock. interruptions: where clocks leap, nothing was
    recorded, or the file is damaged, and other reasons why not all of it can be used. problem: why none of it can.
    """

    path: Path
    seconds: float = 0.0
    topics: tuple[TopicSummary, ...] = ()
    cameras: tuple[CameraSummary, ...] = ()
    interruptions: tuple[str, ...] = ()
    episodes: tuple[EpisodeSummary, ...] = ()
    problem: str = ""


def summarize(path: Path, embodiment: Embodiment | None, options: BagOptions | None = None) -> Iterator[BagSummary]:
    """Summarize the bag at a path, or every bag in the folder, one after another.

    Args:
        path: an existing file or folder.
        embodiment: the robot; without it only the topics are known.
        options: what the bags do not define.

    Yields:
        One per bag; none where there is no bag.
    """
    for bag in bag_paths(path):
        try:
            yield _summary(bag, embodiment, options or BagOptions())
        except DatasetError as error:
            yield BagSummary(bag, problem=str(error))


def _summary(path: Path, embodiment: Embodiment | None, options: BagOptions) -> BagSummary:
    with Bag(path) as bag:
        times = _times(bag)
        topics = tuple(_topic(name, bag.types[name], np.array(times[name], np.int64)) for name in sorted(times))
        cameras = tuple(_cameras(bag, embodiment, options)) if embodiment else ()
        lost = tuple(damage.why for damage in bag.damages)
    known = [time for own in times.values() for time in own]
    seconds = (max(known) - min(known)) / NANOSECONDS if known else 0.0
    if embodiment is None:
        return BagSummary(path, seconds, topics, cameras, lost)
    try:
        source = RosbagEpisodes(path, embodiment, options)
    except DatasetError as error:
        return BagSummary(path, seconds, topics, cameras, lost, problem=str(error))
    episodes = tuple(_episode(episode) for episode in source)
    return BagSummary(path, seconds, topics, cameras, tuple(source.unused.get(path, ())), episodes)


def _times(bag: Bag) -> dict[str, list[int]]:
    """When the messages of every topic were recorded [ns], in the order of writing."""
    times: dict[str, list[int]] = {name: [] for name in bag.types}
    for stored in bag.stored(frozenset(times)):
        times[stored.topic.name].append(stored.log_ns)
    return times


def _topic(name: str, types: set[str], times: np.ndarray) -> TopicSummary:
    steps = np.diff(times) / NANOSECONDS
    usual = float(np.median(steps)) if len(steps) else 0.0
    longest = float(steps.max()) if len(steps) else 0.0
    return TopicSummary(name, tuple(sorted(types)), len(times), 1 / usual if usual > 0 else 0.0, longest)


def _cameras(bag: Bag, embodiment: Embodiment, options: BagOptions) -> Iterator[CameraSummary]:
    for camera in embodiment.cameras:
        topic = image_topic(camera, options, bag.types)
        try:
            first = next(bag.messages(frozenset([topic])), None)
        except DatasetError as error:
            yield CameraSummary(camera.tag, topic, problem=str(error))
            continue
        if first is None:
            yield CameraSummary(camera.tag, topic, problem="no image" if topic in bag.types else "no such topic")
        else:
            yield _camera(camera.tag, topic, first.type, first.message)


def _camera(tag: str, topic: str, kind: str, message: Any) -> CameraSummary:
    if kind not in IMAGES:
        return CameraSummary(tag, topic, problem=f"{kind} is not an image; {' or '.join(IMAGES)} is needed")
    encoding, size = getattr(message, "encoding", None) or message.format, image_size(message) or (0, 0)
    try:
        to_rgb(message)
    except DecodingError as error:
        return CameraSummary(tag, topic, *size, encoding, str(error))
    return CameraSummary(tag, topic, *size, encoding)


def _episode(episode: Episode) -> EpisodeSummary:
    bad = {row: why for rows in episode.defects.values() for row, why in rows.items()}
    for column, channels in episode.columns.items():
        for row in np.flatnonzero(~np.isfinite(channels.values).all(axis=1)).tolist():
            bad.setdefault(row, f"{column} is not finite")
    return EpisodeSummary(episode.name, episode.instruction, len(episode), dict(sorted(bad.items())))
