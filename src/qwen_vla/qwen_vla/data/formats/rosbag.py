"""rosbag2 recordings (MCAP or SQLite) as episodes, replayed through the policy's live observation streams.

At every tick of the robot's rate, the messages received by then are offered to `ObservationStreams.select`, as in
policy_node, and the selected images are decoded by the same function. Free of rclpy: rosbags reads the files.
"""

from __future__ import annotations

import bisect
import functools
import logging
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from embodiment_descriptions import Camera, Embodiment
from embodiment_descriptions.urdf import parse_urdf
from qwen_vla.data.formats.cache import data_hash
from qwen_vla.data.formats.episodes import Channels, DatasetError, Episode, EpisodeList, SourceOptions, hash_of
from qwen_vla.data.formats.recordings import UNFINISHED, RecordedEpisode, is_recorded, read_record, unfinished
from qwen_vla.data.formats.rosbag_commands import CommandedPositions, Trajectory, command_readers
from qwen_vla.data.robot.finite_differences import next_rows
from qwen_vla_control.observation.image_decoding import DecodingError
from qwen_vla_control.observation.odometry_reader import BasePose
from qwen_vla_control.observation.robot_streams import Needs, ObservationStreams
from qwen_vla_control.observation.streams import (
    MAX_IDENTICAL,
    MAX_SKEW,
    OTHER_CLOCK,
    Alignment,
    Observation,
    Rules,
    Waiting,
)
from qwen_vla_control.stamps import NANOSECONDS, stamp_of

COMPRESSED = "/compressed"
# Earlier stamps (2001) are from a simulator, whose cameras have no noise: a repeated image is no defect [ns].
REAL_TIME = 10**18
STATE, ODOMETRY, ACTION = "observation.state", "observation.odometry", "action"
log = logging.getLogger(__name__)
SUFFIXES = (".mcap", ".db3")


class BagOptions(SourceOptions):
    """What a bag does not define itself: from the user, or from the episode of episode_recorder.

    remapped: topics whose names differ from the robot's YAML, as (YAML, bag) pairs. alignment: rules for images that
    belong together, as in policy_node.
    """

    remapped: tuple[tuple[str, str], ...] = ()
    alignment: Alignment = Alignment.DROP

    def topic(self, name: str) -> str:
        """The bag's name of a topic of the robot."""
        if name in dict(self.remapped):
            return dict(self.remapped)[name]
        if name.startswith("/"):
            return name
        return "/" + "/".join(part.strip("/") for part in (self.namespace, name) if part.strip("/"))


@dataclass(frozen=True)
class _Reference:
    """Placeholder of an image in the streams until it is selected: its header, and its message's position in the bag.

    `data` replaces its pixels: the number of the image, unchanged if the image is bit-identical to the previous one.
    """

    header: Any
    tag: str
    topic: str
    log_ns: int
    data: int


@dataclass
class _Recording:
    """The messages of a bag that are used, in order of arrival; times [ns] are in the clock of the message stamps."""

    sentence: str
    images: list[tuple[int, _Reference]] = field(default_factory=list)
    joints: list[tuple[int, tuple[int, Any]]] = field(default_factory=list)  # number of the topic, message
    odometry: list[tuple[int, Any]] = field(default_factory=list)
    twists: list[tuple[int, np.ndarray]] = field(default_factory=list)
    trajectories: list[Trajectory] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    markers: list[tuple[int, Any]] = field(default_factory=list)


