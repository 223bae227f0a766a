"""What the demo shows is where it is, how long it takes, and written whole; the demo itself obeys and cleans up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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

from qwen_vla.video_files import write_gif, write_mp4
from qwen_vla_ros.camera_view import CameraView
from qwen_vla_ros.demo import SEEDS, Demo, summarize
from qwen_vla_ros.demo_recording import Moment, Recording
from qwen_vla_ros.demo_video import CARD_SECONDS, RATE, draw_path, every_tick, film, path_points
from qwen_vla_ros.task_client import TaskRow

ROW = TaskRow(7109, "lift the red cube", "red cube", True, "success", 4, 1, 40, 8.2, 0.012, 61.0, 75.0, ())
FAILED = TaskRow(7131, "grab the blue block", "blue cube", False, "step limit", 10, 0, 80, 19.0, 0.2, None, None, ())
GREY = (90, 90, 90)


def image(colour=GREY) -> Image:
    pixels = np.full((240, 320, 3), colour, np.uint8)
    return Image(height=240, width=320, encoding="rgb8", step=960, data=pixels.tobytes())


def camera() -> tuple[CameraInfo, PoseStamped]:
    """A camera 1 m above the origin that looks straight down; x of the base frame is to the right of its image."""
    info = CameraInfo(height=240, width=320, d=[0.0] * 5, k=[200.0, 0, 160, 0, 200, 120, 0, 0, 1])
    pose = PoseStamped()
    pose.header.frame_id = "base_link"
    pose.pose.position.z = 1.0
    pose.pose.orientation.x, pose.pose.orientation.w = 1.0, 0.0  # half a turn about x
    return info, pose


def path(*points, frame="base_link") -> PathMessage:
    message = PathMessage()
    message.header.frame_id = frame
    for x, y, z in points:
        stamped = PoseStamped()
        stamped.pose.position.x, stamped.pose.position.y, stamped.pose.position.z = x, y, z
        message.poses.append(stamped)
    return message


def recording(seconds: float, **changes) -> Recording:
    """Grey images at 10 Hz, with a path to the right of the image's centre."""
    info, pose = camera()
    line = path((0.1, 0.0, 0.0), (0.3, 0.0, 0.0))
    times = np.arange(0.3, 0.3 + seconds + 0.01, 0.1)
    moments = [Moment(float(t), image(), image(), line, "executing") for t in times]
    return Recording(**{"moments": moments, "camera_pose": pose, "camera_info": info, **changes})


def decoded(file) -> list[np.ndarray]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# Where things are -----------------------------------------------------------------------------------------------------


def test_a_point_appears_where_it_is():
    view = CameraView.from_messages(*camera())
    seen = view.project(np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.25, 0.5], [0, 0, 2]]))
    np.testing.assert_allclose(seen[:3], [[160, 120, 1], [260, 120, 1], [160, 20, 0.5]], atol=1e-9)
    assert np.isnan(seen[3, :2]).all() and seen[3, 2] < 0  # behind the camera


def test_it_agrees_with_the_simulator():
    """The scene's camera as the simulator publishes it, against the simulator's own projection."""
    from qwen_vla_sim.messages import camera_info_message, optical_pose
    from qwen_vla_sim.widowx.world import WidowXWorld

    world = WidowXWorld()
    points = np.random.default_rng(1).uniform((0.15, -0.2, 0.0), (0.45, 0.2, 0.3), (50, 3))
    for seed in SEEDS:
        world.reset(seed)
        info = camera_info_message(world.camera_intrinsics("ego", 240, 320), 240, 320, "ego_optical_frame")
        pose = PoseStamped(pose=optical_pose(world, "ego"))
        seen = CameraView.from_messages(info, pose).project(points)
        np.testing.assert_allclose(seen, world.project("ego", points) * [320, 240, 1], atol=1e-6)


def test_a_camera_with_distortion_is_refused():
    info, pose = camera()
    info.header.frame_id, info.d = "ego_optical_frame", [0.1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="ego_optical_frame.*rectify"):
        CameraView.from_messages(info, pose)


def test_the_path_is_drawn_where_it_leads_and_nowhere_else():
    view = CameraView.from_messages(*camera())
    canvas = np.zeros((480, 640, 3), np.uint8)
    draw_path(canvas, path_points(path((0.1, 0, 0), (0.3, 0, 0)), "base_link"), view)
    rows, columns = np.nonzero(canvas.any(axis=2))
    assert abs(columns.min() - 2 * 180) < 8 and abs(columns.max() - 2 * 220) < 8
    assert abs(rows.min() - 240) < 8 and abs(rows.max() - 240) < 8
    for points in (path((0, 0, 2), (0, 0, 3)), path((1e9, 0, 0.999)), path((0.1, 0, 0), frame="map"), path()):
        empty = np.zeros((480, 640, 3), np.uint8)
        draw_path(empty, path_points(points, "base_link"), view)
        assert not empty.any()


# How long it takes ----------------------------------------------------------------------------------------------------


def test_a_missing_exposure_is_bridged():
    moments = [SimpleNamespace(seconds=t) for t in (0.5, 0.6, 0.9, 1.0)]
    assert [m.seconds for m in every_tick(moments)] == [0.5, 0.6, 0.6, 0.6, 0.9, 1.0]
    assert list(every_tick([])) == []


