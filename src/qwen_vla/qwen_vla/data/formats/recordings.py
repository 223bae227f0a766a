# SPDX-License-Identifier: Apache-2.0
"""Episodes of episode_recorder: a folder each, with a rosbag2 in MCAP and everything needed to read it.

    widowx_20261122-101500/
        widowx_20261122-101500_0.mcap     messages of the topics
        metadata.yaml                     makes the folder a rosbag2; written last
        episode.json                      `EpisodeRecord`
        embodiment.yaml, robot.urdf       the robot at that time

During recording the folder is called NAME.recording. A killed recorder leaves it behind: its file is truncated, and
`mend` turns all complete messages into an episode. Free of ROS.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import yaml
import zstandard
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, McapRecord, Message, Schema, Statistics
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.summary import Summary
from mcap.writer import CompressionType, Writer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.filesize import decimal

from embodiment_descriptions import Embodiment, read_robot
from embodiment_descriptions.config import EmbodimentConfig
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.output_files import complete_or_absent, free_bytes, write_json, write_text

UNFINISHED = ".recording"
RECORD, METADATA, ROBOT, CONFIG = "episode.json", "metadata.yaml", "robot.urdf", "embodiment.yaml"
INTERRUPTED = "the recorder was killed"
PROFILE, WRITER = "ros2", "qwen_vla_ros"
CHUNK_SIZE = 1 << 20  # [bytes] read and decompressed at a time
COMPRESSIONS = {"none": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}
STORED = {"": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}  # names in a file
QOS_KEY, HASH_KEY = "offered_qos_profiles", "topic_type_hash"  # of a channel, in rosbag2's terms
BAG_VERSION = 9
# Errors of reading where a killed recorder stopped writing.
TORN = (McapError, struct.error, ValueError, zstandard.ZstdError, RuntimeError, EOFError)


class TopicCount(BaseModel):
    """Recorded messages of one topic; dropped: messages lost because the disk was too slow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    messages: int
    dropped: int = 0


class RecordedPolicy(BaseModel):
    """The policy of an episode, as in `qwen_vla.policies.identity.PolicyIdentity`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    hash: str
    protocol: str
    embodiment: str


class EpisodeRecord(BaseModel):
    """The content of episode.json. Times are UTC, ISO 8601; `success` is None until it is labeled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    robot: str
    instruction: str = ""
    policy: RecordedPolicy | None = Field(default=None, description="of the first chunk; None: there was none")
    success: bool | None = None
    note: str = ""
    namespace: str = ""
    remapped: dict[str, str] = Field(default={}, description="topics whose names differ from embodiment.yaml")
    started: str
    stopped: str | None = None
    seconds: float | None = Field(default=None, description="from the first to the last message")
    ended: str | None = Field(default=None, description="why the recording ended, as text")
    topics: dict[str, TopicCount] = {}

    def write(self, folder: Path) -> None:
        """Replace episode.json atomically."""
        write_json(folder / RECORD, self.model_dump())


@dataclass(frozen=True)
class RecordedEpisode:
    """A finished episode: its folder and the content of episode.json."""

    folder: Path
    record: EpisodeRecord

    def embodiment(self) -> Embodiment:
        """The robot at that time; EmbodimentError if its files were changed and are inconsistent."""
        return read_robot(self.folder / ROBOT, self.folder / CONFIG)


