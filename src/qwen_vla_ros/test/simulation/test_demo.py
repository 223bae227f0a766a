# SPDX-License-Identifier: Apache-2.0
"""The video of the demo is correct in space and time, and written completely; the demo executes and cleans up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import psutil
import pytest
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, Image
from websockets.sync.server import serve

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import OutputRefused
from qwen_vla.seeds import FIRST_TEST_SEED
from qwen_vla.serving.messages import openpi_array, pack
from qwen_vla.serving.served_policy import ServedPolicy
from qwen_vla.suites import load_suite
from qwen_vla.video_files import write_gif, write_mp4
from qwen_vla_control.observation.image_decoding import to_rgb
from qwen_vla_control.observation.robot_pose import RobotPose
from qwen_vla_ros.drawing.camera_view import CameraView, pose_from_message
from qwen_vla_ros.drawing.chunk_geometry import planar_pose
from qwen_vla_ros.simulation.demo.command import MAKER, SHOWS, Demo, Shown, known_robots, summarize, unfit_robots
from qwen_vla_ros.simulation.demo.geometry import Geometry, Situation, path_points
from qwen_vla_ros.simulation.demo.map import MapFromAbove
from qwen_vla_ros.simulation.demo.recording import Moment, Recording, compressed, path_topics
from qwen_vla_ros.simulation.demo.video import CARD_SECONDS, CELL, RATE, STRIP, cells, draw_path, every_tick, film
from qwen_vla_ros.simulation.task_client import TaskRow

ROW = TaskRow(
    seed=7109, instruction="lift the red cube", task="pick_cube", target="red cube", success=True, ended="success",
    chunks=4, refused=1, steps=40, seconds=8.2, distance=0.012, failure="", metrics={}, latency_ms_p50=61.0,
    latency_ms_p99=75.0, reports=(),
)  # fmt: skip
FAILED = replace(
    ROW, seed=7131, success=False, ended="step limit", failure="not touched", latency_ms_p50=None, latency_ms_p99=None
)
GRAY = (90, 90, 90)
ROBOTS = {name: load_robot(name) for name in SHOWS}


def image(color=GRAY) -> Image:
    pixels = np.full((240, 320, 3), color, np.uint8)
    return Image(height=240, width=320, encoding="rgb8", step=960, data=pixels.tobytes())


def calibration(frame: str) -> CameraInfo:
    info = CameraInfo(height=240, width=320, d=[0.0] * 5, k=[200.0, 0, 160, 0, 200, 120, 0, 0, 1])
    info.header.frame_id = frame
    return info


def looking_down() -> PoseStamped:
    """The pose 1 m above the origin from which a camera looks straight down; x is to the right of its image."""
    pose = PoseStamped()
    pose.header.frame_id = "base_link"
    pose.pose.position.z = 1.0
    pose.pose.orientation.x, pose.pose.orientation.w = 1.0, 0.0  # rotated by pi about x
    return pose


def view_from_above() -> CameraView:
    return CameraView.placed(calibration("ego_optical_frame"), "", pose_from_message(looking_down().pose))


def path(*points, frame="base_link") -> PathMessage:
    message = PathMessage()
    message.header.frame_id = frame
    for x, y, z in points:
        stamped = PoseStamped()
        stamped.pose.position.x, stamped.pose.position.y, stamped.pose.position.z = x, y, z
        message.poses.append(stamped)
    return message


def recording(seconds: float, **changes) -> Recording:
    """Gray images of a WidowX at home at 10 Hz, with a path to the right of the image's center."""
    robot = ROBOTS["widowx"]
    infos = {"ego": calibration("ego_optical_frame"), "cam_wrist": calibration("wrist_camera_optical_frame")}
    paths = {"arm": path((0.1, 0.0, 0.0), (0.3, 0.0, 0.0))}
    images = {"ego": image(), "cam_wrist": image()}
    times = np.arange(0.3, 0.3 + seconds + 0.01, 0.1)
    moments = [Moment(float(t), images, paths, RobotPose(robot.home), "executing") for t in times]
    return Recording(**{"robot": robot, "moments": moments, "infos": infos, "fixed_pose": looking_down(), **changes})