def test_the_video_lasts_as_long_as_what_it_shows(tmp_path):
    episodes = [(recording(1.0), ROW), (recording(0.5, camera_pose=None), FAILED)]
    card = round(CARD_SECONDS * RATE)
    expected = 11 + card + 6 + card
    assert write_mp4(tmp_path / "demo.mp4", film(episodes), RATE) == expected
    frames = decoded(tmp_path / "demo.mp4")
    with av.open(str(tmp_path / "demo.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", RATE)
        assert float(stream.duration * stream.time_base) == pytest.approx(expected / RATE)
    assert len(frames) == expected and frames[0].shape == (560, 1280, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.mp4"]
    first, card_of_success, card_of_failure = frames[0].astype(int), frames[11].astype(int), frames[-1].astype(int)
    assert (first[330, 360:440] != GREY).any() or (first[310:330, 360:440] - GREY).any()  # the path, in the ego view
    assert abs(first[310:330, 1000:1080] - GREY).max() < 12  # and not in the other
    greener, redder = (card[..., 1] - card[..., 0] for card in (card_of_success, card_of_failure))
    assert greener.max() > 80 and redder.min() < -80


def test_a_video_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "demo.mp4"
    target.write_bytes(b"before")

    def frames():
        yield np.zeros((64, 64, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mp4(target, frames(), RATE)
    with pytest.raises(ValueError, match="no frame"):
        write_mp4(target, [], RATE)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.mp4"] and target.read_bytes() == b"before"


def test_a_gif_keeps_its_limit_and_its_speed(tmp_path):
    few = np.random.default_rng(0).integers(0, 256, (20, 3), np.uint8)
    noise = [few[np.random.default_rng(i).integers(0, 20, (32, 64))].repeat(4, 0).repeat(4, 1) for i in range(20)]
    size = write_gif(tmp_path / "demo.gif", noise, RATE, 200_000)
    assert size == (tmp_path / "demo.gif").stat().st_size < 200_000
    with Picture.open(tmp_path / "demo.gif") as gif:
        assert gif.n_frames * gif.info["duration"] == pytest.approx(2000, rel=0.1)
    with pytest.raises(ValueError, match="1000 bytes"):
        write_gif(tmp_path / "small.gif", noise, RATE, 1000)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.gif"]


# The command ----------------------------------------------------------------------------------------------------------


def test_the_summary_says_what_was_asked_and_what_became_of_it():
    summary = summarize([ROW, FAILED], "checkpoints/tiny", 12.34, {"executor_node": 120.0})
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["successes"] == 1 and summary["checkpoint"] == "checkpoints/tiny"
    first, second = summary["sentences"]
    assert first["instruction"] == ROW.instruction and first["success"] and first["chunks"] == 4
    assert (first["latency_ms_p50"], first["latency_ms_p99"]) == (61.0, 75.0)
    assert (first["distance"], first["seconds"], first["seed"]) == (0.012, 8.2, 7109)
    assert not second["success"] and second["latency_ms_p50"] is None


def test_help_needs_no_ros():
    program = "import sys; import qwen_vla_ros.demo; assert not {'rclpy', 'torch', 'cv2', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_wrong_options_are_named_before_anything_starts(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        Demo(out=tmp_path / "out", checkpoint=tmp_path).run()
    for wrong in ({"seeds": ()}, {"seeds": (-1,)}, {"timeout": 0.0}, {"speed": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Demo(out=tmp_path / "out", checkpoint=tmp_path, **wrong).run()
    (tmp_path / "config.json").touch()
    (tmp_path / "training.json").write_text(json.dumps({"data": [{"seeds": [7000, 7200]}]}))
    with pytest.raises(ValueError, match="7000"):
        Demo(out=tmp_path / "out", checkpoint=tmp_path).run()
    assert not (tmp_path / "out").exists()


def test_the_default_scenes_name_different_colours_in_different_words():
    from qwen_vla_sim.widowx.scene import sample_scene

    scenes = [sample_scene(seed) for seed in SEEDS]
    assert len({scene.target_colour for scene in scenes}) == len(SEEDS)
    assert len({scene.instruction.replace(scene.target_colour, "") for scene in scenes}) == len(SEEDS)
    assert max(SEEDS) < 1_000_000  # the data sets begin there


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_obeys_films_and_cleans_up(tmp_path):
    """The whole of it, as a user starts it, with the checkpoint that comes with the suite."""
    command = [Path(sys.executable).with_name("qwen-vla"), "demo", "--out", tmp_path, "--gif", tmp_path / "demo.gif"]
    environment = {name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["sentences"]) == 3 and summary["successes"] >= 2
    for sentence in summary["sentences"]:
        assert sentence["instruction"] in run.stdout
        assert sentence["chunks"] >= 1 and 0 < sentence["latency_ms_p50"] <= sentence["latency_ms_p99"]
    shown = len(decoded(tmp_path / "demo.mp4")) / RATE
    assert shown > sum(sentence["seconds"] for sentence in summary["sentences"])  # plus the cards, less the first 0.3 s
    assert (tmp_path / "demo.gif").stat().st_size < 2_000_000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["demo.gif", "demo.mp4", "logs", "summary.json"]
    environments = (_variables_of(process) for process in psutil.process_iter())
    assert not [found for found in environments if str(tmp_path) in found.get("ROS_LOG_DIR", "")]


def _variables_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # it has ended, or is none of ours
        return {}
