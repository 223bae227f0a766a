# SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings (MCAP or SQLite) as episodes, replayed through the policy's live observation streams.

At every tick of the robot's rate, the messages received by then are offered to `ObservationStreams.select`, as in
policy_node, and the selected images are decoded by the same function. Free of rclpy: rosbags reads the files.
"""

from __future__ import annotations

import bisect
import functools
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.angles import wrapped
from embodiment_descriptions.urdf import parse_urdf
from qwen_vla.data.formats.bags.bag import Bag, bag_paths, files_of_bag, is_bag_file
from qwen_vla.data.formats.bags.conflicts import Conflict, conflicts
from qwen_vla.data.formats.bags.replay import Replay, Row, rows_between
from qwen_vla.data.formats.bags.timeline import ClockSetBack, stretches
from qwen_vla.data.formats.bags.topics import BagOptions, Part, TopicUse, heard_of, image_topic, part_of, topic_uses
from qwen_vla.data.formats.cache import data_hash
from qwen_vla.data.formats.episodes import Channels, DatasetError, Episode, EpisodeList, SourceOptions, hash_of
from qwen_vla.data.formats.recordings import RecordedEpisode, is_recorded, read_record, unfinished
from qwen_vla.data.formats.rosbag_commands import CommandedPositions, command_readers
from qwen_vla.data.robot.finite_differences import next_rows
from qwen_vla_control.observation.image_decoding import DecodingError
from qwen_vla_control.observation.robot_streams import ObservationStreams
from qwen_vla_control.observation.streams import MAX_SKEW, Observation
from qwen_vla_control.stamps import NANOSECONDS, stamp_of

STATE, ODOMETRY, ACTION = "observation.state", "observation.odometry", "action"
STAY_OPEN = 4  # bags
log = logging.getLogger(__name__)


class _Span(NamedTuple):
    """An episode within a part of a bag: begin, end [ns], instruction, and why it is cut there ("": it is not)."""

    part: int
    begin: int
    end: int
    sentence: str
    cut: str


class RosbagEpisodes(EpisodeList):
    """The episodes of one bag, or of all bags in a folder: `EpisodeSource`.

    Attributes:
        paths: the bags.
        unused: by bag, why not all of it can be used.
    """

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
        kinds = parse_urdf(embodiment.urdf).joints
        self._continuous = {name for name in embodiment.joint_names if kinds[name].type == "continuous"}
        for command, reader in self._readers:
            if reader.read is None:
                _tell_once(
                    f"{command.backend} {command.endpoint}: bags do not have its commands; they are replaced by "
                    f"{reader.measured}"
                )
        self.paths = _without_failed(path, bag_paths(path))
        self.unused: dict[Path, tuple[str, ...]] = {}
        episodes = [episode for bag in self.paths for episode in self._read(bag)]
        if not episodes:
            raise DatasetError(f"{path}: there is no bag in it, or only failed ones")
        _check_columns(episodes)
        super().__init__(path, episodes)

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A bag, or a folder of bags, finished or not."""
        return is_bag_file(path) if path.is_file() else bool(unfinished(path) or bag_paths(path))

    @classmethod
    def recordings(cls, path: Path) -> list[Path]:
        """The finished bags."""
        return bag_paths(path)

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
        """Hash of the contents of all bag files and of the options that apply to them."""
        content = data_hash(self.root, [file for path in self.paths for file in files_of_bag(path)])
        options = [self._options_of(path) for path in self.paths]
        return hash_of(content, options, self.rate_hz, self.max_skew, self.image_keys)

    # --- one bag ----------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> Iterator[Episode]:
        options = self._options_of(path)
        parts = self._parts(path, options)
        number, reasons = 0, [part.ended for part in parts if part.ended]
        for span in self._spans(parts, options):
            measured = parts[span.part].measured
            replay = Replay(self.embodiment, measured, span.begin, options.topic, options.alignment, self.max_skew)
            last = measured.last_tick(span.end, self.embodiment.cameras)
            rows = rows_between(replay, span.begin, last, self.rate_hz)
            if rows and not span.sentence:
                raise DatasetError(
                    f"{path}: no instruction; give `instruction`, or the topic that has it with `instruction_topic`"
                )
            if rows:
                yield self._episode(path, number, parts, span, rows)
                number += 1
            elif replay.waiting:
                reasons.append(replay.waiting.message)
        why = "; ".join(dict.fromkeys(reasons)) or "it has no message on the topics of the robot"
        if not number:
            raise DatasetError(f"{path}: no episode: {why}")
        if reasons:
            self.unused[path] = tuple(dict.fromkeys(reasons))
            log.warning("%s: not all of it can be used: %s", path, why)

    def _parts(self, path: Path, options: BagOptions) -> list[Part]:
        """Read all messages except pixels."""
        with Bag(path) as bag:
            uses = self._uses(bag, options)
            heard = [heard_of(uses[recorded.topic], recorded) for recorded in bag.messages(frozenset(uses))]
            try:
                found = stretches(heard, bag.damages)
            except ClockSetBack as error:
                raise bag.error(error.heard.topic, error.heard.type, error.heard.log_ns, str(error)) from error
            parts = [part_of(bag, stretch, uses) for stretch in found]
        for part in parts:
            part.conflicts = conflicts(self.embodiment, part.measured.joints, options.topic)
        return parts

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

    def _uses(self, bag: Bag, options: BagOptions) -> dict[str, list[TopicUse]]:
        """The topics of the bag that are used; DatasetError if one is missing, or has messages of another type."""
        uses = topic_uses(self.embodiment, options, self._readers, set(bag.types))
        joints = ObservationStreams(self.embodiment, ()).joint_sources
        images = [image_topic(camera, options, bag.types) for camera in self.embodiment.cameras]
        needed = [*images, *(options.topic(source.source.topic) for source in joints)]
        if options.marker_topic:
            needed.append(options.topic(options.marker_topic))
        missing = [topic for topic in needed if topic not in bag.types]
        if missing:
            raise DatasetError(
                f"{bag.path} lacks {', '.join(missing)}; it has {', '.join(sorted(bag.types)) or 'no topics'}. Record "
                "these topics, or give the namespace they are in"
            )
        for name, use in ((name, use) for name, own in uses.items() for use in own):
            if others := sorted(bag.types.get(name, set()) - set(use.types)):
                why = f"{' or '.join(use.types)} is needed; record that, or name another topic in the robot's YAML"
                raise bag.error(name, ", ".join(others), bag.first_ns(name), why)
        return uses

    def _spans(self, parts: Sequence[Part], options: BagOptions) -> Iterator[_Span]:
        """Every episode, as far as it lies in one part; a new instruction begins a new one."""
        said: list[str] = []
        for number, part in enumerate(parts):
            inside = part.measured.span
            spans = _marked(part, inside) if options.marker_topic else [(*inside, "")] if inside else []
            for begin, end, own in spans:
                tasks = [(begin, own)] if own else _tasks(said, part.texts, begin, end, bool(options.marker_topic))
                tasks = tasks or [(begin, (options.instruction or "").strip())]
                for (start, sentence), until in zip(tasks, [*(time for time, _ in tasks[1:]), end], strict=True):
                    cut = part.ended if inside is None or until >= inside[1] else ""
                    yield _Span(number, start, until, sentence, cut)
            said += [text for _, text in part.texts]

    # --- rows -------------------------------------------------------------------------------------------------------

    def _episode(self, path: Path, number: int, parts: Sequence[Part], span: _Span, rows: Sequence[Row]) -> Episode:
        joints, part = self.embodiment.joint_names, parts[span.part]
        state = np.array([[row.joints.get(name, np.nan) for name in joints] for row in rows], float)
        units = tuple("rad" if name not in _prismatic(self.embodiment) else "m" for name in joints)
        seconds = np.array([(row.tick_ns - rows[0].tick_ns) / NANOSECONDS for row in rows])
        columns = {
            "timestamp": Channels(seconds[:, None], ("timestamp",), ("s",)),
            STATE: Channels(state, joints, units),
        }
        defects = _in_conflict(part.conflicts, rows) | dict(_defects(parts, span, rows))
        if any(other.trajectories for other in parts):
            commanded, unknown = self._commanded(parts, span.part, rows, state)
            columns[ACTION] = Channels(commanded, joints, units)
            defects = unknown | defects
        if self.embodiment.base:
            columns |= _base_columns(parts, part, rows)
        return Episode(
            name=f"{path} episode {number}",
            instruction=span.sentence,
            rate_hz=self.rate_hz,
            columns=columns,
            images={tag: _BagImages(path, self, tag, rows) for tag in self.image_keys},
            place=lambda row: f"{path} episode {number} row {row} ({seconds[row]:.2f} s)",
            state=columns[STATE],
            actions=columns.get(ACTION),
            defects={"observation": defects} if defects else {},
        )

    def _commanded(
        self, parts: Sequence[Part], number: int, rows: Sequence[Row], state: np.ndarray
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Commanded joint positions one period after each row; before the first command, the measured ones.

        For a joint never commanded by a topic, such as a gripper with an action, the measured one a row later. Also
        returns the rows after an interruption at which it is unknown what is commanded.
        """
        joints = self.embodiment.joint_names
        times = np.array([row.stamp_ns for row in rows])

        turns = np.isin(joints, list(self._continuous))
        commands = CommandedPositions(
            joints, parts[number].trajectories, self._continuous, lambda time: _between(times, state, time, turns)
        )
        due = times + round(NANOSECONDS / self.rate_hz)
        measured = np.where(commands.known, state, next_rows(state))
        commanded = np.stack([commands.at(int(time), row) for time, row in zip(due, measured, strict=True)])
        told = {name for part in parts for trajectory in part.trajectories for name in trajectory.joints}
        unknown = (due[:, None] < commands.since_ns) & np.isin(joints, list(told)) & (number > 0)
        why = "what {} is commanded is unknown: nothing was since the recording was interrupted"
        bad = np.flatnonzero(unknown.any(axis=1)).tolist()
        return commanded, {row: why.format(", ".join(np.array(joints)[unknown[row]])) for row in bad}


class _BagImages:
    """One camera's images of an episode; read from the bag and decoded on access."""

    def __init__(self, path: Path, source: RosbagEpisodes, tag: str, rows: Sequence[Row]) -> None:
        self._path, self._tag, self._rows = path, tag, rows
        camera = next(camera for camera in source.embodiment.cameras if camera.tag == tag)
        self._streams = ObservationStreams(source.embodiment, [camera], source.options.topic)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> np.ndarray:
        reference = self._rows[row].chosen.get(self._tag)
        if reference is None:
            raise DatasetError(f"{self._path} row {row}: {self._rows[row].fault}")
        message = _opened(self._path).message(reference.topic, reference.log_ns, reference.place)
        try:
            return self._streams.decode(Observation(stamp_of(message), {self._tag: (message,)}))[self._tag]
        except DecodingError as error:
            raise DatasetError(f"{self._path} row {row}: {error}") from error


def _between(times: np.ndarray, state: np.ndarray, time: int, turns: np.ndarray) -> np.ndarray:
    """The state (T, n) at a time between those of its rows, linear; `turns` (n,): joints that are continuous."""
    after = min(int(np.searchsorted(times, time)), len(times) - 1)
    before = max(after - 1, 0)
    share = np.clip((time - times[before]) / max(1, times[after] - times[before]), 0, 1)
    step = state[after] - state[before]
    return state[before] + share * np.where(turns, wrapped(step), step)


def _marked(part: Part, inside: tuple[int, int] | None) -> Iterator[tuple[int, int, str]]:
    """Begin, end [ns] and own instruction of every marked episode; one without an end ends with the part."""
    if inside is None:
        return
    begun: tuple[int, Any] | None = None
    for time, mark in [*part.marks, (inside[1], None)]:
        if begun and (mark is None or mark != begun[1]):
            yield begun[0], time, begun[1].strip() if isinstance(begun[1], str) else ""
            begun = None
        if mark and begun is None:
            begun = (time, mark)


def _tasks(
    before: Sequence[str], texts: Sequence[tuple[int, str]], begin: int, end: int, marked: bool
) -> list[tuple[int, str]]:
    """The instructions of an episode [ns], each from when on it holds, the first one from the begin.

    before: said in earlier parts. Of what was said until the begin, only the last counts; nothing of it does if an
    episode is marked and its instruction follows the mark.
    """
    inside = [(time, text) for time, text in texts if begin < time <= end]
    earlier = [*before, *(text for time, text in texts if time <= begin)][-1:]
    tasks = [(begin, text) for text in earlier if not (marked and inside)]
    for time, text in inside:
        if not tasks or tasks[-1][1] != text:
            tasks.append((time if tasks else begin, text))
    return tasks


def _defects(parts: Sequence[Part], span: _Span, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
    """Rows without an observation, and those beside which something is lost."""
    if span.part and parts[span.part - 1].damaged:
        yield 0, f"the recording is interrupted before it: {parts[span.part - 1].ended}"
    yield from ((number, row.fault) for number, row in enumerate(rows) if row.fault)
    if span.cut:
        yield len(rows) - 1, f"the recording is interrupted after it: {span.cut}"


def _in_conflict(found: Sequence[Conflict], rows: Sequence[Row]) -> dict[int, str]:
    """Rows at which a joint is reported at two positions."""
    times = [row.stamp_ns for row in rows]
    inside = ((one, bisect.bisect_left(times, one.begin_ns), bisect.bisect_right(times, one.end_ns)) for one in found)
    return {row: one.text for one, first, end in inside for row in range(first, end)}


_OPEN: dict[Path, Bag] = {}


def _opened(path: Path) -> Bag:
    """An open bag; the last few stay open, for reading image by image."""
    if path not in _OPEN:
        while len(_OPEN) >= STAY_OPEN:
            _OPEN.pop(next(iter(_OPEN))).close()
        _OPEN[path] = Bag(path)
    return _OPEN[path]


def _check_columns(episodes: Sequence[Episode]) -> None:
    """DatasetError for bags of which only some have commands."""
    first = episodes[0]
    for episode in episodes:
        if different := set(episode.columns) ^ set(first.columns):
            names = ", ".join(sorted(different))
            raise DatasetError(
                f"only one of {first.name} and {episode.name} has {names}; record the same in all, or put them into "
                "separate folders"
            )


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


def _prismatic(embodiment: Embodiment) -> set[str]:
    joints = parse_urdf(embodiment.urdf).joints
    return {name for name in embodiment.joint_names if joints[name].type == "prismatic"}


def _base_columns(parts: Sequence[Part], part: Part, rows: Sequence[Row]) -> dict[str, Channels]:
    columns, times = {}, np.array([row.stamp_ns for row in rows])
    if any(other.measured.odometry for other in parts):
        poses = np.stack([np.full(3, np.nan) if row.base is None else row.base.vector for row in rows])
        columns[ODOMETRY] = Channels(poses, ("x", "y", "theta"), ("m", "m", "rad"))
    if any(other.twists for other in parts):
        columns[f"{ACTION}.velocity"] = Channels(
            _latest(part.twists, times, interrupted=part is not parts[0]), ("vx", "vy", "wz"), ("m/s", "m/s", "rad/s")
        )
    return columns


def _latest(samples: list[tuple[int, np.ndarray]], times: np.ndarray, interrupted: bool) -> np.ndarray:
    """The last value (3,) at or before each time; before the first, zero, or NaN after an interruption."""
    stamps = [time for time, _ in samples]
    first = np.full(3, np.nan if interrupted else 0.0)
    before = [bisect.bisect_right(stamps, time) for time in times]
    return np.stack([samples[k - 1][1] if k else first for k in before])
