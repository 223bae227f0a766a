# SPDX-License-Identifier: Apache-2.0
"""A data set is opened by the source that recognizes it; what cannot be opened is named with what lies there."""

import re
from importlib.metadata import Distribution, EntryPoint, EntryPoints

import numpy as np
import pytest
from test_rosbag import START, WIDOWX, Bag, record

from qwen_vla.data.formats import opening as module
from qwen_vla.data.formats.episodes import (
    Channels,
    DatasetError,
    Episode,
    EpisodeList,
    EpisodeSource,
    SourceOptions,
    files_of,
)
from qwen_vla.data.formats.lerobot import LeRobotEpisodes
from qwen_vla.data.formats.opening import find_source, open_source, robot_of
from qwen_vla.data.formats.recordings import EpisodeRecord, write_robot
from qwen_vla.data.formats.rosbag import RosbagEpisodes
from qwen_vla.data.robot.robot_source import RobotData


@pytest.fixture
def bag(tmp_path):
    with Bag(tmp_path / "bags/one") as writer:
        record(writer, 1.0)
    return tmp_path / "bags/one"


class Package(Distribution):
    """An installed package of which only the name is known."""

    def __init__(self, name):
        self._name = name

    metadata = property(lambda self: {"Name": self._name})

    def read_text(self, filename):
        return None

    def locate_file(self, path):
        raise NotImplementedError


@pytest.fixture
def installed(monkeypatch):
    """Install entry points: (package, name, where)."""

    def install(*entries):
        made = [EntryPoint(name, where, module.GROUP)._for(Package(package)) for package, name, where in entries]
        monkeypatch.setattr(module, "entry_points", lambda group: EntryPoints(made).select(group=group))

    return install


class Notes(EpisodeList):
    """A format of text files that hold two instructions, one episode each."""

    @classmethod
    def recognizes(cls, path):
        return bool(cls.recordings(path))

    @classmethod
    def recordings(cls, path):
        return sorted(path.glob("*.note"))

    @classmethod
    def open(cls, path, embodiment, options):
        lines = [line for file in cls.recordings(path) for line in file.read_text().splitlines()]
        columns = {"observation.state": Channels(np.zeros((4, 7)), embodiment.joint_names)}
        images = {"ego": np.arange(4 * 6 * 8 * 3, dtype=np.uint8).reshape(4, 6, 8, 3)}
        return cls(path, [Episode(line, line, 5.0, columns, images, str) for line in lines])


def test_a_source_recognizes_its_own_format(bag, tmp_path, recordings):
    assert find_source(bag) is find_source(bag.parent) is find_source(next(bag.glob("*.mcap"))) is RosbagEpisodes
    assert find_source(recordings / "demonstrations") is LeRobotEpisodes
    (tmp_path / "only/a.recording").mkdir(parents=True)
    assert find_source(tmp_path / "only") is RosbagEpisodes, "which a conversion can mend"


@pytest.mark.parametrize("name", ["run.mcap", "run.db3", "run.csv"])
def test_an_empty_file_is_called_empty_before_anything_is_asked_for(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=f"{name} is empty; copy it again"):
        find_source(tmp_path / name)


def test_a_folder_of_no_known_format_is_named_with_what_lies_there(tmp_path):
    with pytest.raises(DatasetError, match=r"absent: no such file or folder \(relative to "):
        find_source(tmp_path / "absent")
    with pytest.raises(DatasetError, match=re.escape(f"{tmp_path} is empty; no source recognizes it; installed: ler")):
        find_source(tmp_path)
    for name in ("1.csv", "2.csv", "README"):
        (tmp_path / name).write_text("x")
    (tmp_path / "meta").mkdir()
    (tmp_path / "metadata.yaml").write_text("title: walks\n")
    with pytest.raises(
        DatasetError, match=re.escape("contains 2 *.csv, 1 *.yaml, README, meta/; no source recognizes")
    ):
        find_source(tmp_path)
    with pytest.raises(DatasetError, match=r"1\.csv is a file of 1 bytes; no source recognizes it"):
        RobotData(kind="robot", path=tmp_path / "1.csv", robot="widowx").open_episodes()
    for number in range(20):
        (tmp_path / f"x.{number}").write_text("")
    with pytest.raises(DatasetError, match=r"1 \*\.1, .* and 16 more; no source"):
        find_source(tmp_path)


