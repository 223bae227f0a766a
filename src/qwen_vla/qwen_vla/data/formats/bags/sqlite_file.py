# SPDX-License-Identifier: Apache-2.0
"""A SQLite file of a bag: its topics, and its messages in the order in which they were written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qwen_vla.data.formats.bags.storage import LAST_TIME, Place, StoredMessage, StoredTopic
from qwen_vla.data.formats.episodes import DatasetError

MAGIC = b"SQLite format 3\x00"
DEFINITIONS = "SELECT topic_type, encoding, encoded_message_definition, type_description_hash FROM message_definitions"


class SqliteFile:
    """An open SQLite file: a `Storage`. Damage ends it: SQLite cannot tell what else is wrong."""

    def __init__(self, path: Path, number: int = 0, name: str = "") -> None:
        """Open it; number and name as in McapFile. DatasetError if it is not a bag's database, or damaged."""
        self._name, self._number, self.damages = name or str(path), number, []
        log = path.with_name(f"{path.name}-wal")
        if log.is_file() and log.stat().st_size:
            raise DatasetError(
                f"{self._name}: its recorder was killed, and the last messages are in {log.name}; move them into the "
                f"database: sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'"
            )
        self._database = sqlite3.connect(
            f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        try:
            self._topics = self._read_topics()
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> list[StoredTopic]:
        """As in the table of topics."""
        return list(self._topics.values())

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def messages(self, wanted: frozenset[str]) -> Iterator[StoredMessage]:
        """Messages of these topics; DatasetError where the database is damaged."""
        numbers = [number for number, topic in self._topics.items() if topic.name in wanted]
        marks = ",".join("?" * len(numbers))
        query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) ORDER BY id"
        for row, topic, time, data in self._rows(query, numbers):
            if not (isinstance(time, int) and 0 <= time <= LAST_TIME and isinstance(data, bytes)):
                raise DatasetError(f"{self._name} is damaged: message {row} has no time or no data; copy it again")
            yield StoredMessage(self._topics[topic], time, Place(self._number, row, 0), data)

    def span(self) -> tuple[int, int]:
        """First and last time of a message [ns]; the first is after the last without any."""
        ((first, last),) = self._rows("SELECT min(timestamp), max(timestamp) FROM messages")
        return (first, last) if isinstance(first, int) and isinstance(last, int) else (LAST_TIME, 0)

    def data(self, place: Place) -> bytes:
        """The content of a message."""
        for (data,) in self._rows("SELECT data FROM messages WHERE id = ?", [place.outer]):
            return data
        raise DatasetError(f"{self._name}: message {place.outer} has vanished; was the file changed?")

    def _read_topics(self) -> dict[int, StoredTopic]:
        tables = {name for (name,) in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"messages", "topics"} <= tables:
            raise DatasetError(f"{self._name} is not a bag: its database has no tables of messages and topics")
        defined = {}
        if "message_definitions" in tables:
            defined = {row[0]: row[1:] for row in self._rows(DEFINITIONS)}
        found = {}
        for number, name, kind, encoding in self._rows("SELECT id, name, type, serialization_format FROM topics"):
            texts = (name, kind, encoding, *defined.get(kind, ("", "", "")))
            if not all(isinstance(text, str) for text in texts):
                raise DatasetError(f"{self._name} is damaged: its topic {number} has no name or type; copy it again")
            found[number] = StoredTopic(*texts)
        return found

    def _rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._database.execute(query, values)
        except (sqlite3.Error, ValueError, OverflowError, MemoryError) as error:  # ValueError: text that is none
            raise DatasetError(f"{self._name} is damaged or was cut: {error}; copy it again") from error
