# SPDX-License-Identifier: Apache-2.0
"""Bags as other people record them: foreign messages, cut and damaged files, other layouts of a folder."""

from __future__ import annotations

import shutil
import struct

import cv2
import numpy as np
import pytest
import yaml
import zstandard
from mcap.reader import make_reader
from mcap.writer import IndexType, Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import get_types_from_msg
from test_rosbag import SAY, START, STORE, WIDOWX, Bag, S, T, header, joints_at, picture, record

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import ForwardCommand
from qwen_vla import QwenVLAConfig
from qwen_vla.data.convert import convert
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.opening import find_source
from qwen_vla.data.formats.rosbag import RosbagEpisodes
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla_control.observation.image_decoding import DecodingError, to_rgb

ARM, JOINTS = WIDOWX.commands[0].topic, WIDOWX.arms[0].joints
POINT, TRAJECTORY = "trajectory_msgs/msg/JointTrajectoryPoint", "trajectory_msgs/msg/JointTrajectory"
NONE = np.zeros(0)


def at(seconds: float) -> int:
    return START + round(seconds * S)


def read(path, options=SAY, robot: Embodiment = WIDOWX):
    return RosbagEpisodes(path, robot, options)


def trajectory(points, names=JOINTS):
    """points: (seconds, positions, velocities)."""
    duration = T["builtin_interfaces/msg/Duration"]
    rows = [
        T[POINT](np.array(p, float), np.array(v, float), NONE, NONE, duration(*divmod(round(t * S), S)))
        for t, p, v in points
    ]
    return T[TRAJECTORY](header(0), list(names), rows)


# --- messages ---------------------------------------------------------------------------------------------------------

