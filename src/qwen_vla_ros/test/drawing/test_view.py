# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla view` from bags: what is drawn, in rerun's file and as an image, for every robot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from recorded_runs import ACCEPTED, REASON, REFUSED, record
from rosbags.rosbag2 import StoragePlugin

from embodiment_descriptions import Kinematics, load_robot
from qwen_vla.data.formats.recordings import RECORD, EpisodeRecord
from qwen_vla.output_paths import OutputRefused
from qwen_vla_ros.drawing.view.bag import Bag
from qwen_vla_ros.drawing.view.command import View
from qwen_vla_ros.drawing.view.scene import Scene

ROBOTS = ("widowx", "aloha", "mobile_base")
GROUPS = {"widowx": ["arm"], "aloha": ["left", "right"], "mobile_base": ["base"]}

GHOSTLY = {"widowx": "gripper_link", "aloha": r"follower_left\/gripper_link", "mobile_base": "base_link"}


class Notes:
    """A canvas that records its calls."""

    def __init__(self) -> None:
        self.robots, self.images, self.chunks, self.reports, self.removed = [], [], [], [], []

    def robot(self, time, links, joints):
        self.robots.append((time, links, joints))

    def image(self, time, tag, rgb):
        self.images.append((time, tag, rgb))

    def chunk(self, time, chunk):
        self.chunks.append(chunk)

    def remove(self, time, layer):
        self.removed.append((time, layer.name))

    def report(self, time, report):
        self.reports.append(report)

    def drawn(self, layer: str, number: int):
        """The chunk of that number in a layer."""
        return next(chunk for chunk in self.chunks if (chunk.layer.name, chunk.chunk_id) == (layer, number))