def decoded(file) -> list[np.ndarray]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# Space ----------------------------------------------------------------------------------------------------------------


def test_a_point_appears_at_its_position():
    seen = view_from_above().project(np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.25, 0.5], [0, 0, 2]]))
    np.testing.assert_allclose(seen[:3], [[160, 120, 1], [260, 120, 1], [160, 20, 0.5]], atol=1e-9)
    assert np.isnan(seen[3, :2]).all() and seen[3, 2] < 0  # behind the camera


def test_paths_are_transformed_from_their_frames():
    robot = ROBOTS["aloha"]
    paths = {
        "left": path((0.0, 0.0, 0.0), frame="follower_left/base_link"),
        "right": path((0.0, 0.0, 0.0), frame="follower_right/base_link"),
        "third": path((0.0, 0.0, 0.0), frame="map"),
    }
    moment = Moment(0.0, {}, paths, RobotPose(robot.home), "")
    paths = Geometry(Recording(robot, [moment])).at(moment).paths
    assert list(paths) == ["left", "right"]
    assert paths["left"][0, 1] > 0.4 and paths["right"][0, 1] < -0.4  # they are mounted on both sides of the table
    nowhere = replace(moment, pose=None)
    assert Geometry(Recording(robot, [nowhere])).at(nowhere) == Situation({}, {}, None)


def test_the_predictions_of_all_arms_are_received():
    topic = "trajectory_visualizer/predicted_path"
    assert path_topics(ROBOTS["widowx"]) == {"arm": topic}
    assert path_topics(ROBOTS["aloha"]) == {"left": topic, "right": f"{topic}_right"}
    assert path_topics(ROBOTS["mobile_base"]) == {"base": topic}


def test_a_stored_image_is_small_and_looks_the_same():
    picture = np.tile(np.linspace(0, 255, 320).astype(np.uint8)[None, :, None], (240, 1, 3))
    message = Image(height=240, width=320, encoding="rgb8", step=960, data=picture.tobytes())
    message.header.stamp.sec = 7
    kept = compressed(message)
    assert len(kept.data) < len(message.data) / 5 and kept.header.stamp.sec == 7
    assert abs(to_rgb(kept).astype(int) - picture).max() < 6


def test_a_camera_with_distortion_is_refused():
    info = calibration("ego_optical_frame")
    info.d = [0.1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="ego_optical_frame.*rectify"):
        CameraView.placed(info, "", np.eye(4))


def test_the_path_is_drawn_at_its_position_and_nowhere_else():
    view = view_from_above()
    canvas = np.zeros((480, 640, 3), np.uint8)
    draw_path(canvas, path_points(path((0.1, 0, 0), (0.3, 0, 0))), view)
    rows, columns = np.nonzero(canvas.any(axis=2))
    assert abs(columns.min() - 2 * 180) < 10 and abs(columns.max() - 2 * 220) < 10
    assert abs(rows.min() - 240) < 10 and abs(rows.max() - 240) < 10
    for points in (path((0, 0, 2), (0, 0, 3)), path((1e9, 0, 0.999)), path()):
        empty = np.zeros((480, 640, 3), np.uint8)
        draw_path(empty, path_points(points), view)
        assert not empty.any()


def test_the_map_shows_the_driven_and_the_predicted_path():
    """Forward is up, left is left."""
    ahead = np.array([[0.5, 0.0, 0.0], [1.5, 0.0, 0.0]])
    there = [Situation({}, {"base": ahead}, planar_pose(x, 0.0, 0.0)) for x in (0.0, 0.25, 0.5)]
    drawn = MapFromAbove(there, 640, 480).draw(there).astype(int)
    bright = np.argwhere(drawn.min(axis=2) > 200)  # the base
    colored = np.argwhere(np.ptp(drawn, axis=2) > 100)  # the prediction
    assert colored[:, 0].min() < bright[:, 0].mean() - 50 and abs(colored[:, 1].mean() - 320) < 10
    assert (MapFromAbove([], 640, 480).draw([]) == MapFromAbove([], 640, 480).draw([])).all()