FOREIGN = {
    "velocities only": (trajectory([(1.0, [], np.ones(6))]), "point 1 of 1 has 0 positions for 6 joints"),
    "fewer values than names": (trajectory([(1.0, np.ones(6), []), (2.0, np.ones(3), [])]), "point 2 of 2 has 3 posi"),
    "more values than names": (trajectory([(1.0, np.ones(7), [])]), "point 1 of 1 has 7 positions for 6 joints"),
    "time goes back": (trajectory([(2.0, np.ones(6), []), (1.0, np.ones(6), [])]), "time_from_start does not increase"),
    "names twice": (trajectory([(1.0, np.ones(2), [])], ["waist", "waist"]), "it names joints more than once: waist"),
    "another arm": (trajectory([(1.0, np.ones(1), [])], ["left_waist"]), "left_waist, and none of this controller's"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_trajectory_that_no_controller_follows_is_named_with_bag_topic_type_and_time(tmp_path, kind):
    message, why = FOREIGN[kind]
    with Bag(tmp_path / "bag") as bag:
        record(bag, 1.0)
        bag.add(ARM, TRAJECTORY, message, at(0.5))
    place = rf"bag: a message on /{ARM} \({TRAJECTORY}\), recorded at 2023-11-14 22:13:20 UTC \(1700000000.510 s\): .*"
    with pytest.raises(DatasetError, match=place + why):
        read(tmp_path / "bag")


def test_a_trajectory_without_points_stops_the_arm_where_it_is_commanded(tmp_path):
    with Bag(tmp_path / "bag") as bag:
        record(bag)
        bag.trajectory(ARM, at(0.5), JOINTS, [(2.0, np.ones(6))])
        bag.add(ARM, TRAJECTORY, trajectory([], []), at(1.5))
    (episode,) = read(tmp_path / "bag")
    waist = episode.actions.values[:, 0]
    begun = joints_at(0.5)[0]
    half = begun + 0.5 * (1 - begun)
    np.testing.assert_allclose(waist[7:], half, atol=0.02)
    assert waist[5] < half - 0.05 and len(episode) == 15


@pytest.mark.parametrize("values", [5, 7])
def test_a_set_point_must_have_a_value_per_joint(tmp_path, values):
    kind, layout = "std_msgs/msg/Float64MultiArray", T["std_msgs/msg/MultiArrayLayout"]([], 0)
    command = ForwardCommand(backend="forward_command", topic="forward/commands", joints=JOINTS)
    robot = WIDOWX.model_copy(update={"commands": (command, WIDOWX.commands[1])})
    with Bag(tmp_path / "bag") as bag:
        record(bag, 1.0)
        bag.add("forward/commands", kind, T[kind](layout, np.ones(values)), at(0.5))
    with pytest.raises(DatasetError, match=rf"/forward/commands .*it has {values} values for the 6 joints waist"):
        read(tmp_path / "bag", robot=robot)


@pytest.mark.parametrize("topic", ["ego/image_raw", "joint_states", ARM])
@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_another_type_on_a_topic_of_the_robot_is_refused_by_name(tmp_path, topic, plugin):
    kind, layout = "std_msgs/msg/Float64MultiArray", T["std_msgs/msg/MultiArrayLayout"]([], 0)
    with Bag(tmp_path / "bag", plugin) as bag:
        record(bag, 1.0, without=(topic, "joints" if topic == "joint_states" else ""))
        bag.add(topic, kind, T[kind](layout, np.ones(6)), at(0.5))
    with pytest.raises(DatasetError, match=rf"a message on /{topic} \({kind}\), recorded at .*_msgs/msg/\w+ is needed"):
        read(tmp_path / "bag")


def test_a_topic_that_is_not_used_may_have_any_type(tmp_path):
    store = STORE
    store.register(get_types_from_msg("float64 secret\n", "lab_msgs/msg/Odd"))
    with Bag(tmp_path / "bag") as bag:
        record(bag, 1.0)
        bag.add("odd", "lab_msgs/msg/Odd", store.types["lab_msgs/msg/Odd"](1.0), at(0.5))
    file = next((tmp_path / "bag").glob("*.mcap"))
    content = file.read_bytes()
    assert b"float64 secret" in content
    file.write_bytes(content.replace(b"float64 secret", b"flout[4 ????\xff\xff"))
    (episode,) = read(tmp_path / "bag")
    assert len(episode) == 5 and not episode.defects


def test_states_of_other_lengths_than_their_names_are_bad_rows(tmp_path):
    kind = "sensor_msgs/msg/JointState"
    with Bag(tmp_path / "bag") as bag:
        record(bag, 2.0, without=("joints",))
        for k in range(200):
            values = joints_at(k / 100)[: 4 if 100 <= k < 170 else 7]
            bag.add(
                "joint_states",
                kind,
                T[kind](header(at(k / 100)), list(WIDOWX.joint_names), values, NONE, NONE),
                at(k / 100),
            )
    (episode,) = read(tmp_path / "bag")
    bad = episode.defects["observation"]
    assert bad and all("its messages report wrist_angle at nan" in why or "joint state" in why for why in bad.values())
    assert np.isfinite(np.delete(episode.state.values, list(bad), axis=0)).all()


GRAY, DEPTH = picture(1)[:, :, 0], picture(1)[:, :, 0].astype(np.uint16) * 100
NO_COLOR = {
    "gray": ("mono8", GRAY.tobytes(), 32),
    "depth": ("16UC1", DEPTH.tobytes(), 64),
    "compressed gray": ("mono8; png compressed", cv2.imencode(".png", GRAY)[1].tobytes(), None),
    "compressed depth": ("16UC1; compressedDepth png", bytes(12) + cv2.imencode(".png", DEPTH)[1].tobytes(), None),
}


@pytest.mark.parametrize("kind", NO_COLOR)
def test_grey_and_depth_are_refused_as_they_are_live(tmp_path, kind):
    encoding, content, step = NO_COLOR[kind]
    data = np.frombuffer(content, np.uint8)
    with Bag(tmp_path / "bag") as bag:
        record(bag, 1.0, without=("ego/image_raw",))
        for k in range(30):
            stamp = header(at(k / 30))
            if step:
                message = T["sensor_msgs/msg/Image"](stamp, 24, 32, encoding, 0, step, data)
            else:
                message = T["sensor_msgs/msg/CompressedImage"](stamp, encoding, data)
            bag.add("ego/image_raw", message.__msgtype__, message, at(k / 30))
    (episode,) = read(tmp_path / "bag")
    with pytest.raises(DatasetError, match=r"bag row 0: camera 'ego' on /ego/image_raw: .*(16UC1|mono8)") as refused:
        _ = episode.images["ego"][0]
    with pytest.raises(DecodingError) as live:
        to_rgb(message)
    assert str(refused.value).endswith(str(live.value))


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three seconds in an MCAP file, in many chunks with checksums."""
    path = tmp_path_factory.mktemp("bags") / "whole"
    with Bag(path) as bag:
        record(bag)
        bag.trajectory(ARM, START, JOINTS, [(0.1, np.full(6, 0.3))])
        bag.trajectory(ARM, at(2.2), JOINTS, [(0.1, np.full(6, 0.5))])
    return path


def chunks(file):
    with file.open("rb") as stream:
        return sorted(make_reader(stream).get_summary().chunk_indexes, key=lambda index: index.chunk_start_offset)


def rechunked(source, target, size=20_000, **options):
    """The same bag with small chunks, as rosbag2 writes them."""
    target.mkdir()
    file = target / f"{target.name}_0.mcap"
    with next(source.glob("*.mcap")).open("rb") as stream, file.open("wb") as out:
        reader = make_reader(stream)
        summary, writer = reader.get_summary(), Writer(out, size, **options)
        writer.start("ros2", "test")
        schemas = {s.id: writer.register_schema(s.name, s.encoding, s.data) for s in summary.schemas.values()}
        channels = {
            c.id: writer.register_channel(c.topic, c.message_encoding, schemas[c.schema_id], c.metadata)
            for c in summary.channels.values()
        }
        for _, channel, message in reader.iter_messages():
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        writer.finish()
    metadata = yaml.safe_load((source / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["relative_file_paths"] = [file.name]
    (target / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return file


@pytest.mark.parametrize("what", ["content", "header", "length"])
def test_a_changed_byte_costs_one_chunk_and_the_rows_beside_it(tmp_path, whole, what):
    file = rechunked(whole, tmp_path / "bag")
    found = chunks(file)
    hit = next(chunk for chunk in found if chunk.message_start_time > at(1.3))
    content = bytearray(file.read_bytes())
    place = {"content": hit.chunk_length // 2, "header": 0, "length": 3}[what]
    content[hit.chunk_start_offset + place] ^= 0x55
    file.write_bytes(content)
    first, second = read(tmp_path / "bag")
    lost = hit.message_end_time - hit.message_start_time
    assert len(first) + len(second) >= 14 - lost * WIDOWX.rate_hz / S
    (why,) = [why for row, why in first.defects["observation"].items() if row == len(first) - 1]
    assert "interrupted after it: the chunk at byte" in why and "is damaged" in why
    bad = second.defects["observation"]
    assert "interrupted before it" in bad[0] or 0 in bad
    assert sorted(bad) == list(range(len(bad))), "until the next command, what is commanded is unknown"
    assert any("is commanded is unknown" in why for why in bad.values()) and len(bad) < len(second)
    for episode in (first, second):
        for row in range(len(episode)):
            if row not in episode.defects["observation"]:
                assert episode.images["ego"][row].shape == (24, 32, 3)


@pytest.mark.parametrize("what", ["checksum of the summary", "no summary"])
def test_a_file_without_a_valid_index_is_read_whole(tmp_path, whole, what):
    options = {"use_statistics": False, "use_summary_offsets": False, "index_types": 0} if what == "no summary" else {}
    if options:
        options = {
            "index_types": IndexType.NONE,
            "use_statistics": False,
            "repeat_schemas": False,
            "repeat_channels": False,
            "use_summary_offsets": False,
        }
    file = rechunked(whole, tmp_path / "bag", **options)
    content = bytearray(file.read_bytes())
    if not options:
        summary = struct.unpack("<Q", content[-28:-20])[0]
        content[summary + 40] ^= 0x55
    file.write_bytes(content)
    (episode,), (expected,) = read(tmp_path / "bag"), read(whole)
    np.testing.assert_array_equal(episode.state.values, expected.state.values)
    np.testing.assert_array_equal(episode.images["ego"][3], expected.images["ego"][3])
    assert not episode.defects


@pytest.mark.parametrize("suffix", [".zstd", ".zst"])
def test_a_compressed_file_needs_no_metadata(tmp_path, whole, suffix):
    content = next(whole.glob("*.mcap")).read_bytes()
    (tmp_path / f"run.mcap{suffix}").write_bytes(zstandard.compress(content))
    (episode,), (expected,) = read(tmp_path), read(whole)
    np.testing.assert_array_equal(episode.state.values, expected.state.values)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("mode", "plugin", "why"),
    [
        (CompressionMode.FILE, StoragePlugin.MCAP, "was cut: its compressed data end too early"),
        (None, StoragePlugin.MCAP, "the MCAP file has no end"),
        (None, StoragePlugin.SQLITE3, "is damaged or was cut: database disk image is malformed"),
    ],
)
def test_a_cut_file_is_refused_by_its_name_and_skip_goes_on(tmp_path, mode, plugin, why):
    for name in ("first", "second"):
        bag = Bag(tmp_path / "bags" / name, plugin)
        (tmp_path / "bags").mkdir(exist_ok=True)
        if mode:
            bag.writer.set_compression(mode, CompressionFormat.ZSTD)
        with bag:
            record(bag, 1.0)
    (file,) = [path for path in (tmp_path / "bags" / "first").iterdir() if path.name != "metadata.yaml"]
    cut(file, 0.6)
    with pytest.raises(DatasetError, match=rf"{file.name}.*{why}"):
        read(tmp_path / "bags" / "first")
    done = convert(
        ConvertOptions(
            tmp_path / "bags", tmp_path / "out", "widowx", images="png", on_bad="skip", workers=1, instruction="lift it"
        )
    )
    assert done["episodes"] == 1 and len(done["bad_skipped"]) == 1 and why[:20] in done["bad_skipped"][0]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_the_storage_is_told_by_the_file_not_by_its_metadata(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "bag")
    metadata = (tmp_path / "bag" / "metadata.yaml").read_text()
    (tmp_path / "bag" / "metadata.yaml").write_text(
        metadata.replace("storage_identifier: mcap", "storage_identifier: ''")
    )
    assert len(read(tmp_path / "bag")[0]) == len(read(whole)[0])


def split(folder, pause, name="run"):
    for number in range(3):
        with Bag(folder / "made" / str(number)) as bag:
            record(bag, 1.0, START + round(number * (1 + pause) * S))
        (file,) = (folder / "made" / str(number)).glob("*.mcap")
        file.rename(folder / f"{name}_{number}.mcap")
    shutil.rmtree(folder / "made")


def test_a_split_recording_without_metadata_is_one(tmp_path):
    split(tmp_path, pause=0.0)
    (episode,) = read(tmp_path)
    assert (
        len(episode) == 15 and not episode.defects and RosbagEpisodes.recordings(tmp_path) == [tmp_path / "run_0.mcap"]
    )
    np.testing.assert_array_equal(episode.images["ego"][12], picture(round((12 / 5 - 2) * 30)))


def test_numbered_files_with_time_between_them_are_recordings_each(tmp_path):
    split(tmp_path, pause=20.0)
    assert [len(episode) for episode in read(tmp_path)] == [5, 5, 5]


def test_bags_are_found_in_folders_of_folders(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "november" / "26" / "first")
    shutil.copy(next(whole.glob("*.mcap")), tmp_path / "second.mcap")
    assert find_source(tmp_path) is RosbagEpisodes
    assert RosbagEpisodes.recordings(tmp_path) == [tmp_path / "november" / "26" / "first", tmp_path / "second.mcap"]


def test_a_recording_of_ros_1_is_named_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n" + bytes(100))
    assert find_source(tmp_path) is RosbagEpisodes
    with pytest.raises(
        DatasetError, match=r"old.bag is a recording of ROS 1; convert it: rosbags-convert --src old.bag"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rosbag2_bagfile_information: {}", "relative_file_paths: Field required"),
        ("rosbag2_bagfile_information: [", "cannot be read"),
        ("rosbag2_bagfile_information: {relative_file_paths: [lost_0.mcap]}", "names lost_0.mcap, which is not there"),
        ("rosbag2_bagfile_information: \xff", "relative_file_paths|cannot be read|valid dictionary"),
    ],
)
def test_metadata_that_do_not_fit_are_named(tmp_path, whole, text, why):
    shutil.copytree(whole, tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=rf"bag/metadata.yaml.*({why})"):
        read(tmp_path / "bag")


def test_no_episode_is_said_with_its_reason(tmp_path):
    with Bag(tmp_path / "bag") as bag:
        record(bag, 1.0, without=("joints",))
        for k in range(100):
            kind = "sensor_msgs/msg/JointState"
            bag.add(
                "joint_states",
                kind,
                T[kind](header(0), list(WIDOWX.joint_names), joints_at(k / 100), NONE, NONE),
                at(k / 100),
            )
    with pytest.raises(
        DatasetError, match="no episode: joint states: /joint_states has no stamps; its driver must fill"
    ):
        read(tmp_path / "bag")


def test_bags_of_which_only_one_has_commands_are_refused(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "commanded")
    with Bag(tmp_path / "measured") as bag:
        record(bag, 1.0)
    with pytest.raises(DatasetError, match=r"only one of .*commanded episode 0 and .*measured episode 0 has action"):
        read(tmp_path)


def test_training_on_a_damaged_bag_is_refused_or_goes_around_it(tmp_path, whole):
    file = rechunked(whole, tmp_path / "bag")
    hit = next(chunk for chunk in chunks(file) if chunk.message_start_time > at(2.5))
    content = bytearray(file.read_bytes())
    content[hit.chunk_start_offset + 200] ^= 0x55
    file.write_bytes(content)
    spec = RobotData(kind="robot", path=str(tmp_path / "bag"), robot="widowx", bag={"instruction": "lift it"})
    context = SourceContext(QwenVLAConfig.preset("tiny"), 0.0)
    with pytest.raises(
        ValueError, match=r"bag episode 0 row \d+ .*interrupted after it: the chunk at byte \d+ is damaged"
    ):
        spec.open(context)
    source = spec.model_copy(update={"on_bad_rows": "skip"})
    with pytest.raises(DatasetError, match="no row is left for training"):  # every chunk is longer than what is left
        source.open(context)