@pytest.fixture(scope="module", params=ROBOTS)
def bag(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, record(tmp_path_factory.mktemp("bag"), request.param)


@pytest.fixture(scope="module")
def widowx_bag(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("bag"), "widowx")


def played(path: Path, **options) -> tuple[Scene, Notes]:
    with Bag(path, **options) as opened:
        notes = Notes()
        scene = Scene(opened.embodiment(""), notes, image_rate=5.0, robot_rate=10.0)
        opened.play(scene.feeds)
    return scene, notes


def test_a_bag_shows_robot_cameras_chunks_and_reports(bag):
    robot, path = bag
    scene, notes = played(path)
    assert scene.embodiment.name == robot and scene.chunks == 3
    assert 25 <= len(notes.robots) <= 31  # 3 s at 10 Hz
    tags = [camera.tag for camera in scene.embodiment.cameras]
    assert {tag: sum(t == tag for _, t, _ in notes.images) for tag in tags} == dict.fromkeys(tags, 15)
    assert [r.verdict for r in notes.reports] == ["ACCEPTED", "ACCEPTED", "REFUSED"]
    seen = [(chunk.layer.name, chunk.chunk_id) for chunk in notes.chunks]
    assert seen == [
        *[(layer, number) for number in ACCEPTED for layer in ("predicted", "accepted")],
        ("predicted", REFUSED),
        ("refused", REFUSED),
    ]
    for chunk in notes.chunks:
        assert [path.name for path in chunk.paths] == GROUPS[robot]
        assert all(len(path.points) == chunk.steps + 1 for path in chunk.paths)
        assert {group for group, _ in chunk.curves} == set(GROUPS[robot])
    refused = notes.drawn("refused", REFUSED)
    assert refused.note == REASON
    colors = refused.paths[0].colors
    assert colors[5][0] > 0.9 and colors[5][3] == 1.0 and not any(c[0] > 0.9 for c in np.delete(colors, 5, axis=0))


def test_the_name_in_a_message_is_never_taken_for_a_path(bag, monkeypatch):
    """Without robot_description the robot is identified by the chunks, whose text is arbitrary."""
    _, path = bag
    monkeypatch.setattr("qwen_vla_ros.drawing.view.bag.DESCRIPTION", "elsewhere")
    with Bag(path) as opened:
        messages = opened._messages

        def forged(topics):
            for topic, message in messages(topics):
                message.embodiment = "examples/so101/so101.yaml"
                yield topic, message

        monkeypatch.setattr(opened, "_messages", forged)
        with pytest.raises(ValueError, match="unknown robot 'examples/so101/so101.yaml'"):
            opened.embodiment("")


def test_paths_start_at_the_tips_of_the_robot(bag):
    robot, path = bag
    scene, notes = played(path)
    chunk = notes.drawn("predicted", 2)  # observed at 1.5 s
    _, links, _ = min(notes.robots, key=lambda item: abs(item[0] - chunk.times[0]))
    ends = {arm.name: arm.tip_link for arm in scene.embodiment.arms} or {"base": "base_footprint"}
    for path in chunk.paths:
        assert np.allclose(path.points[0], links[ends[path.name]][:3, 3], atol=0.02)
        assert np.allclose(path.points[-1], chunk.end[ends[path.name]][:3, 3], atol=1e-3)
    if robot == "mobile_base":
        assert np.allclose(chunk.paths[0].points[-1] - chunk.paths[0].points[0], [1.0, 0.3, 0.0], atol=1e-6)
        assert np.allclose(chunk.curves["base", "theta"][[0, -1]], [0.0, 0.6], atol=1e-6)
    if robot == "aloha":
        left, right = (path.points[0] for path in chunk.paths)
        assert np.linalg.norm(left - right) > 0.2


def test_curves_are_the_predicted_joint_positions(widowx_bag, widowx):
    chunk = played(widowx_bag)[1].drawn("accepted", 1)
    assert chunk.steps == 8 and np.allclose(np.diff(chunk.times), 0.2e9)
    joints = [chunk.curves["arm", name] for name in widowx.arms[0].joints]
    kinematics = Kinematics(widowx)
    first, last = (kinematics.forward([curve[k] for curve in joints]) for k in (0, 8))
    assert np.allclose((np.linalg.inv(first) @ last)[:3, 3], [0.025, 0.01, 0.0], atol=1e-4)
    assert chunk.curves["arm", "left_finger"][-1] == pytest.approx(widowx.gripper_to_joint(0.5))


def test_a_namespace_is_detected(tmp_path):
    path = record(tmp_path, "widowx", namespace="lab/arm1")
    with Bag(path) as opened:
        assert opened.namespace == "lab/arm1"
    assert played(path)[0].chunks == 3
    with pytest.raises(ValueError, match="/lab/arm1/joint_states"), Bag(path, "elsewhere") as opened:
        opened.play(Scene(load_robot("widowx"), Notes()).feeds)


def test_an_episode_defines_the_names_of_its_topics(tmp_path):
    path = record(tmp_path, "widowx", namespace="lab")
    described = {"namespace": "/lab", "remapped": {"joint_states": "/lab/nowhere"}}
    episode = EpisodeRecord(name="e", robot="widowx", started="2026-01-01T00:00:00+00:00", **described)
    (path / RECORD).write_text(episode.model_dump_json())
    scene, notes = played(path)
    assert scene.chunks == 3 and not notes.robots  # nothing was recorded on the topic named for joint states


def test_a_bag_without_description_identifies_its_robot_by_its_chunks(tmp_path):
    assert played(record(tmp_path, "mobile_base", without=("robot_description",)))[0].embodiment.name == "mobile_base"


def test_sqlite_bags_are_read_with_our_own_message_types(tmp_path):
    assert played(record(tmp_path, "widowx", storage=StoragePlugin.SQLITE3))[0].chunks == 3


def test_without_joint_states_the_chunks_say_why_they_are_not_drawn(tmp_path):
    _, notes = played(record(tmp_path, "widowx", without=("joint_states",)))
    assert not notes.robots and all(not chunk.paths for chunk in notes.chunks)
    assert "joint_states" in notes.drawn("predicted", 1).note


def test_a_bag_that_restarts_clears_the_scene(widowx_bag):
    with Bag(widowx_bag) as opened:
        notes = Notes()
        scene = Scene(opened.embodiment(""), notes)
        opened.play(scene.feeds)
        before = len(notes.removed), len(notes.robots)
        opened.play(scene.feeds)
    assert {layer for _, layer in notes.removed[before[0] :]} == {"predicted", "accepted", "refused"}
    assert len(notes.robots) == 2 * before[1]


def test_a_damaged_bag_is_shown_up_to_its_damage(tmp_path, capsys):
    path = record(tmp_path, "aloha")
    (file,) = path.glob("*.mcap")
    content = bytearray(file.read_bytes())
    content[len(content) * 3 // 4 : len(content) * 3 // 4 + 2000] = bytes(2000)  # within an image
    file.write_bytes(content)
    View(bag=path, robot="aloha", save=None, png=tmp_path / "chunk.png").run()
    assert "is damaged after" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["nothing_there", "a_file"])
def test_an_invalid_bag_is_named(tmp_path, wrong):
    (tmp_path / "a_file").write_text("no bag")
    with pytest.raises((ValueError, FileNotFoundError), match=wrong):
        Bag(tmp_path / wrong)


def test_an_image_shows_the_requested_chunk(bag, tmp_path, capsys):
    _, path = bag
    png = tmp_path / "images" / "chunk.png"
    assert View(bag=path, png=png, chunk=1).run() == 0
    assert "chunk 1" in capsys.readouterr().out
    accepted = cv2.imread(str(png))
    assert accepted.shape == (720, 1280, 3)
    assert View(bag=path, png=png).run() == 0
    refused = cv2.imread(str(png))
    # Around the robot, only a refused chunk is red.
    robots = [image[:500, :840].astype(int) for image in (accepted, refused)]
    reds = [int(((p[..., 2] > 120) & (p[..., 1] < 60) & (p[..., 0] < 60)).sum()) for p in robots]
    assert reds[1] > reds[0] + 50
    with pytest.raises(ValueError, match="no chunk 77 to draw; available: 1 .. 3"):
        View(bag=path, png=png, chunk=77).run()


def test_a_file_for_rerun_has_everything(bag, tmp_path):
    pytest.importorskip("rerun", reason="the viewer is optional")
    robot, path = bag
    rrd = tmp_path / "run.rrd"
    assert View(bag=path, save=rrd).run() == 0
    program = Path(sys.executable).with_name("rerun")
    printed = subprocess.run([program, "rrd", "print", "-vvv", rrd], capture_output=True, text=True, timeout=60)
    assert printed.returncode == 0, printed.stderr
    embodiment = load_robot(robot)
    for group in GROUPS[robot]:
        for layer in ("predicted", "accepted", "refused"):
            assert f"/world/chunks/{group}/{layer}/line" in printed.stdout
    for camera in embodiment.cameras:
        assert f"/cameras/{camera.tag}" in printed.stdout
    for entity in ("/world/robot/base_link", f"/world/ghost/{GHOSTLY[robot]}", "/instruction", "/reports", "/latency"):
        assert entity in printed.stdout
    assert REASON in printed.stdout
    verified = subprocess.run([program, "rrd", "verify", rrd], capture_output=True, text=True, timeout=60)
    assert verified.returncode == 0, verified.stderr


def test_results_are_replaced_only_by_view(widowx_bag, tmp_path):
    pytest.importorskip("rerun", reason="the viewer is optional")
    rrd, png = tmp_path / "run.rrd", tmp_path / "chunk.png"
    for _ in range(2):
        assert View(bag=widowx_bag, save=rrd, png=png).run() == 0
    for mine in (rrd, png):
        mine.write_bytes(b"mine")
        with pytest.raises(OutputRefused, match=f"{mine.name} was not made by qwen-vla view; .*--overwrite"):
            View(bag=widowx_bag, save=rrd, png=png).run()
        assert mine.read_bytes() == b"mine"
        assert View(bag=widowx_bag, save=rrd, png=png, overwrite=True).run() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run.rrd", "chunk.png"}


def test_without_rerun_the_command_to_install_it_is_named(widowx_bag, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)  # as Python does for a missing module
    with pytest.raises(RuntimeError, match="pip install 'rerun-sdk"):
        View(bag=widowx_bag, save=tmp_path / "run.rrd").run()
    assert View(bag=widowx_bag, png=tmp_path / "image.png").run() == 0


def test_without_a_display_the_alternatives_are_named(widowx_bag, monkeypatch):
    pytest.importorskip("rerun", reason="the viewer is optional")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(RuntimeError, match="--save FILE.rrd"):
        View(bag=widowx_bag).run()


@pytest.mark.parametrize("options", [{"seconds": 0.0}, {"image_rate": 0.0}, {"wait": -1.0}])
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match="must be positive"):
        View(**options).run()
