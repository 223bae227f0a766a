"""rosbag2 recordings (MCAP or SQLite) as episodes: replayed into the streams that the policy looks through when live.

At every tick of the robot's rate the messages that had arrived by then are offered to `CameraStreams.select`, as in
policy_node, and the images that it chooses are decoded by the same function. Free of rclpy: rosbags reads the files.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from embodiment_descriptions import Camera, Embodiment
from embodiment_descriptions.commands import BaseVelocityCommand, JointTrajectoryCommand
from embodiment_descriptions.urdf import parse_urdf
from qwen_vla.data.cache import data_hash
from qwen_vla.data.episodes import Channels, DatasetError, Episode
from qwen_vla.data.rosbag_commands import CommandedPositions, Trajectory, yaw
from qwen_vla.image_decoding import DecodingError
from qwen_vla.observation_buffer import (
    MAX_SKEW,
    NANOSECONDS,
    OTHER_CLOCK,
    CameraStreams,
    Observation,
    Stream,
    Waiting,
    stamp_of,
)

JOINT_STATES = "joint_states"
JOINT_STATES_KEPT = 256
JOINT_STATE_AGE = 0.5  # [s]
STATE, ODOMETRY, ACTION = "observation.state", "observation.odometry", "action"
SUFFIXES = (".mcap", ".db3")


@dataclass(frozen=True)
class BagOptions:
    """What a bag does not say by itself.

    namespace: of the robot's topics. instruction: sentence of all episodes without one of their own.
    instruction_topic: std_msgs/String with the sentence. marker_topic: std_msgs/String that begins an episode with its
    sentence and ends it with an empty one, or std_msgs/Bool, True from begin to end; without it a bag is one episode.
    """

    namespace: str = ""
    instruction: str | None = None
    instruction_topic: str | None = None
    marker_topic: str | None = None

    def topic(self, name: str) -> str:
        """A topic of the robot as the bag calls it."""
        if name.startswith("/"):
            return name
        return "/" + "/".join(part.strip("/") for part in (self.namespace, name) if part.strip("/"))


@dataclass(frozen=True)
class _Reference:
    """Stands for an image in the streams until it is chosen: its header, and where its message lies in the bag."""

    header: Any
    tag: str
    log_ns: int


@dataclass
class _Recording:
    """What is kept of a bag, in the order of arrival; times [ns] are those of the message stamps' clock."""

    images: list[tuple[int, _Reference]] = field(default_factory=list)
    joints: list[tuple[int, Any]] = field(default_factory=list)
    odometry: list[tuple[int, np.ndarray]] = field(default_factory=list)
    twists: list[tuple[int, np.ndarray]] = field(default_factory=list)
    trajectories: list[Trajectory] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    markers: list[tuple[int, Any]] = field(default_factory=list)