def test_a_folder_that_two_sources_recognize_is_refused(installed, tmp_path):
    installed(("blue", "notes", f"{__name__}:Notes"), ("red", "memos", f"{__name__}:Notes"))
    (tmp_path / "a.note").write_text("sit\nstand")
    with pytest.raises(DatasetError, match=r"1 \*\.note; more than one .*: memos \(package red\), notes \(p.* blue\)"):
        find_source(tmp_path)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("no_such_module:Go", r"notes of package blue cannot be imported: .*no_such_module.*; repair or uninstall"),
        ("qwen_vla.data.formats.episodes:Go", r"notes of package blue cannot be imported: .*Go"),
        ("qwen_vla.data.formats.episodes:EpisodeList", "not an episode source: .* lacks recognizes, recordings, open"),
    ],
)
def test_a_package_that_offers_no_source_is_named(installed, tmp_path, where, why):
    installed(("blue", "notes", where))
    with pytest.raises(ValueError, match=why):
        find_source(tmp_path)


def test_a_list_of_episodes_is_a_source(tmp_path):
    (tmp_path / "a.note").write_text("sit\nstand")
    source = open_source(Notes, tmp_path, WIDOWX, SourceOptions(instruction="go"))
    assert isinstance(source, EpisodeSource) and isinstance(source, Notes)
    assert [episode.instruction for episode in source] == ["sit", "stand"] and len(source) == 2
    assert source.features == {"observation.state": WIDOWX.joint_names} and source.image_keys == ("ego",)
    np.testing.assert_array_equal(source.episodes, [[0, 4], [4, 8]])
    shown = list(source.images("ego", lambda image: image[0, 0, 0], np.array([1, 6])))
    assert shown == [source[0].images["ego"][1][0, 0, 0], source[1].images["ego"][2][0, 0, 0]]
    assert len(list(source.images("ego", np.copy))) == 8


def test_its_hash_is_that_of_its_files_without_what_is_cached_beside_them(tmp_path):
    (tmp_path / "a.note").write_text("sit")
    first = Notes.open(tmp_path, WIDOWX, SourceOptions()).fingerprint
    assert (tmp_path / "cache").is_dir() and files_of(tmp_path) == [tmp_path / "a.note"]
    assert Notes.open(tmp_path, WIDOWX, SourceOptions()).fingerprint == first
    (tmp_path / "a.note").write_text("stand")
    assert Notes.open(tmp_path, WIDOWX, SourceOptions()).fingerprint != first


def test_an_episode_has_as_many_images_as_rows():
    columns = {"observation.state": Channels(np.zeros((4, 7)))}
    with pytest.raises(DatasetError, match="two: .* the same number of rows; they have: observation.state 4, ego 3"):
        Episode("two", "sit", 5.0, columns, {"ego": np.zeros((3, 6, 8, 3), np.uint8)}, str)


def test_a_source_without_episodes_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="contains no episodes"):
        Notes.open(tmp_path, WIDOWX, SourceOptions())


def test_an_option_that_a_source_does_not_heed_is_refused(tmp_path, recordings):
    (tmp_path / "a.note").write_text("sit")
    options = SourceOptions(namespace="left", marker_topic="go")
    with pytest.raises(
        DatasetError, match="by Notes, which does not support namespace, marker_topic; it supports: instr"
    ):
        open_source(Notes, tmp_path, WIDOWX, options)
    said = RobotData(kind="robot", path=recordings / "demonstrations", bag={"instruction": "sit"})
    with pytest.raises(
        DatasetError, match="LeRobotEpisodes, which does not support instruction; it supports: no options"
    ):
        said.open_episodes()


def test_a_recording_brings_its_robot_or_the_user_names_it(bag, tmp_path, recordings):
    with pytest.raises(DatasetError, match="does not name its robot; give the robot with --robot, or `robot`"):
        robot_of(RosbagEpisodes, bag)
    write_robot(bag, WIDOWX.model_copy(update={"robot_tag": "My WidowX"}))
    EpisodeRecord(name="one", robot="widowx", instruction="sit", started="").write(bag)
    assert robot_of(RosbagEpisodes, bag).robot_tag == robot_of(RosbagEpisodes, bag.parent).robot_tag == "My WidowX"
    assert robot_of(LeRobotEpisodes, recordings / "demonstrations").name == "widowx"
    with Bag(bag.parent / "two") as writer:
        record(writer, 1.0, START)
    write_robot(bag.parent / "two", WIDOWX)
    EpisodeRecord(name="two", robot="other", instruction="sit", started="").write(bag.parent / "two")
    with pytest.raises(DatasetError, match=r"of several robots \(other, widowx\); use a folder per robot"):
        robot_of(RosbagEpisodes, bag.parent)
    (bag / "robot.urdf").write_text("<robot/>")
    with pytest.raises(DatasetError, match=r"one: .*<robot> element has no name"):
        robot_of(RosbagEpisodes, bag)
