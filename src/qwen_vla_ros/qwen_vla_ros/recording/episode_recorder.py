# SPDX-License-Identifier: Apache-2.0
"""episode_recorder: records observations, commands and instructions, a folder per episode, for training and replay.

The node only stores serialized messages; the file is written in a thread of its own (recording_file). Between episodes
it subscribes to nothing, so that idling costs no time on the robot's computer.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.task import Future
from rich.filesize import decimal
from std_srvs.srv import Trigger

from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.recordings import (
    COMPRESSIONS,
    EpisodeRecord,
    RecordedPolicy,
    is_recorded,
    mend,
    read_record,
    unfinished,
    utc_now,
)
from qwen_vla.data.formats.spec import clean_text
from qwen_vla.output_files import free_bytes
from qwen_vla.output_paths import check_place
from qwen_vla_control.gate.chunk_schema import ChunkSchema, check_schema
from qwen_vla_control.node_interface import Endpoint, NodeInterface, answer_options
from qwen_vla_msgs.msg import ActionChunk, PolicyIdentity
from qwen_vla_msgs.srv import LabelEpisode, StartEpisode
from qwen_vla_rclpy.printable import printable
from qwen_vla_ros.recording.recording_file import GIGABYTE, EpisodeFile, too_full
from qwen_vla_ros.recording.recording_topics import (
    Need,
    UnknownType,
    WantedTopic,
    matching_qos,
    message_class,
    one_type,
    topic_format,
    wanted_topics,
)
from qwen_vla_ros.ros import lifecycle
from qwen_vla_ros.ros.chunk_messages import LARGEST_CHUNK, checked_instruction, chunk_from_message
from qwen_vla_ros.ros.diagnostics import diagnostic_array
from qwen_vla_ros.ros.parameters import Parameter

DISCOVERY_PERIOD = 0.5  # [s] steady, between two checks for new publishers
DIAGNOSTICS_PERIOD = 1.0  # [s] steady
SILENCE = 2.0  # [s] steady; a required topic silent for this long is reported
MEGABYTE = 1_000_000
LARGEST = 64 * MEGABYTE  # [bytes] of a recorded message
LONGEST_NOTE = 4000  # characters
STOPPED = "stopped by a service"
OUTCOMES = {
    LabelEpisode.Request.SUCCEEDED: True,
    LabelEpisode.Request.FAILED: False,
    LabelEpisode.Request.UNLABELLED: None,
}

PARAMETERS = (
    Parameter("folder", "~/qwen_vla_episodes", "Folder of the episodes; created if missing", read_only=True),
    Parameter("min_free_gb", 2.0, "Free disk space at which a recording ends [GB]", 0.0, 1e6),
    Parameter(
        "compression",
        "none",
        f"Compression of the files: {', '.join(COMPRESSIONS)}; camera images gain little",
        read_only=True,
    ),
    Parameter("extra_topics", "", "Additional topics to record, separated by spaces, e.g. tf tf_static"),
    Parameter(
        "buffer_mb", 256, "Buffer for messages not yet written; beyond it they are dropped and counted [MB]", 1, 65536
    ),
    Parameter("policy_node", "policy_node", "Node whose chunks are recorded", read_only=True),
    Parameter("executor_node", "executor_node", "Node whose accepted chunks and reports are recorded", read_only=True),
)

START = Endpoint("~/start", StartEpisode, "Start an episode")
STOP = Endpoint("~/stop", Trigger, "End and keep the episode")
DISCARD = Endpoint("~/discard", Trigger, "Discard the current episode, or the last one")
LABEL = Endpoint(
    "~/label", LabelEpisode, "Label an episode as succeeded or failed, correct its instruction, add a note"
)
RECORDED = Endpoint(
    "<all of the episode>",
    "any type",
    "While an episode is recorded: cameras, joint states, odometry and commands of the robot, chunks and reports, "
    "and extra_topics",
)

INTERFACE = NodeInterface(
    package="qwen_vla_ros",
    name="episode_recorder",
    docstring=__doc__,
    parameters=(*lifecycle.COMMON_PARAMETERS, *PARAMETERS),
    publishes=(lifecycle.DIAGNOSTICS,),
    subscribes=(lifecycle.ROBOT_DESCRIPTION, RECORDED),
    services=(START, STOP, DISCARD, LABEL),
    managed=True,
    example="-p autostart:=true",
)


class EpisodeRecorder(lifecycle.ManagedNode):
    """Lifecycle node with the services ~/start, ~/stop, ~/discard and ~/label; one episode at a time."""

    def __init__(self) -> None:
        """Create the node unconfigured."""
        super().__init__(INTERFACE.name, PARAMETERS)
        self._file: EpisodeFile | None = None
        self._ended: Future = Future()
        self._last: Path | None = None
        self._problem = ""
        self._wanted: dict[str, WantedTopic] = {}  # by resolved name
        self._open: dict[str, Subscription] = {}
        self._known: set[str] = set()  # topics already added to the file
        self._refused: set[str] = set()  # topics that cannot be recorded; logged once
        self._heard: dict[str, float] = {}  # [s, steady] time of the last message by topic
        self._counted: Counter[str] = Counter()

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Load the embodiment, check that the folder is writable, repair what a killed recorder left."""
        p = self.parameters
        if p.compression not in COMPRESSIONS:
            raise ValueError(f"compression {p.compression!r} is not one of: {', '.join(COMPRESSIONS)}")
        self._embodiment = self.read_embodiment()
        self._folder = check_place(Path(p.folder).expanduser())
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mend_leftovers()
        self._connect()
        free = decimal(free_bytes(self._folder))
        self.get_logger().info(f"ready for '{self._embodiment.name}': {free} free in {self._folder}")

    def _connect(self) -> None:
        # A response may have to wait for the file. Services in the default group would block everything else meanwhile.
        group = MutuallyExclusiveCallbackGroup()
        self.serve(START, self._on_start, callback_group=group)
        self.serve(STOP, self._on_stop, callback_group=group)
        self.serve(DISCARD, self._on_discard, callback_group=group)
        self.serve(LABEL, self._on_label, callback_group=group)
        self._diagnostics = self.publish_on(lifecycle.DIAGNOSTICS, 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period, callback in ((DISCOVERY_PERIOD, self._discover), (DIAGNOSTICS_PERIOD, self._diagnose)):
            self.keep(self.create_timer(period, callback, clock=steady), self.destroy_timer)
        self.resources.callback(self._wait_for_file)

    def stop(self, reason: lifecycle.StopReason) -> None:
        """Finish the current episode; the thread continues until it is on the disk."""
        if self._file is not None:
            self._close(self._file, reason.value)

    def _wait_for_file(self) -> None:
        if self._file is not None:
            self._file.join()

    def _mend_leftovers(self) -> None:
        """In a thread, because files of gigabytes are read."""

        def work() -> None:
            for folder in leftovers:
                try:
                    self.get_logger().warning(
                        f"{mend(folder)} was not finished: repaired up to its last complete second"
                    )
                except (DatasetError, OSError) as error:
                    self.get_logger().error(f"not repaired: {error}")

        if leftovers := unfinished(self._folder):
            mending = threading.Thread(target=work, name="mend")
            mending.start()
            self.resources.callback(mending.join)

    # Services -------------------------------------------------------------------------------------------------------

    def _on_start(self, request: StartEpisode.Request, response: StartEpisode.Response) -> StartEpisode.Response:
        try:
            response.message = self._start(str(request.instruction).strip())
            response.success = True
            response.episode = "" if self._file is None else self._file.record.name
        except (ValueError, OSError) as error:
            response.message = printable(error)
            self.get_logger().error(f"not recording: {error}")
        return response

    async def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._file is None:
            response.message = "no episode is being recorded"
            return response
        file = self._file
        self._close(file, STOPPED)
        await self._ended
        response.success = file.folder is not None
        response.message = self._summary(file)
        return response

    async def _on_discard(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        file = self._file
        last = self._last if self._last is not None and is_recorded(self._last) else None
        try:
            if file is not None:
                name = file.record.name
                self._close(file, "discarded", keep=False)
                await self._ended
                if file.folder is not None:  # it had already ended a moment before
                    shutil.rmtree(file.folder)
                    self._last = None
            elif last is not None:
                name = last.name
                shutil.rmtree(last)
                self._last = None
            else:
                raise ValueError("no episode to discard: none has been recorded since the node started")
        except (ValueError, OSError) as error:
            response.message = printable(error)
            return response
        response.success = True
        response.message = f"{name} was discarded"
        self.get_logger().info(response.message)
        return response

    async def _on_label(self, request: LabelEpisode.Request, response: LabelEpisode.Response) -> LabelEpisode.Response:
        try:
            changes = _changes(request)
            response.episode = await self._label(str(request.episode), changes)
            response.success = True
        except (ValueError, OSError) as error:
            response.message = printable(error)
        return response

    async def _label(self, episode: str, changes: dict) -> str:
        """Label the current episode or a finished one; returns its name."""
        file = self._file
        if file is not None and episode in ("", file.record.name):
            if file.relabel(**changes):
                return file.record.name
            await self._ended
        folder = self._last if not episode else self._folder / episode
        if folder is None:
            raise ValueError("no episode to label; specify its name")
        if folder.parent != self._folder or not is_recorded(folder):
            raise ValueError(f"no episode {episode!r} in {self._folder}")
        read_record(folder).model_copy(update=changes).write(folder)
        return folder.name

    # An episode -----------------------------------------------------------------------------------------------------

    def _start(self, instruction: str) -> str:
        """Start an episode; returns warnings; ValueError or OSError when refused."""
        p = self.parameters
        if not self.active:
            raise ValueError(f"{self.get_name()} is not active")
        if self._file is not None:
            raise ValueError(f"{self._file.record.name} is being recorded; stop or discard it first")
        if instruction:
            _trainable(instruction)
        if full := too_full(self._folder, p.min_free_gb):
            raise ValueError(f"{full}; free some space")
        topics = wanted_topics(self._embodiment, p.policy_node, p.executor_node, p.extra_topics.split())
        self._wanted = {self.resolve_topic_name(topic.name): topic for topic in topics}
        absent = {name: topic for name, topic in self._wanted.items() if not self.get_publishers_info_by_topic(name)}
        missing = [name for name, topic in absent.items() if topic.need is Need.REQUIRED]
        if missing:
            raise ValueError(f"not published: {', '.join(missing)}; an episode is useless without")
        self._file = EpisodeFile(
            self._folder,
            self._new_record(instruction),
            self._embodiment,
            p.compression,
            p.buffer_mb * MEGABYTE,
            p.min_free_gb,
            lambda: self.in_turn(self._on_ended),
        )
        self._ended, self._problem = Future(), ""
        self._refused, self._counted = set(), Counter()
        self._heard = dict.fromkeys(self._wanted, time.monotonic())
        self._discover()
        self.get_logger().info(f"recording {self._file.record.name}: {instruction or '(no instruction)'}")
        return f"recording; these are recorded once they are published: {', '.join(absent)}" if absent else ""

    def _new_record(self, instruction: str) -> EpisodeRecord:
        base = f"{self._embodiment.name}_{datetime.now():%Y%m%d-%H%M%S}"
        taken = {path.name.split(".")[0] for path in self._folder.iterdir()}
        names = [base, *(f"{base}-{number}" for number in range(2, 1000))]
        return EpisodeRecord(
            name=next(name for name in names if name not in taken),
            robot=self._embodiment.name,
            instruction=instruction,
            namespace=self.get_namespace().strip("/"),
            remapped=self._remapped(),
            started=utc_now(),
        )

    def _remapped(self) -> dict[str, str]:
        """Topics whose names differ from those without remapping."""
        space = self.get_namespace().rstrip("/")

        def plain(name: str) -> str:
            return name if name.startswith("/") else f"{space}/{name}"

        return {topic.name: name for name, topic in self._wanted.items() if name != plain(topic.name)}

    def _close(self, file: EpisodeFile, why: str, keep: bool = True) -> None:
        self._stop_listening()
        file.end(why, keep)

    def _stop_listening(self) -> None:
        for subscription in self._open.values():
            self.destroy_subscription(subscription)
        self._open.clear()
        self._known.clear()

    def _on_ended(self) -> None:
        """Report a file that is finished, discarded, or aborted."""
        file, self._file = self._file, None
        self._stop_listening()
        if file is None:
            return
        if file.folder is not None:
            self._last = file.folder
        self._problem = file.problem
        if self._problem:
            self.get_logger().error(self._problem)
        else:
            self.get_logger().info(self._summary(file))
        self._ended.set_result(None)

    def _summary(self, file: EpisodeFile) -> str:
        if file.folder is None:
            return file.problem or f"{file.record.name} was discarded"
        record = read_record(file.folder)
        lost = sum(file.dropped.values())
        return (
            f"{file.folder}: {record.seconds:.1f} s, {sum(file.counts.values())} messages, {file.size / 1e6:.0f} MB"
            + (f"; {lost} messages were lost because the disk was too slow" if lost else "")
            + f" ({record.ended})"
        )

    # Topics ---------------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        """Subscribe to topics with new publishers, and again where publishers have changed their offers."""
        if self._file is None or self._file.ending:
            return
        for name, topic in self._wanted.items():
            offers = self.get_publishers_info_by_topic(name)
            if offers and name not in self._refused:
                self._listen(self._file, name, topic, offers)

    def _listen(self, file: EpisodeFile, name: str, topic: WantedTopic, offers: list) -> None:
        qos = matching_qos(offers, topic.image)
        present = self._open.get(name)
        if present is not None and present.qos_profile == qos:
            return
        try:
            if problem := one_type(offers):
                raise UnknownType(f"{name} {problem}")
            if name not in self._known:
                file.add_topic(topic_format(name, offers))
                self._known.add(name)
            kind = message_class(offers[0].topic_type)
        except UnknownType as error:
            self._refused.add(name)
            self.get_logger().error(f"{name} is not recorded: {error}")
            return
        if present is not None:
            self.destroy_subscription(present)
        callback = partial(self._on_message, name, name == self.resolve_topic_name(self._chunk_topic))
        self._open[name] = self.create_subscription(kind, name, callback, qos, raw=True, largest=LARGEST)

    @property
    def _chunk_topic(self) -> str:
        return f"{self.parameters.policy_node}/action_chunk"

    def _on_message(self, name: str, is_chunk: bool, data: bytes, info: dict) -> None:
        self._heard[name] = time.monotonic()
        if self._file is None or self._file.ending:
            return
        now = self.get_clock().now().nanoseconds
        simulated = self.parameters.use_sim_time
        # Arrival time at this computer; under simulated time, which bags of a simulator use, it is the current time.
        arrival = now if simulated else info["received_timestamp"] or now
        if is_chunk and self._file.record.policy is None:
            self._learn_policy(self._file, data)
        if not self._file.put(name, data, arrival, info["source_timestamp"] or arrival):
            self.get_logger().error("the disk is too slow: messages are lost", throttle_duration_sec=5.0)

    def _learn_policy(self, file: EpisodeFile, data: bytes) -> None:
        """Take the policy, and the instruction if none was given, of the first chunk that may be one for this robot."""
        if len(data) > LARGEST_CHUNK:
            return
        try:
            message = deserialize_message(data, ActionChunk)
            chunk = chunk_from_message(message)
            if not check_schema(chunk, ChunkSchema.of(self._embodiment)):
                instruction = file.record.instruction or _trainable(chunk.instruction)
                file.relabel(instruction=instruction, policy=_recorded_policy(message.policy))
        except OSError as error:  # a full disk, which also ends the recording
            self.get_logger().error(f"the policy was not saved: {error}", throttle_duration_sec=5.0)
        except (RuntimeError, ValueError) as error:  # RMWError is a RuntimeError
            self.get_logger().warning(f"a chunk has no valid instruction: {error}", throttle_duration_sec=5.0)

    # Diagnostics ----------------------------------------------------------------------------------------------------

    def _diagnose(self) -> None:
        file = self._file
        problems: dict[str, bytes] = {}
        if self._problem:
            problems[self._problem] = DiagnosticStatus.ERROR
        if full := too_full(self._folder, self.parameters.min_free_gb):
            problems[full] = DiagnosticStatus.ERROR
        free = free_bytes(self._folder) / GIGABYTE
        values: dict[str, object] = {"recording": file.record.name if file else "", "free [GB]": free}
        if file is not None:
            problems |= {f"{name} is silent": DiagnosticStatus.WARN for name in self._silent()}
            if lost := sum(file.dropped.values()):
                problems[f"{lost} messages lost: the disk is too slow"] = DiagnosticStatus.ERROR
            values |= {"size [MB]": file.size / MEGABYTE, "instruction": file.record.instruction}
            values |= {f"{name} [Hz]": self._rate(file, name) for name in self._open}
        stamp, robot = self.get_clock().now().to_msg(), self._embodiment.name
        name = f"{self.get_fully_qualified_name().strip('/')}: recording"
        self._diagnostics.publish(diagnostic_array(stamp, name, robot, problems, values))

    def _silent(self) -> list[str]:
        late = time.monotonic() - SILENCE
        return [n for n, topic in self._wanted.items() if topic.need is Need.REQUIRED and self._heard[n] < late]

    def _rate(self, file: EpisodeFile, name: str) -> float:
        """Messages per second since the last diagnostics."""
        new = file.counts[name] - self._counted[name]
        self._counted[name] = file.counts[name]
        return new / DIAGNOSTICS_PERIOD


def _recorded_policy(identity: PolicyIdentity) -> RecordedPolicy:
    names = RecordedPolicy.model_fields
    return RecordedPolicy(**{name: printable(getattr(identity, name)) for name in names})


def _trainable(text: str) -> str:
    """An instruction suitable for training; ValueError otherwise."""
    return clean_text(checked_instruction(text))


def _changes(request: LabelEpisode.Request) -> dict:
    """The changes of a request to an EpisodeRecord; ValueError when it is not a valid label."""
    changes: dict = {}
    if request.outcome != LabelEpisode.Request.KEEP:
        if request.outcome not in OUTCOMES:
            raise ValueError(f"outcome {request.outcome} is not one of the codes {sorted(OUTCOMES)}")
        changes["success"] = OUTCOMES[request.outcome]
    if request.instruction.strip():
        changes["instruction"] = _trainable(str(request.instruction).strip())
    if len(request.note) > LONGEST_NOTE:
        raise ValueError(f"the note has {len(request.note)} characters (limit {LONGEST_NOTE})")
    if request.note.strip():
        changes["note"] = request.note.strip()
    if not changes:
        raise ValueError("the request changes nothing: specify an outcome, an instruction or a note")
    return changes


def main(args: list[str] | None = None) -> None:
    """Run episode_recorder as a process."""
    answer_options(INTERFACE, args)
    raise SystemExit(lifecycle.run(EpisodeRecorder, args))
