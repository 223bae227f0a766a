# SPDX-License-Identifier: Apache-2.0
"""episode_recorder as a process: the bag contains what was published, however the recording ends."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodiment_descriptions import robot_description
from qwen_vla import QwenVLAConfig
from qwen_vla.data.convert import convert
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.formats.recordings import mend, read_record, unfinished
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_msgs.msg import PolicyIdentity
from qwen_vla_msgs.srv import LabelEpisode, StartEpisode
from qwen_vla_ros.recording.recording_topics import message_class

NODE = "episode_recorder"
ARM = "arm_controller/joint_trajectory"
S = 1_000_000_000
LABEL = LabelEpisode.Request


class Noted:
    """A publisher of the peer that records what it publishes, by stamp."""

    def __init__(self, publisher, changed) -> None:
        self._publisher, self._changed, self.sent = publisher, changed, {}

    def publish(self, message) -> None:
        with self._changed:
            self.sent[nanoseconds(message.header.stamp)] = copy.deepcopy(message)
            self._changed.notify_all()
        self._publisher.publish(message)

    def __getattr__(self, name: str):
        return getattr(self._publisher, name)


class Recorder:
    """The node as a process, and requests to it. `published`: messages of the peer by topic, see `Noted`."""

    def __init__(self, peer, processes, folder) -> None:
        self.peer, self._processes, self.folder = peer, processes, folder
        self.commands = peer.node.create_publisher(JointTrajectory, ARM, 10)
        self.chatter = peer.node.create_publisher(String, "chatter", 1000)
        ((part, publisher),) = peer._joint_publishers.items()
        self._joints = peer._joint_publishers[part] = Noted(publisher, peer.changed)
        peer._cameras["ego"] = Noted(peer._cameras["ego"], peer.changed)
        self.process = None

    @property
    def published(self) -> dict[str, dict[int, object]]:
        with self.peer.changed:
            noted = {"joint_states": self._joints, "ego/image_raw": self.peer._cameras["ego"]}
            return {topic: dict(publisher.sent) for topic, publisher in noted.items()}

    def up(self) -> None:
        """Start it unless it is running."""
        if self.process is None or self.process.poll() is not None:
            self.process = self._processes.start(NODE, folder=self.folder, min_free_gb=0.0, extra_topics="chatter")
            self.peer.wait_until_active(NODE)

    def end(self, number: signal.Signals) -> int:
        return self._processes.end(self.process, number)

    @property
    def log(self) -> str:
        return self._processes.log_of(self.process)

    def start(self, instruction: str = "lift the red cube") -> StartEpisode.Response:
        return self.peer.call(StartEpisode, f"{NODE}/start", StartEpisode.Request(instruction=instruction))

    def begin(self, instruction: str = "lift the red cube") -> str:
        """Start an episode and wait until all topics are connected; returns its name."""
        answer = self.start(instruction)
        assert answer.success, answer.message
        links = (self.commands, self.chatter, self._joints, *self.peer._cameras.values())
        topics = [link.topic_name for link in links]

        def listens() -> bool:
            at = [self.peer.node.get_subscriptions_info_by_topic(topic) for topic in topics]
            return all(any(info.node_name == NODE for info in infos) for infos in at)

        self.peer.wait(listens, "the subscriptions of the recorder")
        self.pass_on(10)
        return answer.episode

    def pass_on(self, count: int) -> None:
        """Wait until more joint states and images are published."""
        for topic, more in (("joint_states", count), ("ego/image_raw", count // 5)):
            wanted = len(self.published[topic]) + more
            self.peer.wait(lambda t=topic, w=wanted: len(self.published[t]) >= w, f"{more} more of {topic}")

    def trigger(self, what: str) -> Trigger.Response:
        return self.peer.trigger(f"{NODE}/{what}")

    def label(self, **request) -> LabelEpisode.Response:
        return self.peer.call(LabelEpisode, f"{NODE}/label", LABEL(**request))


@pytest.fixture(scope="module")
def running(peer, processes, tmp_path_factory):
    return Recorder(peer, processes, tmp_path_factory.mktemp("episodes"))


@pytest.fixture
def recorder(running):
    """Active, with nothing recorded yet."""
    running.up()
    running.trigger("stop")
    for folder in running.folder.iterdir():
        shutil.rmtree(folder)
    return running


def messages(folder) -> dict[str, list[tuple[int, object, bytes]]]:
    """By topic: arrival time of each message [ns], the message and its bytes."""
    found: dict[str, list] = {}
    with AnyReader([folder]) as reader:
        for connection, time_ns, data in reader.messages():
            message = deserialize_message(data, message_class(connection.msgtype))
            found.setdefault(connection.topic, []).append((time_ns, message, bytes(data)))
    return found


def trajectory(value: float) -> JointTrajectory:
    message = JointTrajectory(joint_names=["waist", "shoulder"])
    message.points = [JointTrajectoryPoint(positions=[value, -value])]
    return message


def test_what_was_published_is_in_the_bag(recorder):
    name = recorder.begin()
    sent = [trajectory(0.01 * k) for k in range(20)]
    for message in sent:
        recorder.commands.publish(message)
    recorder.pass_on(20)
    answer = recorder.trigger("stop")
    assert answer.success and name in answer.message, answer.message
    folder = recorder.folder / name
    found = messages(folder)
    assert [message for _, message, _ in found[f"/{ARM}"]] == sent
    for topic, published in recorder.published.items():
        recorded = {nanoseconds(message.header.stamp): message for _, message, _ in found[f"/{topic}"]}
        assert all(message == published[stamp] for stamp, message in recorded.items())
        missing = {stamp for stamp in published if min(recorded) <= stamp <= max(recorded)} - set(recorded)
        assert len(recorded) == len(found[f"/{topic}"]), f"{topic}: no duplicates"
        # Images travel best effort: a busy machine may lose some.
        assert len(missing) <= (len(recorded) if "image" in topic else 0), f"{topic}: {len(missing)} are missing"
        assert all(0 <= time_ns - nanoseconds(message.header.stamp) < S for time_ns, message, _ in found[f"/{topic}"])
    assert [message.data for _, message, _ in found["/robot_description"]] == [robot_description("widowx")]
    record = json.loads((folder / "episode.json").read_text())
    assert record["robot"] == "widowx" and record["instruction"] == "lift the red cube" and record["success"] is None
    assert record["topics"][f"/{ARM}"] == {
        "type": "trajectory_msgs/msg/JointTrajectory",
        "messages": 20,
        "dropped": 0,
    }
    assert record["started"] < record["stopped"] and record["ended"] == "stopped by a service"
    assert recorder.peer.node.get_subscriptions_info_by_topic("/chatter") == [], (
        "between episodes it subscribes to nothing"
    )


def test_an_episode_becomes_a_data_set_that_training_reads(recorder, tmp_path):
    peer = recorder.peer
    recorder.begin("push the red cube")
    start = peer.joints["waist"]
    for target in (0.05, 0.1, 0.15):
        points = [JointTrajectoryPoint(positions=[start + target, *(peer.joints[n] for n in ("shoulder", "elbow"))])]
        recorder.commands.publish(JointTrajectory(joint_names=["waist", "shoulder", "elbow"], points=points))
        recorder.pass_on(20)
    assert recorder.label(outcome=LABEL.SUCCEEDED).success and recorder.trigger("stop").success
    summary = convert(ConvertOptions(recorder.folder, tmp_path / "out", images="png", workers=1))
    reader = LeRobotReader(tmp_path / "out")
    assert summary["episodes"] == 1 and reader.tasks == ["push the red cube"] and summary["bad_skipped"] == []
    pictures = [image.data.tobytes() for image in recorder.published["ego/image_raw"].values()]
    seen = [pictures.index(reader.image("observation.images.ego", row).tobytes()) for row in range(len(reader))]
    assert seen == sorted(seen) and len(set(seen)) > len(seen) // 2
    published = {round(float(value), 6) for value in start + np.array([0.0, 0.05, 0.1, 0.15])}
    waist = reader.features["observation.state"].index("waist")
    for column in ("observation.state", "action"):
        values = {round(float(value), 6) for value in reader.frames[column][:, waist]}
        assert len(values) > 1 and all(min(abs(v - p) for p in published) < 1e-5 for v in values), values
    source = RobotData(kind="robot", path=str(tmp_path / "out")).open(SourceContext(QwenVLAConfig.preset("tiny"), 0.0))
    assert source.sample(0, None).actions.shape == (16, 7) and set(source.camera_tags) == {"ego", "cam_wrist"}


def test_killed_with_minus_9_it_leaves_all_but_the_last_second(recorder):
    name = recorder.begin()
    sent: list[float] = []

    def say() -> None:
        recorder.chatter.publish(String(data=str(len(sent))))
        sent.append(time.monotonic())

    timer = recorder.peer.node.create_timer(0.02, say)
    recorder.peer.wait(lambda: len(sent) > 100, "two seconds of messages")
    killed = time.monotonic()
    recorder.process.send_signal(signal.SIGKILL)
    recorder.process.wait()
    recorder.peer.in_turn(lambda: recorder.peer.node.destroy_timer(timer))
    (left,) = unfinished(recorder.folder)
    assert left.name == f"{name}.recording"
    torn = shutil.copytree(left, recorder.folder.parent / "copy" / left.name)
    with (torn / f"{name}_0.mcap").open("r+b") as file:  # killed in the middle of a write
        file.truncate(file.seek(0, os.SEEK_END) - 1000)
    assert messages(mend(torn))["/chatter"]
    recorder.up()
    recorder.peer.wait((recorder.folder / name).exists, "the episode that the new recorder repairs")
    assert not unfinished(recorder.folder)
    said = [int(message.data) for _, message, _ in messages(recorder.folder / name)["/chatter"]]
    assert said == list(range(len(said)))
    assert all(time_said > killed - 1.0 for time_said in sent[len(said) :]), "only the last messages are missing"
    record = read_record(recorder.folder / name)
    assert record.ended == "the recorder was killed" and record.topics["/chatter"].messages == len(said)


def test_sigterm_finishes_the_episode_first(recorder):
    name = recorder.begin()
    recorder.pass_on(10)
    assert recorder.end(signal.SIGTERM) == 0, recorder.log
    assert "Traceback" not in recorder.log
    assert read_record(recorder.folder / name).ended == "the process received SIGTERM"
    assert len(messages(recorder.folder / name)["/joint_states"]) >= 10


def test_discarded_episodes_leave_nothing(recorder):
    recorder.begin()
    assert recorder.trigger("discard").success
    assert not list(recorder.folder.iterdir())
    name = recorder.begin()
    assert recorder.trigger("stop").success and (recorder.folder / name).is_dir()
    assert recorder.trigger("discard").success
    assert not list(recorder.folder.iterdir())
    again = recorder.trigger("discard")
    assert not again.success and "no episode to discard" in again.message


def test_labels(recorder):
    name = recorder.begin()
    assert recorder.label(outcome=LABEL.FAILED, note="slipped").episode == name
    (running,) = unfinished(recorder.folder)
    assert read_record(running).success is False, "it survives a crash"
    assert recorder.trigger("stop").success
    record = read_record(recorder.folder / name)
    assert (record.success, record.note, record.instruction) == (False, "slipped", "lift the red cube")
    assert recorder.label(outcome=LABEL.SUCCEEDED, instruction="lift the cube").success
    record = read_record(recorder.folder / name)
    assert (record.success, record.note, record.instruction) == (True, "slipped", "lift the cube")
    assert recorder.label(episode=name, outcome=LABEL.UNLABELLED).success
    assert read_record(recorder.folder / name).success is None
    for wrong in ({"outcome": 9}, {}, {"episode": "../x", "outcome": 1}, {"instruction": "lift <|image_pad|>"}):
        answer = recorder.label(**wrong)
        assert not answer.success and answer.message
    assert read_record(recorder.folder / name).success is None


def test_the_instruction_is_that_of_the_chunks_unless_one_is_given(recorder):
    name = recorder.begin(instruction="")
    policy = PolicyIdentity(name="tiny", hash="0" * 64, protocol="qwen_vla", embodiment="widowx")
    recorder.peer.send(recorder.peer.chunk(instruction="push the blue cube", policy=policy))
    (running,) = unfinished(recorder.folder)
    recorder.peer.wait(lambda: read_record(running).instruction, "the instruction of the chunk")
    recorder.trigger("stop")
    record = read_record(recorder.folder / name)
    assert record.instruction == "push the blue cube"
    assert (record.policy.name, record.policy.hash, record.policy.protocol) == ("tiny", "0" * 64, "qwen_vla")


def test_the_policy_is_recorded_also_where_the_instruction_was_given(recorder):
    name = recorder.begin(instruction="lift it")
    recorder.peer.send(recorder.peer.chunk(policy=PolicyIdentity(name="\x1b[2J", protocol="openpi")))
    (running,) = unfinished(recorder.folder)
    recorder.peer.wait(lambda: read_record(running).policy, "the policy of the chunk")
    recorder.trigger("stop")
    record = read_record(recorder.folder / name)
    assert (record.instruction, record.policy.name) == ("lift it", "\\x1b[2J")


def test_what_cannot_be_recorded_is_refused(recorder):
    peer = recorder.peer
    recorder.begin()
    again = recorder.start()
    assert not again.success and "is being recorded; stop or discard it first" in again.message
    recorder.trigger("stop")
    assert peer.set_parameter(NODE, "min_free_gb", 1e6)
    full = recorder.start()
    assert not full.success and f"free in {recorder.folder}, 1.0 PB required; free some space" in full.message
    assert peer.set_parameter(NODE, "min_free_gb", 0.0)
    publisher = peer._cameras.pop("ego")._publisher
    peer.in_turn(lambda: peer.node.destroy_publisher(publisher))

    def refusal():
        answer = recorder.start()
        if answer.success:  # the recorder has not yet discovered that the camera is gone
            recorder.trigger("discard")
        return None if answer.success else answer

    try:
        assert "not published: /ego/image_raw" in peer.wait(refusal, "a refusal").message
    finally:
        camera = peer.node.create_publisher(Image, "ego/image_raw", publisher.qos_profile)
        peer._cameras["ego"] = Noted(camera, peer.changed)
    peer.wait(lambda: recorder.start().success, "an episode, now that the camera is back")
    recorder.trigger("discard")


def test_a_disk_that_fills_up_ends_the_episode_in_order(recorder):
    peer = recorder.peer
    filler = recorder.folder.parent / "filler"
    limit = shutil.disk_usage(recorder.folder).free / 1e9 - 0.5
    assert peer.set_parameter(NODE, "min_free_gb", limit)
    name = recorder.begin()
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * S)
    try:
        peer.wait((recorder.folder / name).exists, "the end of the episode")
    finally:
        filler.unlink()
    assert read_record(recorder.folder / name).ended.startswith("the disk is nearly full")
    assert len(messages(recorder.folder / name)["/joint_states"]) >= 10
    said = peer.wait(lambda: peer.latest_diagnostics(f"{NODE}: recording"), "diagnostics")
    peer.wait(lambda: "nearly full" in peer.latest_diagnostics(f"{NODE}: recording").message, f"an error: {said}")
    assert peer.set_parameter(NODE, "min_free_gb", 0.0)
    assert np.isfinite(read_record(recorder.folder / name).seconds)


def test_a_folder_not_suitable_for_results_is_refused(recorder, processes):
    assert recorder.end(signal.SIGTERM) == 0
    refusing = processes.start(NODE, folder="/etc/episodes")
    said = "/etc/episodes is in a system folder"
    recorder.peer.wait(lambda: said in processes.log_of(refusing), "the refusal")
    processes.end(refusing, signal.SIGTERM)


def test_an_episode_that_was_renamed_is_not_discarded(recorder):
    name = recorder.begin()
    recorder.trigger("stop")
    episode = recorder.folder / name
    episode.rename(recorder.folder / "the_good_one")
    episode.mkdir()
    (episode / "notes.txt").write_text("mine")
    answer = recorder.trigger("discard")
    assert not answer.success and "no episode to discard" in answer.message
    assert (episode / "notes.txt").read_text() == "mine"