def utc_now() -> str:
    """The current time for an EpisodeRecord."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_record(folder: Path) -> EpisodeRecord:
    """episode.json of a folder; DatasetError if it is missing or corrupt."""
    try:
        return EpisodeRecord.model_validate_json((folder / RECORD).read_bytes())
    except OSError as error:
        raise DatasetError(f"{folder}: no {RECORD} ({error.strerror}); not an episode of episode_recorder") from error
    except ValidationError as error:
        raise DatasetError(f"{folder / RECORD} is corrupt: {error}") from error


def is_recorded(folder: Path) -> bool:
    """Whether a folder is a finished episode of episode_recorder."""
    return (folder / RECORD).is_file() and (folder / METADATA).is_file()


def write_robot(folder: Path, embodiment: Embodiment) -> None:
    """Save URDF and YAML of the robot beside its episode."""
    config = embodiment.model_dump(mode="json", include=set(EmbodimentConfig.model_fields))
    write_text(folder / ROBOT, embodiment.urdf)
    write_text(folder / CONFIG, yaml.safe_dump(config, sort_keys=False))


def unfinished(folder: Path) -> list[Path]:
    """The recordings in a folder that were not finished: still running, or left by a recorder that was killed."""
    return sorted(path for path in folder.glob(f"*{UNFINISHED}") if path.is_dir())


def bag_file(folder: Path) -> Path:
    """The MCAP file of an episode, finished or not."""
    return folder / f"{folder.name.removesuffix(UNFINISHED)}_0.mcap"


def lock(stream: IO[bytes]) -> None:
    """Lock a file for writing, until it is closed or its process dies; BlockingIOError if another process holds it."""
    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- finishing --------------------------------------------------------------------------------------------------------


def mend(folder: Path) -> Path:
    """Finish a recording whose recorder was killed: keeps every completely written message.

    Returns the folder of the episode, without `.recording` in its name. After an error everything is unchanged.

    Raises:
        DatasetError: it is being recorded, has no complete message, or the disk is full.
    """
    file = bag_file(folder)
    record = read_record(folder)
    try:
        with file.open("rb") as torn:
            lock(torn)
            if not _is_complete(file):
                _rewrite(file, torn)
    except BlockingIOError as error:
        raise DatasetError(f"{folder} is being recorded; stop the recording first") from error
    except OSError as error:
        raise DatasetError(f"{folder} cannot be repaired: {error}") from error
    return finish(folder, record.model_copy(update={"ended": record.ended or INTERRUPTED}))


def finish(folder: Path, record: EpisodeRecord) -> Path:
    """Turn NAME.recording with a complete MCAP file into an episode; returns the renamed folder."""
    summary, statistics = _summary(bag_file(folder))
    seconds = (statistics.message_end_time - statistics.message_start_time) / 1e9
    dropped = {topic: count.dropped for topic, count in record.topics.items()}
    topics = {
        channel.topic: TopicCount(
            type=summary.schemas[channel.schema_id].name,
            messages=statistics.channel_message_counts.get(channel.id, 0),
            dropped=dropped.get(channel.topic, 0),
        )
        for channel in summary.channels.values()
    }
    changes = {"topics": topics, "seconds": round(seconds, 3), "stopped": record.stopped or utc_now()}
    record.model_copy(update=changes).write(folder)
    text = yaml.safe_dump(_metadata(bag_file(folder).name, summary, statistics), sort_keys=False)
    write_text(folder / METADATA, text)
    for path in folder.iterdir():
        _sync(path)
    finished = folder.with_name(folder.name.removesuffix(UNFINISHED))
    os.rename(folder, finished)
    _sync(finished.parent)
    return finished


def _is_complete(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            summary = make_reader(stream).get_summary()
    except TORN:
        return False
    return summary is not None and summary.statistics is not None


def _summary(file: Path) -> tuple[Summary, Statistics]:
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    if summary is None or summary.statistics is None or not summary.statistics.message_count:
        raise DatasetError(f"{file}: no message was recorded")
    return summary, summary.statistics


def _rewrite(file: Path, torn: IO[bytes]) -> None:
    """Copy all complete records into a new file with an index, and replace the old one."""
    size, free = file.stat().st_size, free_bytes(file)
    if free < size:
        raise DatasetError(f"{file}: repair needs {decimal(size)}, {decimal(free)} are free")
    with complete_or_absent(file) as temporary:
        with temporary.open("wb") as out:
            copied = _copy(torn, out)
        if not copied:
            raise DatasetError(f"{file}: the recorder was killed before it wrote a message; delete the folder")


def _copy(torn: IO[bytes], out: IO[bytes]) -> int:
    """Write the complete records as a new MCAP file; returns the number of messages."""
    writer: Writer | None = None
    schemas: dict[int, int] = {}
    channels: dict[int, int] = {}
    count = 0
    for compression, record in _complete_records(torn):
        if writer is None:
            writer = Writer(out, CHUNK_SIZE, compression)
            writer.start(PROFILE, WRITER)
        if isinstance(record, Schema) and record.id not in schemas:
            schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
        elif isinstance(record, Channel) and record.id not in channels:
            schema = schemas[record.schema_id]
            channels[record.id] = writer.register_channel(
                record.topic, record.message_encoding, schema, record.metadata
            )
        elif isinstance(record, Message):
            writer.add_message(
                channels[record.channel_id], record.log_time, record.data, record.publish_time, record.sequence
            )
            count += 1
    if writer is not None:
        writer.finish()
    return count


def _complete_records(stream: IO[bytes]) -> Iterator[tuple[CompressionType, McapRecord]]:
    """Every record of every chunk up to the truncation of the file, with the chunk's compression."""
    records = iter(StreamReader(stream, emit_chunks=True).records)
    while True:
        try:
            record = next(records)
            if not isinstance(record, Chunk):
                continue
            inside = breakup_chunk(record, validate_crc=True)
        except (StopIteration, *TORN):
            return
        yield from ((STORED[record.compression], one) for one in inside)


def _metadata(file_name: str, summary: Summary, statistics: Statistics) -> dict[str, Any]:
    """The content of metadata.yaml, in rosbag2's format."""
    span = {
        "starting_time": {"nanoseconds_since_epoch": statistics.message_start_time},
        "duration": {"nanoseconds": statistics.message_end_time - statistics.message_start_time},
        "message_count": statistics.message_count,
    }
    topics = [
        {
            "topic_metadata": _topic_metadata(channel, summary.schemas),
            "message_count": statistics.channel_message_counts.get(channel.id, 0),
        }
        for channel in summary.channels.values()
    ]
    information = {
        "version": BAG_VERSION,
        "storage_identifier": "mcap",
        "relative_file_paths": [file_name],
        **span,
        "topics_with_message_count": topics,
        "compression_format": "",
        "compression_mode": "",
        "files": [{"path": file_name, **span}],
        "custom_data": None,
        "ros_distro": "",
    }
    return {"rosbag2_bagfile_information": information}


def _topic_metadata(channel: Channel, schemas: Mapping[int, Schema]) -> dict[str, Any]:
    return {
        "name": channel.topic,
        "type": schemas[channel.schema_id].name,
        "serialization_format": channel.message_encoding,
        "offered_qos_profiles": yaml.safe_load(channel.metadata.get(QOS_KEY, "")) or [],
        "type_description_hash": channel.metadata.get(HASH_KEY, ""),
    }


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
