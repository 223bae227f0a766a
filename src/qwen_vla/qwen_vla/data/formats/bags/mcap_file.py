# SPDX-License-Identifier: Apache-2.0
"""An MCAP file of a bag: its topics, and its messages in the order of the file.

The index at the end of the file is used where it is valid, else the records are walked. Chunks with a wrong checksum or
content are left out and reported as damage; all others are read.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, Schema

from qwen_vla.data.formats.bags.storage import (
    LAST_TIME,
    MOST_BYTES,
    Damage,
    Place,
    StoredMessage,
    StoredTopic,
    Unreadable,
    decompressed,
)
from qwen_vla.data.formats.episodes import DatasetError

MAGIC = b"\x89MCAP0\r\n"
RECORD = struct.Struct("<BQ")  # opcode, length
FOOTER = struct.Struct("<BQQQI")  # opcode, length, begin of the summary, of its offsets, checksum of the summary
MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, recorded, published
UNCHUNKED = -1
DIGEST = "topic_type_hash"  # metadata of a channel, by rosbag2
CHUNKS_KEPT = 4  # decompressed, for reading image by image
MALFORMED = (McapError, struct.error, ValueError, OverflowError, MemoryError)  # of a record

Read = Callable[[int, int], bytes]  # bytes from an offset, as many


@dataclass(frozen=True)
class _Chunk:
    """Where a chunk's record begins and ends, its times [ns], and its channels; None: not known."""

    begin: int
    end: int
    first_ns: int
    last_ns: int
    channels: frozenset[int] | None = None