class RosbagEpisodes:
    """The episodes of one bag, or of all bags in a folder: `EpisodeSource`."""

    def __init__(
        self,
        path: Path,
        embodiment: Embodiment,
        options: BagOptions | None = None,
        cameras: Sequence[Camera] | None = None,
        max_skew: float = MAX_SKEW,
    ) -> None:
        """cameras: those that an observation needs, by default all of the robot; none for a stage without images."""
        self.root = Path(path)
        self.name = self.root.stem
        self.embodiment, self.options, self.max_skew = embodiment, options or BagOptions(), max_skew
        self.rate_hz = embodiment.rate_hz
        self.cameras = tuple(embodiment.cameras if cameras is None else cameras)
        self.image_keys = tuple(camera.tag for camera in self.cameras)
        self.paths = _bags(self.root)
        self._episodes = [episode for path in self.paths for episode in self._read(path)]
        if not self._episodes:
            raise DatasetError(f"{self.root}: no episode in {len(self.paths)} bag(s); see the topics {self._topics()}")
        ends = np.cumsum([len(episode) for episode in self._episodes])
        self.episodes = np.stack([ends - [len(episode) for episode in self._episodes], ends], axis=1)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the contents of all bag files and of what the episodes are cut by."""
        files = [file for path in self.paths for file in ([path] if path.is_file() else sorted(path.iterdir()))]
        content = data_hash(self.root, [file for file in files if file.suffix in (*SUFFIXES, ".yaml", ".zstd")])
        return _hash_of(content, self.options, self.rate_hz, self.max_skew, self.image_keys)

    @property
    def features(self) -> dict[str, tuple[str, ...]]:
        """Names of the channels of every column."""
        return {name: channels.names for name, channels in self._episodes[0].columns.items()}

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:
        return self._episodes[index]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes)

    def images(self, key: str, convert: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray | DatasetError]:
        """Yield convert(image) of every row of all episodes; the error itself where there is none."""
        for episode in self._episodes:
            for row in range(len(episode)):
                try:
                    yield convert(episode.images[key][row])
                except DatasetError as error:
                    yield error

    # --- one bag ----------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> Iterator[Episode]:
        with closing(_open(path)) as reader:
            recording = self._collect(path, reader)
        for number, (begin, end, sentence) in enumerate(self._spans(path, recording)):
            rows = self._rows(recording, begin, end)
            if rows:
                yield self._episode(path, number, recording, rows, sentence)

    def _collect(self, path: Path, reader: AnyReader) -> _Recording:
        """Read all messages but the pixels."""
        handlers = self._handlers()
        found = {connection.topic for connection in reader.connections}
        needed = [self.options.topic(camera.topic) for camera in self.cameras] + [self.options.topic(JOINT_STATES)]
        missing = [topic for topic in needed if topic not in found]
        if missing:
            raise DatasetError(
                f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(found)) or 'no topics'}. Record these "
                "topics, or give the namespace they are in"
            )
        recording = _Recording()
        wanted = [connection for connection in reader.connections if connection.topic in handlers]
        lag = None
        for connection, log_ns, data in reader.messages(connections=wanted):
            message = _deserialize(path, reader, connection, data)
            if lag is None and hasattr(message, "header"):
                lag = _other_clock(stamp_of(message) - log_ns)
            handlers[connection.topic](recording, log_ns + (lag or 0), log_ns, message)
        return recording

    def _handlers(self) -> dict[str, Callable[[_Recording, int, int, Any], None]]:
        """By topic what to keep of a message: (recording, arrival [ns], its time in the bag [ns], message)."""
        topic, options = self.options.topic, self.options

        def image(tag: str):
            def keep(recording: _Recording, arrival: int, log_ns: int, message: Any) -> None:
                recording.images.append((arrival, _Reference(message.header, tag, log_ns)))

            return keep

        handlers = {topic(camera.topic): image(camera.tag) for camera in self.cameras}
        handlers[topic(JOINT_STATES)] = lambda r, arrival, _, message: r.joints.append((arrival, message))
        for name in self._command_topics(JointTrajectoryCommand):
            handlers[name] = lambda r, arrival, _, message: r.trajectories.append(Trajectory.of(message, arrival))
        if odometry := self.embodiment.odometry:
            handlers[topic(odometry.topic)] = lambda r, arrival, _, m: r.odometry.append((stamp_of(m), _planar(m)))
        for name in self._command_topics(BaseVelocityCommand):
            handlers[name] = lambda r, arrival, _, message: r.twists.append((arrival, _twist(message)))
        if options.instruction_topic:
            handlers[topic(options.instruction_topic)] = lambda r, arrival, _, m: r.texts.append((arrival, m.data))
        if options.marker_topic:
            handlers[topic(options.marker_topic)] = lambda r, arrival, _, m: r.markers.append((arrival, m.data))
        return handlers

    def _command_topics(self, kind: type[JointTrajectoryCommand | BaseVelocityCommand]) -> list[str]:
        return [self.options.topic(command.topic) for command in self.embodiment.commands if isinstance(command, kind)]

    def _topics(self) -> str:
        return ", ".join(self._handlers())

    def _spans(self, path: Path, recording: _Recording) -> Iterator[tuple[int, int, str]]:
        """Begin, end [ns] and sentence of every episode."""
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
        """The last sentence said before the end of an episode, else the one for all episodes."""
        said = [text.strip() for time, text in recording.texts if time <= end and text.strip()]
        sentence = said[-1] if said else (self.options.instruction or "").strip()
        if not sentence:
            raise DatasetError(
                f"{path}: no instruction; give `instruction`, or the topic that has it with `instruction_topic`"
            )
        return sentence

    # --- rows -------------------------------------------------------------------------------------------------------

    def _rows(self, recording: _Recording, begin: int, end: int) -> list[_Row]:
        """Replay: at every tick what the policy would have seen. Ticks begin with the first observation there is."""
        replay = _Replay(self.cameras, recording, self.max_skew)
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
        state = np.stack([_positions(row.joints, joints) for row in rows])
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
            columns |= _base_columns(recording, times)
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
        """Where each joint was told to be one period after each row; before the first command where it was."""
        commands = CommandedPositions(self.embodiment.joint_names, recording.trajectories)
        due = times + round(NANOSECONDS / self.rate_hz)
        return np.stack([commands.at(int(time), measured) for time, measured in zip(due, state, strict=True)])


@dataclass(frozen=True)
class _Row:
    tick_ns: int
    stamp_ns: int
    chosen: Mapping[str, _Reference]
    joints: Any
    fault: str


class _Replay:
    """The streams of one bag as they were at any time; time only goes forward."""

    def __init__(self, cameras: Sequence[Camera], recording: _Recording, max_skew: float) -> None:
        self.cameras = CameraStreams(cameras)
        self.joints = Stream("joint states", JOINT_STATES, JOINT_STATE_AGE, JOINT_STATES_KEPT)
        self.max_skew = max_skew
        self._coming = sorted(
            [(time, 0, reference) for time, reference in recording.images]
            + [(time, 1, message) for time, message in recording.joints],
            key=lambda item: item[:2],
        )
        self._next = 0

    def first_observation(self, begin: int, last: int) -> int | None:
        """Arrival of the message that makes the first observation at or after `begin`."""
        while self._next < len(self._coming) and self._coming[self._next][0] <= last:
            now = self._coming[self._next][0]
            self._offer(now)
            if now >= begin and isinstance(self._observe(now), Observation) and len(self.joints):
                return now
        return None

    def row(self, now: int) -> _Row:
        self._offer(now)
        observed = self._observe(now)
        if isinstance(observed, Waiting):
            return _Row(now, now, {}, None, f"missing frame: {observed.message}")
        chosen = dict(zip(self.cameras.streams, observed.messages, strict=True))
        nearest = self.joints.nearest(observed.stamp_ns)
        apart = abs(nearest.stamp_ns - observed.stamp_ns) / NANOSECONDS
        if apart > self.max_skew:
            return _Row(now, observed.stamp_ns, chosen, None, f"missing joint state: the nearest is {apart:.2f} s away")
        return _Row(now, observed.stamp_ns, chosen, nearest.message, "")

    def _observe(self, now: int) -> Observation | Waiting:
        if self.cameras.streams:
            return self.cameras.select(now, now, max_skew=self.max_skew)
        if fault := self.joints.fault(now, now, JOINT_STATE_AGE, JOINT_STATE_AGE):
            return Waiting(self.joints.name, fault, fault=True)
        return Observation(self.joints.latest.stamp_ns, ())

    def _offer(self, now: int) -> None:
        while self._next < len(self._coming) and self._coming[self._next][0] <= now:
            arrival, kind, message = self._coming[self._next]
            self._next += 1
            if kind == 0:
                self.cameras.push(message.tag, message, arrival)
            else:
                self.joints.push(stamp_of(message), message, arrival)


class _BagImages:
    """One camera's images of an episode; read from the bag and decoded when asked for."""

    def __init__(self, path: Path, source: RosbagEpisodes, tag: str, rows: list[_Row]) -> None:
        self._path, self._tag, self._rows = path, tag, rows
        self._camera = next(camera for camera in source.cameras if camera.tag == tag)
        self._topic = source.options.topic(self._camera.topic)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> np.ndarray:
        reference = self._rows[row].chosen.get(self._tag)
        if reference is None:
            raise DatasetError(f"{self._path} row {row}: {self._rows[row].fault}")
        message = _message(self._path, self._topic, reference)
        eyes = CameraStreams([self._camera], {self._tag: self._topic})
        try:
            return eyes.decode(Observation(stamp_of(message), (message,)))[self._tag]
        except DecodingError as error:
            raise DatasetError(f"{self._path} row {row}: {error}") from error


