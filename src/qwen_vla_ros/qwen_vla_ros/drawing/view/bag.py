# SPDX-License-Identifier: Apache-2.0
"""Messages from a rosbag2 in MCAP or SQLite, including the episodes of episode_recorder. Free of rclpy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from embodiment_descriptions import Embodiment, known_robot, read_robot
from qwen_vla.json_files import read_json
from qwen_vla_ros.drawing.view.scene import CHUNK_TOPIC, Feed
from qwen_vla_ros.ros.embodiment_source import read_embodiment

DESCRIPTION = "robot_description"
ROBOT, CONFIG, RECORD = "robot.urdf", "embodiment.yaml", "episode.json"  # beside the bag of an episode


class Bag:
    """An open bag; a context manager.

    Attributes:
        namespace: of the robot: as given, or the episode's, or that of the first chunk topic.
        damage: why it could not be read to the end; empty when it could.
    """

    def __init__(self, path: Path, namespace: str = "") -> None:
        """Open it; ValueError when it is not a valid bag."""
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such bag (seen from {Path.cwd()})")
        self.path, self.damage = path, ""
        self._folder = path if path.is_dir() else path.parent
        try:
            self._reader = AnyReader([path], default_typestore=message_types())
            self._reader.open()
        except (AnyReaderError, OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be opened as a bag: {error}") from error
        self._remapped, recorded_in = _episode(self._folder)
        self.namespace = namespace.strip("/") or recorded_in.strip("/") or self._found_namespace()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._reader.close()

    def embodiment(self, config: str) -> Embodiment:
        """The robot of the bag: from the episode, its robot_description, or the name in its chunks.

        Args:
            config: YAML file of a robot that is not part of the suite, or "".

        Raises:
            ValueError: the bag does not identify it.
        """
        folder = self._folder
        if (folder / ROBOT).is_file() and (config or (folder / CONFIG).is_file()):
            return read_robot(folder / ROBOT, config or folder / CONFIG)
        if message := self._first(DESCRIPTION):
            return read_embodiment(message.data, config)
        if message := self._first(CHUNK_TOPIC):
            return known_robot(message.embodiment)
        reason = self.damage or f"no {DESCRIPTION} and no chunk"
        raise ValueError(f"{self.path} does not identify its robot: {reason}; specify --robot")

    def play(self, feeds: tuple[Feed, ...]) -> int:
        """Pass on every message in the order of the bag, up to any damage; returns their number.

        Raises:
            ValueError: none of the topics is in the bag.
        """
        takers = {self.topic(feed.topic): feed for feed in feeds}
        if not any(connection.topic in takers for connection in self._reader.connections):
            there = ", ".join(sorted({connection.topic for connection in self._reader.connections}))
            raise ValueError(f"{self.path} has none of {', '.join(takers)}; it has {there or 'nothing'}")
        count = 0
        try:
            for topic, message in self._messages(set(takers)):
                takers[topic].take(message)
                count += 1
        except ReaderError as error:
            self.damage = f"{self.path} is damaged after {count} messages: {error}"
        expected = sum(connection.msgcount for connection in self._reader.connections if connection.topic in takers)
        if count < expected and not self.damage:  # the reader does not report that an MCAP chunk ends early
            self.damage = f"{self.path} is damaged after {count} messages; it should have {expected} on these topics"
        return count

    def topic(self, name: str) -> str:
        """The name in the bag of a topic of the robot."""
        if name in self._remapped:
            return self._remapped[name]
        return name if name.startswith("/") else "/".join(("", *filter(None, (self.namespace, name))))

    def _found_namespace(self) -> str:
        topics = sorted(connection.topic for connection in self._reader.connections)
        return next((t.removesuffix(CHUNK_TOPIC).strip("/") for t in topics if t.endswith(f"/{CHUNK_TOPIC}")), "")

    def _messages(self, topics: set[str]) -> Iterator[tuple[str, Any]]:
        wanted = [connection for connection in self._reader.connections if connection.topic in topics]
        try:
            for connection, _, data in self._reader.messages(connections=wanted) if wanted else ():
                yield connection.topic, self._deserialize(connection, data)
        except (OverflowError, struct.error) as error:  # sizes read from damaged bytes
            raise ReaderError(f"a record of impossible size ({error})") from error

    def _first(self, name: str) -> Any:
        """The first message of a topic, None where the readable part has none."""
        try:
            return next((message for _, message in self._messages({self.topic(name)})), None)
        except ReaderError as error:
            self.damage = f"{self.path} is damaged: {error}"
            return None

    def _deserialize(self, connection: Connection, data: bytes) -> Any:
        """Fast CDR leaves up to eight bytes after some messages, which rosbags would reject."""
        for extra in (0, 4, 8):
            try:
                return self._reader.deserialize(data[: len(data) - extra], connection.msgtype)
            except AnyReaderError as error:
                reason = error
        raise ValueError(f"{self.path}: a message on {connection.topic} cannot be read: {reason}") from reason


class EpisodeRecord(BaseModel):
    """What is needed of the record that episode_recorder writes beside its bag."""

    remapped: dict[str, str] = {}
    namespace: str = ""


def _episode(folder: Path) -> tuple[dict[str, str], str]:
    """Remapped topics and namespace of an episode of episode_recorder; empty for any other bag."""
    if not (folder / RECORD).is_file():
        return {}, ""
    record = read_json(folder / RECORD, EpisodeRecord, "remove it to read the bag without")
    return record.remapped, record.namespace


def message_types():
    """Message types for bags without their own: those of ROS, and ours where installed."""
    store = get_typestore(Stores.ROS2_KILTED)
    try:
        from ament_index_python.packages import get_package_share_directory

        folder = Path(get_package_share_directory("qwen_vla_msgs"), "msg")
    except (ImportError, LookupError, OSError):  # OSError: no AMENT_PREFIX_PATH
        return store
    own: dict = {}
    for path in folder.glob("*.msg"):
        own |= get_types_from_msg(path.read_text(), f"qwen_vla_msgs/msg/{path.stem}")
    store.register(own)
    return store