class McapFile:
    """An open MCAP file: a `Storage`."""

    def __init__(self, path: Path, number: int = 0, name: str = "") -> None:
        """Open it.

        Args:
            path: of the file.
            number: of the file in its bag.
            name: of the file for messages, if it is a decompressed copy.

        Raises:
            DatasetError: it is not an MCAP file, or it was cut.
        """
        self._name, self._number = name or str(path), number
        self._stream = path.open("rb")
        self._size = path.stat().st_size
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, StoredTopic] = {}
        self._chunks: list[_Chunk] = []
        self._loose = False  # whether there are messages outside of chunks
        self._kept: dict[int, bytes] = {}
        self.damages: list[Damage] = []
        try:
            self._open()
        except (Unreadable, OSError) as error:
            self.close()
            raise DatasetError(f"{self._name}: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> list[StoredTopic]:
        """One per channel."""
        return list(self._channels.values())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def messages(self, wanted: frozenset[str]) -> Iterator[StoredMessage]:
        """Messages of these topics, chunk by chunk; a damaged chunk is added to `damages` when it is reached."""
        channels = frozenset(number for number, topic in self._channels.items() if topic.name in wanted)
        if self._loose:
            yield from self._within(self._read, len(MAGIC), self._end, UNCHUNKED, channels)
        for number, chunk in enumerate(self._chunks):
            if chunk.channels is not None and not chunk.channels & channels:
                continue
            try:
                content = self._content(chunk)
                found = list(self._within(_bytes_of(content), 0, len(content), chunk.begin, channels))
            except Unreadable as error:
                if (damage := self._damage(number, str(error))) not in self.damages:
                    self.damages.append(damage)
            else:
                yield from found

    def span(self) -> tuple[int, int]:
        """First and last time of a message [ns]; the first is after the last without any."""
        times = [(chunk.first_ns, chunk.last_ns) for chunk in self._chunks if chunk.last_ns]
        if self._loose:
            times += [(m.log_ns, m.log_ns) for m in self.messages(frozenset(t.name for t in self.topics))]
        return min((first for first, _ in times), default=LAST_TIME), max((last for _, last in times), default=0)

    def data(self, place: Place) -> bytes:
        """The content of a message."""
        try:
            read = self._read
            if place.outer != UNCHUNKED:
                if place.outer not in self._kept:
                    chunk = next(chunk for chunk in self._chunks if chunk.begin == place.outer)
                    content = self._content(chunk)
                    while len(self._kept) >= CHUNKS_KEPT:
                        del self._kept[next(iter(self._kept))]
                    self._kept[place.outer] = content
                read = _bytes_of(self._kept[place.outer])
            _, length = RECORD.unpack(read(place.inner, RECORD.size))
            return read(place.inner + RECORD.size, length)[MESSAGE.size :]
        except (Unreadable, StopIteration, struct.error) as error:
            raise DatasetError(f"{self._name}: a message has vanished; was the file changed? {error}") from error

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._size < 2 * len(MAGIC) + FOOTER.size or self._read(self._size - len(MAGIC), len(MAGIC)) != MAGIC:
            raise Unreadable(
                "the MCAP file has no end: its recorder was killed, or it was not copied whole; copy it again, or keep "
                "what is there: mcap recover FILE -o NEW"
            )
        footer = self._size - len(MAGIC) - FOOTER.size
        opcode, length, summary, _, checksum = FOOTER.unpack(self._read(footer, FOOTER.size))
        self._end = footer
        whole = opcode == Opcode.FOOTER and length == FOOTER.size - RECORD.size
        if whole and len(MAGIC) < summary <= footer and self._read_index(summary, footer, checksum):
            return
        self._schemas, self._channels, self._chunks = {}, {}, []
        self._walk()

    def _read_index(self, begin: int, footer: int, checksum: int) -> bool:
        """Read the summary; False if it is damaged or does not index the messages."""
        covered = footer + FOOTER.size - 4  # the checksum includes the footer up to itself
        if covered - begin > MOST_BYTES or (checksum and zlib.crc32(self._read(begin, covered - begin)) != checksum):
            return False
        try:
            for opcode, at, end in _records(self._read, begin, footer):
                self._define(opcode, self._read, at, end)
                if opcode == Opcode.CHUNK_INDEX:
                    self._chunks.append(self._indexed(_parsed(ChunkIndex, self._read(at, end - at))))
        except Unreadable:
            return False
        self._chunks.sort(key=lambda chunk: chunk.begin)
        return bool(self._channels and self._schemas and self._chunks)

    def _indexed(self, index: ChunkIndex) -> _Chunk:
        begin, channels = index.chunk_start_offset, frozenset(index.message_index_offsets)
        if not len(MAGIC) <= begin <= begin + index.chunk_length <= self._end:
            raise Unreadable("a chunk lies outside of the file")
        end = begin + index.chunk_length
        return _Chunk(begin, end, index.message_start_time, index.message_end_time, channels or None)

    def _walk(self) -> None:
        """Find chunks and topics without an index."""
        for opcode, at, end in _records(self._read, len(MAGIC), self._end):
            if opcode == Opcode.DATA_END:
                return
            self._define(opcode, self._read, at, end)
            self._loose |= opcode == Opcode.MESSAGE
            if opcode != Opcode.CHUNK:
                continue
            first, last = struct.unpack("<QQ", self._read(at, 16)) if end - at >= 16 else (0, LAST_TIME)
            chunk = _Chunk(at - RECORD.size, end, first, last)
            self._chunks.append(chunk)
            try:
                content = self._content(chunk)
                for inner, begin, past in _records(_bytes_of(content), 0, len(content)):
                    self._define(inner, _bytes_of(content), begin, past)
            except Unreadable:  # reported when its messages are read
                continue

    def _define(self, opcode: int, read: Read, begin: int, end: int) -> None:
        """Take in a schema or a channel."""
        if opcode == Opcode.SCHEMA:
            schema = _parsed(Schema, read(begin, end - begin))
            self._schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = _parsed(Channel, read(begin, end - begin))
            schema = self._schemas.get(channel.schema_id)
            self._channels[channel.id] = StoredTopic(
                channel.topic,
                schema.name if schema else "",
                channel.message_encoding,
                schema.encoding if schema else "",
                schema.data.decode(errors="replace") if schema else "",
                channel.metadata.get(DIGEST, ""),
            )

    # --- reading ------------------------------------------------------------------------------------------------------

    def _within(
        self, read: Read, begin: int, end: int, outer: int, channels: frozenset[int]
    ) -> Iterator[StoredMessage]:
        for opcode, at, past in _records(read, begin, end):
            if opcode == Opcode.DATA_END:
                return
            if opcode != Opcode.MESSAGE:
                continue
            if past - at < MESSAGE.size:
                raise Unreadable("a message is too short")
            channel, _, log_ns, _ = MESSAGE.unpack(read(at, MESSAGE.size))
            if log_ns > LAST_TIME:
                raise Unreadable(f"a message was recorded at {log_ns} ns, long after our time")
            if channel not in self._channels:
                raise Unreadable(f"a message is of channel {channel}, which the file does not define")
            if channel in channels:
                place = Place(self._number, outer, at - RECORD.size)
                data = read(at + MESSAGE.size, past - at - MESSAGE.size)
                yield StoredMessage(self._channels[channel], log_ns, place, data)

    def _content(self, chunk: _Chunk) -> bytes:
        if chunk.end - chunk.begin > MOST_BYTES:
            raise Unreadable(f"it has {chunk.end - chunk.begin} bytes")
        record = self._read(chunk.begin, chunk.end - chunk.begin)
        opcode, length = RECORD.unpack_from(record)
        if opcode != Opcode.CHUNK or length != len(record) - RECORD.size:
            raise Unreadable("its header is damaged")
        parsed = _parsed(Chunk, record[RECORD.size :])
        content = decompressed(parsed.data, parsed.compression, parsed.uncompressed_size)
        if parsed.uncompressed_crc and zlib.crc32(content) != parsed.uncompressed_crc:
            raise Unreadable("its checksum is wrong")
        return content

    def _damage(self, number: int, why: str) -> Damage:
        """The damage of a chunk; where its own times cannot be true, from the chunk before to the one after it."""
        chunk, others = self._chunks[number], self._chunks
        begin, end = chunk.first_ns, chunk.last_ns
        if chunk.channels is None:  # its header may be what is damaged
            begin = others[number - 1].last_ns if number else 0
            end = others[number + 1].first_ns if number + 1 < len(others) else LAST_TIME
        return Damage(begin, max(begin, end), f"the chunk at byte {chunk.begin} is damaged: {why}")

    def _read(self, begin: int, count: int) -> bytes:
        if not 0 <= begin <= begin + count <= self._size:
            raise Unreadable(f"a record goes beyond the end of the file ({self._size} bytes)")
        data = os.pread(self._stream.fileno(), count, begin)
        if len(data) != count:
            raise Unreadable("the file became shorter while it was read")
        return data


def _bytes_of(content: bytes) -> Read:
    def read(begin: int, count: int) -> bytes:
        return content[begin : begin + count]

    return read


def _records(read: Read, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Opcode, begin and end of the content of every record between two offsets."""
    while begin < end:
        if end - begin < RECORD.size:
            raise Unreadable("its last record is cut")
        opcode, length = RECORD.unpack(read(begin, RECORD.size))
        begin += RECORD.size
        if length > end - begin:
            raise Unreadable(f"a record of {length} bytes does not fit")
        yield opcode, begin, begin + length
        begin += length


def _parsed(kind: type, content: bytes):
    """A record of mcap's."""
    try:
        return kind.read(ReadDataStream(BytesIO(content)))
    except MALFORMED as error:
        raise Unreadable(f"a {kind.__name__} is damaged: {error}") from error