def _message(path: Path, topic: str, reference: _Reference) -> Any:
    """The message that a reference stands for; messages of one topic may share their time in the bag."""
    reader = _reader(path)
    connections = [connection for connection in reader.connections if connection.topic == topic]
    for connection, _, data in reader.messages(connections, reference.log_ns, reference.log_ns + 1):
        message = _deserialize(path, reader, connection, data)
        if stamp_of(message) == stamp_of(reference):
            return message
    raise DatasetError(f"{path}: the message on {topic} at {reference.log_ns} ns is gone; has the bag changed?")


@functools.lru_cache(4)
def _reader(path: Path) -> AnyReader:
    """An open bag; the last few stay open, so that reading image by image does not open one each time."""
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
    """A message of the bag; Fast CDR leaves up to eight bytes behind some messages, which rosbags would refuse."""
    for extra in (0, 4, 8):
        try:
            return reader.deserialize(data[: len(data) - extra], connection.msgtype)
        except AnyReaderError as error:
            reason = error
    raise DatasetError(f"{path}: a message on {connection.topic} cannot be read: {reason}") from reason


def _bags(root: Path) -> list[Path]:
    """The bag at a path, or all bags in the folder, in the order of their names."""
    if not root.exists():
        raise DatasetError(f"{root}: no such bag (seen from {Path.cwd()})")
    if root.is_file() or (root / "metadata.yaml").exists():
        return [root]
    inside = sorted(path.parent for path in root.glob("*/metadata.yaml"))
    return inside or sorted(path for path in root.iterdir() if path.suffix in SUFFIXES)


