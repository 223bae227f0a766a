# SPDX-License-Identifier: Apache-2.0
"""What the files of a bag have in common: topics, places of messages, damage, and bounded decompression.

Messages come in the order in which they were written, which tells when the recorder's clock was set back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import lz4.frame
import zstandard

from qwen_vla.data.formats.episodes import DatasetError

ZSTD = b"\x28\xb5\x2f\xfd"  # first bytes of a compressed file or message; a serialized message starts with 0
LAST_TIME = 2**62  # [ns] in 2116; no message is later
MOST_BYTES = 1 << 28  # of a chunk or a message; a damaged or hostile file can claim any number


class StoredTopic(NamedTuple):
    """A topic as a file defines it.

    definition: of its type, in `format` ("ros2msg" or "ros2idl"), "" if the file has none. digest: hash of the type.
    """

    name: str
    type: str
    encoding: str = "cdr"
    format: str = ""
    definition: str = ""
    digest: str = ""


class Place(NamedTuple):
    """Where a message lies: number of the file, and two numbers of its storage."""

    file: int
    outer: int
    inner: int


class StoredMessage(NamedTuple):
    """A message as it lies in a file; log_ns: when it was recorded [ns, the recorder's clock]."""

    topic: StoredTopic
    log_ns: int
    place: Place
    data: bytes


@dataclass(frozen=True)
class Damage:
    """Messages between two times [ns, the recorder's clock] that are lost, and why."""

    begin_ns: int
    end_ns: int
    why: str


class Storage(Protocol):
    """An open file of a bag. `damages` grows while messages are read."""

    damages: list[Damage]

    @property
    def topics(self) -> list[StoredTopic]: ...

    def messages(self, wanted: frozenset[str]) -> Iterator[StoredMessage]: ...  # of these topics

    def span(self) -> tuple[int, int]: ...  # first and last time of a message [ns]

    def data(self, place: Place) -> bytes: ...

    def close(self) -> None: ...


class Unreadable(ValueError):
    """Bytes that are not what they should be; the message says what is wrong."""


def decompressed(data: bytes, kind: str, size: int | None = None) -> bytes:
    """Decompress zstd, lz4 or "" (not compressed).

    Args:
        data: one compressed frame.
        kind: its compression.
        size: of the result, where it is known [bytes].

    Raises:
        Unreadable: damaged, of another size, or larger than any message.
    """
    limit = MOST_BYTES if size is None else size
    if limit > MOST_BYTES:
        raise Unreadable(f"it claims {limit} bytes")
    try:
        result = _EXPANDERS[kind](data, limit)
    except KeyError:
        raise Unreadable(f"its compression {kind!r} is not known; use zstd, lz4 or none") from None
    except (zstandard.ZstdError, RuntimeError, EOFError, MemoryError) as error:
        raise Unreadable(f"it cannot be decompressed: {error}") from error
    if size is not None and len(result) != size:
        raise Unreadable(f"it has {len(result)} bytes, not {size}")
    return result


def _from_zstd(data: bytes, limit: int) -> bytes:
    if zstandard.frame_content_size(data) > limit:  # -1 where the frame does not say
        raise Unreadable("its size is not what it claims")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=limit)


def _from_lz4(data: bytes, limit: int) -> bytes:
    return lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit)


_EXPANDERS = {"": lambda data, _: data, "zstd": _from_zstd, "lz4": _from_lz4}


def expand(source: Path, target: Path) -> None:
    """Decompress a zstd file; DatasetError if it is damaged or was cut."""
    with source.open("rb") as packed, target.open("wb") as out:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            while piece := packed.read(8192):
                while piece:
                    if frame.eof:  # another frame follows
                        frame = zstandard.ZstdDecompressor().decompressobj()
                    out.write(frame.decompress(piece))
                    piece = frame.unused_data
        except zstandard.ZstdError as error:
            raise DatasetError(f"{source} is damaged: it cannot be decompressed ({error}); copy it again") from error
    if not frame.eof:
        raise DatasetError(f"{source} was cut: its compressed data end too early; copy it again")
