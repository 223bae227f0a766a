# SPDX-License-Identifier: Apache-2.0
"""The file of an episode without a node: slow and broken disks, concurrent use, and the entry of a topic."""

from __future__ import annotations

import queue
import re
import resource
import time

import pytest
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from std_msgs.msg import String

from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.recordings import EpisodeRecord, mend, read_record, unfinished, utc_now
from qwen_vla_ros.recording.recording_file import EpisodeFile, TopicFormat
from qwen_vla_ros.recording.recording_topics import Need, UnknownType, definition, message_class, wanted_topics

CHATTER = TopicFormat("/chatter", "std_msgs/msg/String", definition("std_msgs/msg/String"), "[]", "")
MEGABYTE = 1_000_000
PATIENCE = 30.0  # [s]


class File(EpisodeFile):
    """An EpisodeFile with /chatter, whose end can be awaited."""

    def __init__(self, folder, widowx, name="one", compression="none", buffer=100 * MEGABYTE):
        self._over: queue.Queue = queue.Queue()
        record = EpisodeRecord(name=name, robot="widowx", started=utc_now())
        super().__init__(folder, record, widowx, compression, buffer, 0.0, lambda: self._over.put(True))
        self.add_topic(CHATTER)

    def say(self, text: str) -> bool:
        return self.put("/chatter", serialize_message(String(data=text)), time.time_ns(), time.time_ns())

    def wait(self) -> None:
        assert self._over.get(timeout=PATIENCE)
        self.join()


def said(folder) -> list[str]:
    with AnyReader([folder]) as reader:
        return [reader.deserialize(data, c.msgtype).data for c, _, data in reader.messages()]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_files_of_every_compression_are_complete(tmp_path, widowx, compression):
    file = File(tmp_path, widowx, compression=compression)
    texts = [str(k) * 1000 for k in range(500)]
    assert all(file.say(text) for text in texts)
    file.end("done")
    file.wait()
    assert not file.problem and said(file.folder) == texts
    assert ((file.folder / "one_0.mcap").stat().st_size < 200_000) == (compression != "none")


def test_messages_that_the_disk_cannot_take_are_counted(tmp_path, widowx):
    file = File(tmp_path, widowx, buffer=3000)
    assert file.say("kept") and not file.say("x" * 3000)
    file.end("done")
    file.wait()
    count = read_record(file.folder).topics["/chatter"]
    assert (count.messages, count.dropped) == (1, 1) and said(file.folder) == ["kept"]


def test_a_file_that_cannot_be_written_aborts_and_can_be_repaired(tmp_path, widowx):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MEGABYTE, before[1]))
    try:
        file = File(tmp_path, widowx)
        for k in range(20):
            file.say(str(k) + "x" * MEGABYTE)
        file.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.folder is None
    assert re.search(r"aborted: .*one_0.mcap is larger than .* \(.+B free\)", file.problem)
    (left,) = unfinished(tmp_path)
    kept = said(mend(left))
    assert [text.rstrip("x") for text in kept] == [str(k) for k in range(len(kept))] and len(kept) >= 5


def test_a_running_file_is_not_repaired(tmp_path, widowx):
    file = File(tmp_path, widowx)
    file.say("hello")
    with pytest.raises(DatasetError, match="is being recorded; stop the recording first"):
        mend(tmp_path / "one.recording")
    file.end("done")
    file.wait()
    assert said(tmp_path / "one") == ["hello"]


def test_an_episode_without_a_message_is_not_kept(tmp_path, widowx):
    file = File(tmp_path, widowx)
    file.end("done")
    file.wait()
    assert file.problem == "one has no messages and was not kept" and not list(tmp_path.iterdir())


def test_definitions_are_complete_and_unknown_types_are_named():
    kind = "qwen_vla_msgs/msg/ActionChunk"
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(definition(kind), kind))
    assert {"std_msgs/msg/Header", "builtin_interfaces/msg/Time"} < set(store.fielddefs)
    with pytest.raises(UnknownType, match="interbotix_nowhere_msgs/msg/X is not installed; install ros-.*-nowhere-ms"):
        message_class("interbotix_nowhere_msgs/msg/X")


def test_topics_follow_from_the_robot(widowx):
    topics = {t.name: t for t in wanted_topics(widowx, "policy_node", "executor_node", ["tf", "joint_states"])}
    required = [name for name, topic in topics.items() if topic.need is Need.REQUIRED]
    assert required == ["ego/image_raw", "cam_wrist/image_raw", "joint_states"]
    assert topics["ego/image_raw"].image and not topics["tf"].image
    assert {"gripper_controller/joint_trajectory", "robot_description", "executor_node/chunk_report"} < set(topics)