def _other_clock(difference: int) -> int:
    """What to add to bag times [ns]: nothing, unless the messages' stamps are of another clock (a simulator's)."""
    return difference if abs(difference) > OTHER_CLOCK * NANOSECONDS else 0


def _positions(message: Any, joints: Sequence[str]) -> np.ndarray:
    """Positions of the joints in their order; NaN where the message is missing or lacks one."""
    if message is None:
        return np.full(len(joints), np.nan)
    by_name = dict(zip(message.name, message.position, strict=False))
    return np.array([by_name.get(name, np.nan) for name in joints], float)


def _prismatic(embodiment: Embodiment) -> set[str]:
    joints = parse_urdf(embodiment.urdf).joints
    return {name for name in embodiment.joint_names if joints[name].type == "prismatic"}


def _planar(message: Any) -> np.ndarray:
    """x, y [m] and heading [rad] of a nav_msgs/Odometry."""
    pose = message.pose.pose
    return np.array([pose.position.x, pose.position.y, yaw(pose.orientation)])


def _twist(message: Any) -> np.ndarray:
    """vx, vy [m/s], ωz [rad/s] of a geometry_msgs/Twist or TwistStamped."""
    twist = getattr(message, "twist", message)
    return np.array([twist.linear.x, twist.linear.y, twist.angular.z])


def _base_columns(recording: _Recording, times: np.ndarray) -> dict[str, Channels]:
    columns = {}
    if recording.odometry:
        poses = _nearest(recording.odometry, times)
        columns[ODOMETRY] = Channels(poses, ("x", "y", "theta"), ("m", "m", "rad"))
    if recording.twists:
        columns[f"{ACTION}.velocity"] = Channels(
            _latest(recording.twists, times), ("vx", "vy", "wz"), ("m/s", "m/s", "rad/s")
        )
    return columns


def _nearest(samples: list[tuple[int, np.ndarray]], times: np.ndarray) -> np.ndarray:
    stamps = np.array([time for time, _ in samples])
    return np.stack([samples[int(np.abs(stamps - time).argmin())][1] for time in times])


def _latest(samples: list[tuple[int, np.ndarray]], times: np.ndarray) -> np.ndarray:
    """The last value at or before each time; zero before the first."""
    stamps = [time for time, _ in samples]
    before = [bisect.bisect_right(stamps, time) for time in times]
    return np.stack([samples[k - 1][1] if k else np.zeros_like(samples[0][1]) for k in before])


def _hash_of(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