def test_every_camera_has_its_panel():
    assert cells(2) == [(0, 0, 640, 480), (640, 0, 640, 480)]
    assert cells(3) == [(0, 0, 640, 480), (640, 120, 320, 240), (960, 120, 320, 240)], "in the middle"
    assert cells(4) == [(0, 0, 640, 480), (640, 0, 320, 240), (960, 0, 320, 240), (640, 240, 320, 240)]
    for count in range(1, 9):
        taken = np.zeros((CELL[1], 2 * CELL[0]), int)
        for x, y, width, height in cells(count):
            assert taken[y : y + height, x : x + width].shape == (height, width)
            taken[y : y + height, x : x + width] += 1
        assert taken.max() == 1 and len(cells(count)) == count


# Time -----------------------------------------------------------------------------------------------------------------


def test_a_missing_exposure_is_bridged():
    moments = [SimpleNamespace(seconds=t) for t in (0.5, 0.6, 0.9, 1.0)]
    assert [m.seconds for m in every_tick(moments)] == [0.5, 0.6, 0.6, 0.6, 0.9, 1.0]
    assert list(every_tick([])) == []


def test_the_video_lasts_as_long_as_its_episodes(tmp_path):
    episodes = [(recording(1.0), ROW), (recording(0.5, fixed_pose=None), FAILED)]
    card = round(CARD_SECONDS * RATE)
    expected = 11 + card + 6 + card
    assert write_mp4(tmp_path / "demo.mp4", film(episodes), RATE, MAKER) == expected
    frames = decoded(tmp_path / "demo.mp4")
    with av.open(str(tmp_path / "demo.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", RATE)
        assert float(stream.duration * stream.time_base) == pytest.approx(expected / RATE)
    assert len(frames) == expected and frames[0].shape == (560, 1280, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.mp4"]
    where = np.s_[230:250, 360:440]  # the path, in the ego image, where the pose of that camera is known
    first, card_of_success, later, card_of_failure = (frames[i].astype(int) for i in (0, 11, 11 + card, -1))
    assert abs(first[where] - GRAY).max() > 100 and abs(later[where] - GRAY).max() < 12
    greener, redder = (card[..., 1] - card[..., 0] for card in (card_of_success, card_of_failure))
    assert greener.max() > 80 and redder.min() < -80


@pytest.mark.parametrize("name", ["aloha", "mobile_base"])
def test_all_cameras_of_a_robot_are_shown(name):
    robot = ROBOTS[name]
    shades = {camera.tag: 60 + 40 * number for number, camera in enumerate(robot.cameras)}
    images = {tag: image((shade,) * 3) for tag, shade in shades.items()}
    pose = RobotPose(robot.home, np.eye(4) if robot.base else None, "odom" if robot.base else "")
    moment = Moment(0.5, images, {}, pose, "executing")
    (frame, *_) = film([(Recording(robot, [moment]), ROW)])
    assert frame.shape == (STRIP + CELL[1], 2 * CELL[0], 3)
    places = cells(len(robot.cameras))
    for (x, y, width, height), shade in zip(places, shades.values(), strict=True):
        assert abs(frame[y + height // 2, x + width // 2].astype(int) - shade).max() < 3


def test_a_video_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "demo.mp4"
    target.write_bytes(b"before")

    def frames():
        yield np.zeros((64, 64, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mp4(target, frames(), RATE, MAKER)
    with pytest.raises(ValueError, match="no frame"):
        write_mp4(target, [], RATE, MAKER)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.mp4"] and target.read_bytes() == b"before"


def test_a_gif_keeps_its_limit_and_its_speed(tmp_path):
    few = np.random.default_rng(0).integers(0, 256, (20, 3), np.uint8)
    noise = [few[np.random.default_rng(i).integers(0, 20, (32, 64))].repeat(4, 0).repeat(4, 1) for i in range(20)]
    size = write_gif(tmp_path / "demo.gif", noise, RATE, 200_000, MAKER)
    assert size == (tmp_path / "demo.gif").stat().st_size < 200_000
    with Picture.open(tmp_path / "demo.gif") as gif:
        assert gif.n_frames * gif.info["duration"] == pytest.approx(2000, rel=0.1)
    with pytest.raises(ValueError, match="1000 bytes"):
        write_gif(tmp_path / "small.gif", noise, RATE, 1000, MAKER)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.gif"]


# The command ----------------------------------------------------------------------------------------------------------


def test_the_summary_has_the_instructions_and_their_results():
    shown = {
        "widowx": Shown([ROW, FAILED], [], 12.34, {"executor_node": 120.0, "widowx_sim": 300.0}),
        "mobile_base": Shown([replace(ROW, metrics={"spl": 0.9})], [], 10.0, {"executor_node": 130.0}),
    }
    summary = summarize(shown, "checkpoints/tiny", ["aloha"])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["successes"], summary["checkpoint"], summary["skipped"]) == (2, "checkpoints/tiny", ["aloha"])
    assert summary["robots"]["widowx"] == {"successes": 1, "sentences": 2} and summary["start_seconds"] == 22.3
    assert summary["peak_rss_mb"] == {"executor_node": 130.0, "widowx_sim": 300.0}
    first, second, third = summary["sentences"]
    assert first["instruction"] == ROW.instruction and first["success"] and first["chunks"] == 4
    assert (first["latency_ms_p50"], first["latency_ms_p99"]) == (61.0, 75.0)
    assert (first["distance"], first["seconds"], first["seed"], first["task"]) == (0.012, 8.2, 7109, "pick_cube")
    assert not second["success"] and second["latency_ms_p50"] is None and second["failure"] == "not touched"
    assert (third["robot"], third["metrics"]) == ("mobile_base", {"spl": 0.9})


def test_help_needs_no_ros():
    program = "import sys; import qwen_vla_ros.simulation.demo.command\n"
    program += "assert not {'rclpy', 'torch', 'cv2', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_invalid_options_are_named_before_anything_starts(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        Demo(out=tmp_path / "out", policy=str(tmp_path)).run()
    with pytest.raises(ValueError, match="unknown robot 'robbie'; robots of the demo: widowx, aloha, mobile_base"):
        Demo(out=tmp_path / "out", robot=("widowx", "robbie")).run()
    with pytest.raises(ValueError, match=r"mine\.yaml is a robot of your own, .*; robots of the demo: widowx"):
        Demo(out=tmp_path / "out", robot=("mine.yaml",)).run()
    for wrong in ({"seeds": (-1,)}, {"seeds": (9000, FIRST_TEST_SEED)}, {"timeout": 0.0}, {"speed": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("s")):
            Demo(out=tmp_path / "out", policy=str(tmp_path), **wrong).run()
    (tmp_path / "config.json").touch()
    (tmp_path / "training.json").write_text(json.dumps({"data": [{"seeds": [9000, 9200]}]}))
    with pytest.raises(ValueError, match="9000"):
        Demo(out=tmp_path / "out", policy=str(tmp_path)).run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["summary.json", "demo.mp4", "logs/policy_node.log", "demo.gif"])
def test_files_of_other_programs_are_refused_before_anything_starts(tmp_path, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    demo = Demo(out=tmp_path / "out", gif=tmp_path / "out/demo.gif")
    with pytest.raises(
        OutputRefused, match="out is not empty and was not made by qwen-vla demo; choose another folder"
    ):
        demo.run()
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [mine]
    write_json(tmp_path / "out/.qwen_vla.json", {"generator": "qwen-vla demo"})
    with pytest.raises(OutputRefused, match=f"{Path(name).parts[0]} (is not empty and )?was not made by qwen-vla"):
        demo.run()
    assert mine.read_text() == "mine"


def test_a_robot_that_the_checkpoint_does_not_know_is_named_and_skipped(tmp_path, capsys):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").touch()
    with pytest.raises(FileNotFoundError, match="embodiments.json"):
        Demo(out=tmp_path / "out", policy=str(checkpoint)).run()
    (checkpoint / "embodiments.json").write_text("{}")
    assert Demo(out=tmp_path / "out", policy=str(checkpoint), robot=("aloha",)).run() == 3
    assert "aloha is skipped" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/summary.json").read_text())["skipped"] == ["aloha"]
    again = Demo(out=tmp_path / "out", policy=str(checkpoint), robot=("aloha",))
    assert again.run() == 3, "it replaces its own results"
    assert known_robots(resource_path("checkpoints/tiny")) == list(SHOWS)


@pytest.fixture
def server_of_the_base():
    """The address of a server that says what `qwen-vla serve --robot mobile_base` says."""
    metadata = pack(ServedPolicy("mock://hold", load_robot("mobile_base")).metadata, openpi_array)

    def handle(connection):
        connection.send(metadata)
        for _ in connection:
            pass

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"openpi://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_a_server_is_shown_on_the_robot_that_it_serves(tmp_path, capsys, server_of_the_base):
    unfit = unfit_robots(server_of_the_base, None, tuple(SHOWS))
    assert list(unfit) == ["widowx", "aloha"]
    assert (
        unfit["aloha"] == f"{server_of_the_base} does not fit it (robot: the server drives mobile_base, this is aloha)"
    )
    assert Demo(out=tmp_path / "out", policy=server_of_the_base, robot=("widowx",)).run() == 3
    assert "widowx is skipped: openpi://" in capsys.readouterr().err
    assert not unfit_robots("mock://hold", None, tuple(SHOWS)), "it drives any robot"


@pytest.mark.parametrize("robot", SHOWS)
def test_the_default_scenes_are_of_several_tasks_and_never_trained_on(robot):
    show = SHOWS[robot]
    env = load_suite(show.suite).make_env(cameras=False)
    tasks = {env.reset(seed=seed)[1]["task"] for seed in show.seeds}
    assert len(tasks) >= 2 and len(show.seeds) == 3
    assert max(show.seeds) < FIRST_TEST_SEED


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_executes_films_and_cleans_up(tmp_path):
    """The whole demo, as started by a user, with the shipped checkpoint."""
    command = [Path(sys.executable).with_name("qwen-vla"), "demo", "--out", tmp_path, "--gif", tmp_path / "demo.gif"]
    shell = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp", "ROS_DOMAIN_ID": "7"}
    run = subprocess.run(command, env=os.environ | shell, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ROS settings of this shell are ignored: RMW_IMPLEMENTATION, ROS_DOMAIN_ID" in run.stderr
    assert "in ROS domain 7 " not in run.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {robot: row["sentences"] for robot, row in summary["robots"].items()} == dict.fromkeys(SHOWS, 3)
    assert all(row["successes"] >= 2 for row in summary["robots"].values())
    for result in summary["sentences"]:
        assert result["instruction"] in run.stdout
        assert result["chunks"] >= 1 and 0 < result["latency_ms_p50"] <= result["latency_ms_p99"]
    shown = len(decoded(tmp_path / "demo.mp4")) / RATE
    assert shown > sum(result["seconds"] for result in summary["sentences"])  # plus the cards, less the first 0.3 s
    assert (tmp_path / "demo.gif").stat().st_size < 2_000_000
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".qwen_vla.json",
        "demo.gif",
        "demo.mp4",
        "logs",
        "summary.json",
    ]
    environments = (_variables_of(process) for process in psutil.process_iter())
    assert not [found for found in environments if str(tmp_path) in found.get("ROS_LOG_DIR", "")]


def _variables_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # it has ended, or is not ours
        return {}
