"""One episode on its way to the disk: takes serialized messages in, writes them in a thread of its own. Free of rclpy.

Twice a second everything that has come is handed to the operating system, so that a killed process leaves a file that
is complete up to that moment, and from there to the disk, so that after a power cut little more is missing.
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
from qwen_vla.data.recordings import (
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
    """What a bag says about a topic: type (pkg/msg/Name), definition with all that it uses, QoS as YAML, hash."""

    name: str
    type: str
    definition: str
    qos: str
    type_hash: str


def too_full(folder: Path, min_free: float) -> str:
    """What to say when less than `min_free` [GB] is free on the disk of a folder; otherwise nothing."""
    free, kept = free_bytes(folder), int(min_free * GIGABYTE)
    return f"{decimal(free)} are free in {folder}, {decimal(kept)} must stay so" if free < kept else ""


class EpisodeFile:
    """An episode that is being recorded, in NAME.recording until it is finished.

    The methods are called from one thread, that of the node.

    Attributes:
        record: what episode.json will say; replaced as a whole.
        counts, dropped: messages by topic, taken in and turned away.
        problem: why the recording ended by itself; empty when it did not. Without a folder then it can be mended.
        folder: of the finished episode; None before, when it was thrown away, or after a problem.
    """

    def __init__(
        self,
        parent: Path,
        record: EpisodeRecord,
        embodiment: Embodiment,
        compression: str,
        buffer_bytes: int,
        min_free: float,
        ended: Callable[[], None],
    ) -> None:
        """Create folder and file, and begin; OSError when that cannot be.

        Args:
            parent: folder of the episodes.
            record: names the episode.
            embodiment: kept beside it.
            compression: one of COMPRESSIONS.
            buffer_bytes: messages that may wait for the disk; more are turned away.
            min_free: the recording ends when less room is left on the disk [GB].
            ended: called in the writing thread when nothing more will happen to the files.
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
        """Make a topic known; before its first message, and once."""
        self._queue.put(topic)

    def put(self, topic: str, data: bytes, arrival_ns: int, published_ns: int) -> bool:
        """Take in a serialized message; False, and counted, when too many are waiting for the disk."""
        if self.size - self._written + len(data) > self._buffer_bytes:
            self.dropped[topic] += 1
            return False
        self.size += len(data)
        self.counts[topic] += 1
        self._queue.put((topic, data, arrival_ns, published_ns))
        return True

    def relabel(self, **changes: object) -> bool:
        """Change what episode.json says, at once: it is to hold after a crash, too. False when it is finished."""
        with self._concluding:
            if self._concluded:
                return False
            self.record = self.record.model_copy(update=changes)
            self.record.write(self._unfinished)
            return True

    def end(self, why: str, keep: bool = True) -> None:
        """Write what is waiting and finish, or throw everything away; the first call counts. `ended` tells when."""
        if not self._why:
            self._keep, self._why = keep, why
            self._queue.put(None)

    @property
    def ending(self) -> bool:
        """Whether the end was asked for, or has come by itself."""
        return bool(self._why) or self._concluded

    def join(self) -> None:
        """Wait for the end of the thread."""
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
        except Exception as error:  # full or broken disk; without the thread nobody would say so
            self.problem = f"{self._unfinished} broke off: {no_room(error, bag_file(self._unfinished)) or error}"
        finally:
            self._ended()

    def _conclude(self, why: str) -> None:
        if not self._keep or not self.counts:
            shutil.rmtree(self._unfinished)
            self.problem = f"{self.record.name} holds no message and was not kept" if self._keep else ""
            return
        dropped = {topic: TopicCount(type="", messages=0, dropped=count) for topic, count in self.dropped.items()}
        changes = {"ended": why, "stopped": utc_now(), "topics": dropped}
        self.folder = finish(self._unfinished, self.record.model_copy(update=changes))

    def _write(self, disk: ThreadPoolExecutor) -> str:
        """Write until the end is asked for, or the disk is nearly full; returns why it ended."""
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
    """Have what was flushed brought to the disk in another thread, unless the last time is not over yet."""
    if last is not None and not last.done():
        return last
    if last is not None:
        last.result()  # an error of the disk ends the recording
    return disk.submit(os.fdatasync, stream.fileno())