class RosbagEpisodes(EpisodeList):
    """The episodes of one bag, or of all bags in a folder: `EpisodeSource`."""

    takes = frozenset(SourceOptions.model_fields)

    def __init__(
        self,
        path: Path,
        embodiment: Embodiment,
        options: BagOptions | None = None,
        max_skew: float = MAX_SKEW,
    ) -> None:
        """The cameras of the embodiment are those of an observation, and `rate_hz` the number of rows per second."""
        path = Path(path)
        self.embodiment, self.options, self.max_skew = embodiment, options or BagOptions(), max_skew
        self.rate_hz = embodiment.rate_hz
        self.image_keys = tuple(camera.tag for camera in embodiment.cameras)
        self._readers = command_readers(embodiment)
        for command, reader in self._readers:
            if reader.read is None:
                _tell_once(
                    f"{command.backend} {command.endpoint}: bags do not have its commands; they are replaced by "
                    f"{reader.measured}"
                )
        self.paths = _without_failed(path, bag_paths(path))
        episodes = [episode for bag in self.paths for episode in self._read(bag)]
        if not episodes:
            raise DatasetError(f"{path}: no episode in {len(self.paths)} bag(s); see the topics {self._topics()}")
        super().__init__(path, episodes)

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A bag, or a folder of bags, finished or not."""
        if path.is_file():
            return path.suffix in SUFFIXES
        return bool(unfinished(path)) or any(_holds_messages(bag) for bag in bag_paths(path))

    @classmethod
    def recordings(cls, path: Path) -> list[Path]:
        """The finished bags."""
        return [bag for bag in bag_paths(path) if not bag.name.endswith(UNFINISHED)]

    @classmethod
    def robot(cls, path: Path) -> Embodiment | None:
        """The robot that episode_recorder saved beside the bag, or beside the first of several."""
        recorded = [RecordedEpisode(bag, read_record(bag)) for bag in cls.recordings(path) if is_recorded(bag)]
        names = sorted({episode.record.robot for episode in recorded})
        if len(names) > 1:
            raise DatasetError(
                f"{path}: the episodes are of several robots ({', '.join(names)}); use a folder per robot"
            )
        return recorded[0].embodiment() if recorded else None

    @classmethod
    def succeeded(cls, path: Path) -> bool | None:
        """The label of an episode of episode_recorder."""
        return read_record(path).success if is_recorded(path) else None

    @classmethod
    def open(cls, path: Path, embodiment: Embodiment, options: SourceOptions) -> Self:
        return cls(path, embodiment, BagOptions(**options.model_dump()))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the contents of all bag files and of the options that split episodes."""
        files = [file for path in self.paths for file in ([path] if path.is_file() else sorted(path.iterdir()))]
        content = data_hash(self.root, [file for file in files if file.suffix in (*SUFFIXES, ".yaml", ".zstd")])
        return hash_of(content, self.options, self.rate_hz, self.max_skew, self.image_keys)

    # --- one bag ----------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> Iterator[Episode]:
        with closing(_open(path)) as reader:
            recording = self._collect(path, reader)
        for number, (begin, end, sentence) in enumerate(self._spans(path, recording)):
            rows = self._rows(recording, begin, end)
            if rows:
                yield self._episode(path, number, recording, rows, sentence)

    def _collect(self, path: Path, reader: AnyReader) -> _Recording:
        """Read all messages except pixels."""
        options = self._options_of(path)
        found = {connection.topic for connection in reader.connections}
        images = {camera.tag: _image_topic(camera, options, found) for camera in self.embodiment.cameras}
        handlers = self._handlers(options, images)
        joints = ObservationStreams(self.embodiment, ()).joint_sources
        needed = [*images.values(), *(options.topic(source.source.topic) for source in joints)]
        missing = [topic for topic in needed if topic not in found]
        if missing:
            raise DatasetError(
                f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(found)) or 'no topics'}. Record these "
                "topics, or give the namespace they are in"
            )
        recording = _Recording(options.instruction or "")
        wanted = [connection for connection in reader.connections if connection.topic in handlers]
        lag = None
        for connection, log_ns, data in reader.messages(connections=wanted):
            message = _deserialize(path, reader, connection, data)
            if lag is None and _stamped(message):
                lag = _other_clock(stamp_of(message) - log_ns)
            handlers[connection.topic](recording, log_ns + (lag or 0), log_ns, message)
        return recording

    def _options_of(self, path: Path) -> BagOptions:
        """The options, completed by those of an episode of episode_recorder."""
        if not is_recorded(path):
            return self.options
        record = read_record(path)
        changes = {
            "namespace": self.options.namespace or record.namespace,
            "remapped": (*self.options.remapped, *record.remapped.items()),
            "instruction": record.instruction or self.options.instruction,
        }
        return self.options.model_copy(update=changes)

    def _handlers(
        self, options: BagOptions, images: Mapping[str, str]
    ) -> dict[str, Callable[[_Recording, int, int, Any], None]]:
        """A handler of messages by topic: (recording, arrival [ns], time in the bag [ns], message).

        images: the topic of every camera, by its tag.
        """
        topic, e = options.topic, self.embodiment

        def image(tag: str):
            latest, number = None, 0

            def keep(recording: _Recording, arrival: int, log_ns: int, message: Any) -> None:
                nonlocal latest, number
                number += latest is None or not np.array_equal(latest, message.data)
                latest = message.data
                recording.images.append((arrival, _Reference(message.header, tag, images[tag], log_ns, number)))

            return keep

        def joints(source: int):
            return lambda r, arrival, _, message: r.joints.append((arrival, (source, message)))

        def commands(kept: str, read: Callable[[Any, int], Any]):
            return lambda r, arrival, _, message: getattr(r, kept).append(read(message, arrival))

        handlers = {images[camera.tag]: image(camera.tag) for camera in self.embodiment.cameras}
        handlers |= {topic(source.topic): joints(index) for index, source in enumerate(e.joint_states)}
        for command, reader in self._readers:
            if reader.read is not None:
                kept = "twists" if command.moves_base else "trajectories"
                handlers[topic(command.endpoint)] = commands(kept, reader.read)
        if e.odometry:
            handlers[topic(e.odometry.topic)] = lambda r, arrival, _, m: r.odometry.append((arrival, m))
        if options.instruction_topic:
            handlers[topic(options.instruction_topic)] = lambda r, arrival, _, m: r.texts.append((arrival, m.data))
        if options.marker_topic:
            handlers[topic(options.marker_topic)] = lambda r, arrival, _, m: r.markers.append((arrival, m.data))
        return handlers

    def _topics(self) -> str:
        images = {camera.tag: self.options.topic(camera.image_topic) for camera in self.embodiment.cameras}
        return ", ".join(self._handlers(self.options, images))

    def _spans(self, path: Path, recording: _Recording) -> Iterator[tuple[int, int, str]]:
        """Begin, end [ns] and instruction of every episode."""
        arrivals = [time for time, _ in (*recording.images, *recording.joints)]
        if not arrivals:
            return
        begin, end = min(arrivals), max(arrivals)
        if self.options.marker_topic:
            yield from self._marked(path, recording, end)
        else:
            yield begin, end, self._sentence(path, recording, begin, end)

    def _marked(self, path: Path, recording: _Recording, end: int) -> Iterator[tuple[int, int, str]]:
        begun: tuple[int, Any] | None = None
        for time, mark in [*recording.markers, (end, None)]:
            if begun and (mark is None or mark != begun[1]):
                own = begun[1] if isinstance(begun[1], str) else ""
                yield begun[0], time, own.strip() or self._sentence(path, recording, begun[0], time)
                begun = None
            if mark and begun is None:
                begun = (time, mark)

    def _sentence(self, path: Path, recording: _Recording, begin: int, end: int) -> str:
        """The last instruction before the end of an episode, else the one for all episodes."""
        said = [text.strip() for time, text in recording.texts if time <= end and text.strip()]
        sentence = said[-1] if said else recording.sentence.strip()
        if not sentence:
            raise DatasetError(
                f"{path}: no instruction; give `instruction`, or the topic that has it with `instruction_topic`"
            )
        return sentence

    # --- rows -------------------------------------------------------------------------------------------------------

    def _rows(self, recording: _Recording, begin: int, end: int) -> list[_Row]:
        """Replay: the policy's observation at every tick. Ticks start at the first observation."""
        replay = _Replay(self, recording)
        last = min(
            [end, *(max((t for t, r in recording.images if r.tag == tag), default=end) for tag in self.image_keys)]
        )
        first = replay.first_observation(begin, last)
        if first is None:
            return []
        count = int((last - first) * self.rate_hz / NANOSECONDS) + 1
        return [replay.row(first + round(k * NANOSECONDS / self.rate_hz)) for k in range(count)]

    def _episode(self, path: Path, number: int, recording: _Recording, rows: list[_Row], sentence: str) -> Episode:
        joints = self.embodiment.joint_names
        state = np.array([[row.joints.get(name, np.nan) for name in joints] for row in rows], float)
        units = tuple("rad" if name not in _prismatic(self.embodiment) else "m" for name in joints)
        times = np.array([row.stamp_ns for row in rows])
        seconds = np.array([(row.tick_ns - rows[0].tick_ns) / NANOSECONDS for row in rows])
        columns = {
            "timestamp": Channels(seconds[:, None], ("timestamp",), ("s",)),
            STATE: Channels(state, joints, units),
        }
        if recording.trajectories:
            commanded = self._commanded(recording, times, state)
            columns[ACTION] = Channels(commanded, joints, units)
        if self.embodiment.base:
            columns |= _base_columns(recording, rows)
        defects: dict[str, dict[int, str]] = {"observation": {k: row.fault for k, row in enumerate(rows) if row.fault}}
        images = {tag: _BagImages(path, self, tag, rows) for tag in self.image_keys}
        return Episode(
            name=f"{path} episode {number}",
            instruction=sentence,
            rate_hz=self.rate_hz,
            columns=columns,
            images=images,
            place=lambda row: f"{path} episode {number} row {row} ({seconds[row]:.2f} s)",
            state=columns[STATE],
            actions=columns.get(ACTION),
            defects={name: found for name, found in defects.items() if found},
        )

    def _commanded(self, recording: _Recording, times: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Commanded joint positions one period after each row; before the first command, the measured ones.

        For a joint never commanded by a topic, such as a gripper with an action, the measured one a row later.
        """
        commands = CommandedPositions(self.embodiment.joint_names, recording.trajectories)
        due = times + round(NANOSECONDS / self.rate_hz)
        measured = np.where(commands.known, state, next_rows(state))
        return np.stack([commands.at(int(time), row) for time, row in zip(due, measured, strict=True)])


@dataclass(frozen=True)
class _Row:
    tick_ns: int
    stamp_ns: int
    chosen: Mapping[str, _Reference]
    joints: Mapping[str, float]  # positions; empty if missing
    base: BasePose | None
    fault: str


class _Replay:
    """The state of a bag's streams at any time; time only moves forward."""

    def __init__(self, source: RosbagEpisodes, recording: _Recording) -> None:
        needs = Needs(joint_states=True, odometry=bool(recording.odometry))
        self.streams = ObservationStreams(source.embodiment, source.embodiment.cameras, source.options.topic, needs)
        simulated = any(stamp_of(reference) < REAL_TIME for _, reference in recording.images[:1])
        self.rules = Rules(
            alignment=source.options.alignment,
            max_skew=source.max_skew,
            max_lead=math.inf,  # the recorder's clock is not the robot's
            max_identical=math.inf if simulated else MAX_IDENTICAL,
        )
        self._coming = sorted(
            [(time, 0, reference) for time, reference in recording.images]
            + [(time, 1, message) for time, message in recording.joints]
            + [(time, 2, message) for time, message in recording.odometry],
            key=lambda item: item[:2],
        )
        self._next = 0

    def first_observation(self, begin: int, last: int) -> int | None:
        """Arrival of the message that completes the first observation at or after `begin`."""
        while self._next < len(self._coming) and self._coming[self._next][0] <= last:
            now = self._coming[self._next][0]
            self._offer(now)
            if now >= begin and isinstance(self.streams.select(now, now, rules=self.rules), Observation):
                return now
        return None

    def row(self, now: int) -> _Row:
        self._offer(now)
        observed = self.streams.select(now, now, rules=self.rules)
        if isinstance(observed, Waiting):
            kinds = {"camera": "frame", "odometry": "odometry"}
            kind = kinds.get(observed.stream.partition(" ")[0], "joint state")
            return _Row(now, now, {}, {}, None, f"missing {kind}: {observed.message}")
        chosen = {tag: messages[-1] for tag, messages in observed.images.items()}
        return _Row(now, observed.stamp_ns, chosen, observed.joints, observed.base, "")

    def _offer(self, now: int) -> None:
        while self._next < len(self._coming) and self._coming[self._next][0] <= now:
            arrival, kind, item = self._coming[self._next]
            self._next += 1
            if kind == 0:
                self.streams.take_image(item.tag, item, arrival)
            elif kind == 1:
                self.streams.joints.take(*item, arrival)
            else:
                self.streams.odometry.take(item, arrival)


class _BagImages:
    """One camera's images of an episode; read from the bag and decoded on access."""

    def __init__(self, path: Path, source: RosbagEpisodes, tag: str, rows: list[_Row]) -> None:
        self._path, self._tag, self._rows = path, tag, rows
        camera = next(camera for camera in source.embodiment.cameras if camera.tag == tag)
        self._streams = ObservationStreams(source.embodiment, [camera], source.options.topic)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> np.ndarray:
        reference = self._rows[row].chosen.get(self._tag)
        if reference is None:
            raise DatasetError(f"{self._path} row {row}: {self._rows[row].fault}")
        message = _message(self._path, reference)
        try:
            return self._streams.decode(Observation(stamp_of(message), {self._tag: (message,)}))[self._tag]
        except DecodingError as error:
            raise DatasetError(f"{self._path} row {row}: {error}") from error


def _message(path: Path, reference: _Reference) -> Any:
    """The message of a reference; messages of one topic may share their time in the bag."""
    reader, topic = _reader(path), reference.topic
    connections = [connection for connection in reader.connections if connection.topic == topic]
    for connection, _, data in reader.messages(connections, reference.log_ns, reference.log_ns + 1):
        message = _deserialize(path, reader, connection, data)
        if stamp_of(message) == stamp_of(reference):
            return message
    raise DatasetError(f"{path}: the message on {topic} at {reference.log_ns} ns is missing; was the bag changed?")


@functools.lru_cache(4)
def _reader(path: Path) -> AnyReader:
    """An open bag; the last few stay open, for reading image by image."""
    return _open(path)


def _open(path: Path) -> AnyReader:
    """An opened bag."""
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_KILTED))
        reader.open()
    except (AnyReaderError, OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be opened as a bag: {error}") from error
    return reader


def _deserialize(path: Path, reader: AnyReader, connection: Connection, data: bytes) -> Any:
    """A message of the bag; Fast CDR appends up to eight bytes to some messages, which rosbags would refuse."""
    for extra in (0, 4, 8):
        try:
            return reader.deserialize(data[: len(data) - extra], connection.msgtype)
        except AnyReaderError as error:
            reason = error
    raise DatasetError(f"{path}: a message on {connection.topic} cannot be read: {reason}") from reason


def bag_paths(root: Path) -> list[Path]:
    """The bag at a path, or all bags in the folder, ordered by name."""
    if root.is_file() or (root / "metadata.yaml").exists():
        return [root]
    inside = sorted(path.parent for path in root.glob("*/metadata.yaml"))
    return inside or sorted(path for path in root.iterdir() if path.suffix in SUFFIXES)


def _holds_messages(bag: Path) -> bool:
    files = [bag] if bag.is_file() else bag.iterdir()
    return any(set(file.suffixes) & set(SUFFIXES) for file in files)


def _without_failed(root: Path, paths: list[Path]) -> list[Path]:
    """The bags of a folder without episodes labeled as failed, which are logged; one given by its path is kept."""
    failed = [path for path in paths if path != root and is_recorded(path) and read_record(path).success is False]
    if failed:
        log.warning("%s: %d failed episodes are skipped: %s", root, len(failed), ", ".join(p.name for p in failed))
    return [path for path in paths if path not in failed]


@functools.cache
def _tell_once(line: str) -> None:
    """Log a line, except in worker processes."""
    if multiprocessing.parent_process() is None:
        log.warning(line)


def _other_clock(difference: int) -> int:
    """Offset of bag times [ns]: zero, unless the messages' stamps are from another clock (a simulator's)."""
    return difference if abs(difference) > OTHER_CLOCK * NANOSECONDS else 0


def _stamped(message: Any) -> bool:
    """Whether a message is stamped; a stamp of zero, as in commands, means immediately."""
    return hasattr(message, "header") and stamp_of(message) != 0


def _image_topic(camera: Camera, options: BagOptions, found: set[str]) -> str:
    """The topic of a camera in a bag: that of its transport, else of the other one if that was recorded."""
    own, raw = options.topic(camera.image_topic), options.topic(camera.topic.removesuffix(COMPRESSED))
    return next((topic for topic in (own, raw, raw + COMPRESSED) if topic in found), own)


def _prismatic(embodiment: Embodiment) -> set[str]:
    joints = parse_urdf(embodiment.urdf).joints
    return {name for name in embodiment.joint_names if joints[name].type == "prismatic"}


def _base_columns(recording: _Recording, rows: list[_Row]) -> dict[str, Channels]:
    columns, times = {}, np.array([row.stamp_ns for row in rows])
    if recording.odometry:
        poses = np.stack([np.full(3, np.nan) if row.base is None else row.base.vector for row in rows])
        columns[ODOMETRY] = Channels(poses, ("x", "y", "theta"), ("m", "m", "rad"))
    if recording.twists:
        columns[f"{ACTION}.velocity"] = Channels(
            _latest(recording.twists, times), ("vx", "vy", "wz"), ("m/s", "m/s", "rad/s")
        )
    return columns


def _latest(samples: list[tuple[int, np.ndarray]], times: np.ndarray) -> np.ndarray:
    """The last value at or before each time; zero before the first."""
    stamps = [time for time, _ in samples]
    before = [bisect.bisect_right(stamps, time) for time in times]
    return np.stack([samples[k - 1][1] if k else np.zeros_like(samples[0][1]) for k in before])
