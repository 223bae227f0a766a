# SPDX-License-Identifier: Apache-2.0
"""Writes one episode: accepts serialized messages and writes them in a thread of its own. Free of rclpy.

Twice a second, all messages received so far are flushed to the operating system, so that a killed process leaves a file
that is complete up to then, and synced to the disk, so that a power failure costs little more.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mcap.writer import Writer
from rich.filesize import decimal

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.recordings import (
    CHUNK_SIZE,
    COMPRESSIONS,
    HASH_KEY,
    PROFILE,
    QOS_KEY,
    UNFINISHED,
    WRITER,
    EpisodeRecord,
    TopicCount,
    bag_file,
    finish,
    lock,
    utc_now,
    write_robot,
)
from qwen_vla.output_files import free_bytes, no_room

FLUSH_PERIOD = 0.5  # [s] at most this much of an episode is lost when the process is killed
GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class TopicFormat:
    """The bag's entry of a topic: type (pkg/msg/Name), definition including all types it uses, QoS as YAML, hash."""

    name: str
    type: str
    definition: str
    qos: str
    type_hash: str


def too_full(folder: Path, min_free: float) -> str:
    """Return a message when less than `min_free` [GB] is free on the disk of a folder; empty otherwise."""
    free, kept = free_bytes(folder), int(min_free * GIGABYTE)
    return f"{decimal(free)} free in {folder}, {decimal(kept)} required" if free < kept else ""


class EpisodeFile:
    """An episode being recorded, in NAME.recording until it is finished.

    The methods are called from one thread, the node's.

    Attributes:
        record: the contents of episode.json; replaced as a whole.
        counts, dropped: messages by topic, accepted and rejected.
        problem: why the recording aborted; empty when it did not. Without a folder, it can then be repaired.
        folder: of the finished episode; None before, when it was discarded, or after a problem.
    """

    def __init__(
        self,
        parent: Path,
        record: EpisodeRecord,
        embodiment: Embodiment,
        compression: str,
        buffer_bytes: int,
        min_free: float,
        ended: Callable[[], object],
    ) -> None:
        """Create folder and file, and start; OSError when that fails.

        Args:
            parent: folder of the episodes.
            embodiment: stored with it.
            embodiment: kept beside it.
            buffer_bytes: messages that may wait for the disk; beyond it they are rejected.
            buffer_bytes: messages that may wait for the disk; more are turned away.
            min_free: the recording ends when less space is free on the disk [GB].
            ended: called in the writing thread when the files are final.
        """
        self.record = record
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.problem = ""
        self.folder: Path | None = None
        self.size = 0  # [bytes] of the messages
        self._unfinished = parent / f"{record.name}{UNFINISHED}"
        self._unfinished.mkdir(parents=True)
        try:
            record.write(self._unfinished)
            write_robot(self._unfinished, embodiment)
            self._stream = bag_file(self._unfinished).open("xb")
            lock(self._stream)
        except OSError:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            raise
        self._writer = Writer(self._stream, CHUNK_SIZE, COMPRESSIONS[compression])
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._buffer_bytes, self._min_free, self._written = buffer_bytes, min_free, 0
        self._keep, self._why, self._ended = True, "", ended
        self._concluding, self._concluded = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="episode file")
        self._thread.start()

    # For the node -----------------------------------------------------------------------------------------------------

    def add_topic(self, topic: TopicFormat) -> None:
        """Add a topic; once, before its first message."""
        self._queue.put(topic)

    def put(self, topic: str, data: bytes, arrival_ns: int, published_ns: int) -> bool:
        """Accept a serialized message; when too many wait for the disk, count it as dropped and return False."""
        if self.size - self._written + len(data) > self._buffer_bytes:
            self.dropped[topic] += 1
            return False
        self.size += len(data)
        self.counts[topic] += 1
        self._queue.put((topic, data, arrival_ns, published_ns))
        return True

    def relabel(self, **changes: object) -> bool:
        """Change episode.json at once, so that the change survives a crash. False when the episode is finished."""
        with self._concluding:
            if self._concluded:
                return False
            self.record = self.record.model_copy(update=changes)
            self.record.write(self._unfinished)
            return True

    def end(self, why: str, keep: bool = True) -> None:
        """Write the buffer and finish, or discard everything; only the first call counts. Then `ended` is called."""
        if not self._why:
            self._keep, self._why = keep, why
            self._queue.put(None)

    @property
    def ending(self) -> bool:
        """Whether the end was requested, or the recording aborted."""
        return bool(self._why) or self._concluded

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    # In the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._stream, ThreadPoolExecutor(1, "to disk") as disk:
                why = self._write(disk)
                if self._keep:
                    self._writer.finish()
            with self._concluding:
                self._concluded = True
                self._conclude(why)
        except Exception as error:  # full or broken disk; reported, since the thread ends
            self.problem = f"{self._unfinished} aborted: {no_room(error, bag_file(self._unfinished)) or error}"
        finally:
            self._ended()

    def _conclude(self, why: str) -> None:
        if not self._keep or not self.counts:
            shutil.rmtree(self._unfinished)
            self.problem = f"{self.record.name} has no messages and was not kept" if self._keep else ""
            return
        dropped = {topic: TopicCount(type="", messages=0, dropped=count) for topic, count in self.dropped.items()}
        changes = {"ended": why, "stopped": utc_now(), "topics": dropped}
        self.folder = finish(self._unfinished, self.record.model_copy(update=changes))

    def _write(self, disk: ThreadPoolExecutor) -> str:
        """Write until the end is requested, or the disk is nearly full; returns why it ended."""
        self._writer.start(PROFILE, WRITER)
        syncing: Future | None = None
        flush_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= flush_at:
                self._writer.flush()
                syncing = _sync_behind(disk, self._stream, syncing)
                if full := too_full(self._unfinished.parent, self._min_free):
                    self.problem = f"the disk is nearly full: {full}"
                    return self.problem
                flush_at = now + FLUSH_PERIOD
            try:
                item = self._queue.get(timeout=flush_at - now)
            except queue.Empty:
                continue
            if item is None:
                return self._why
            self._take(item)

    def _take(self, item: TopicFormat | tuple[str, bytes, int, int]) -> None:
        if isinstance(item, TopicFormat):
            if item.type not in self._schemas:
                self._schemas[item.type] = self._writer.register_schema(
                    item.type, "ros2msg", item.definition.encode("utf-8")
                )
            about = {QOS_KEY: item.qos, HASH_KEY: item.type_hash}
            self._channels[item.name] = self._writer.register_channel(item.name, "cdr", self._schemas[item.type], about)
            return
        topic, data, arrival_ns, published_ns = item
        self._writer.add_message(self._channels[topic], arrival_ns, data, published_ns)
        self._written += len(data)


def _sync_behind(disk: ThreadPoolExecutor, stream: IO[bytes], last: Future | None) -> Future:
    """Sync what was flushed to the disk in another thread, unless the previous sync is still running."""
    if last is not None and not last.done():
        return last
    if last is not None:
        last.result()  # a disk error ends the recording
    return disk.submit(os.fdatasync, stream.fileno())
