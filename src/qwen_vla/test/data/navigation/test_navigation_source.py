# SPDX-License-Identifier: Apache-2.0
"""Navigation: SE(2) increments that accumulate to the poses they came from, STOP at the end, history at 2 Hz."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from embodiment_descriptions import load_robot
from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.navigation.navigation_source import NavigationData
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.images.transform import image_transform_of
from qwen_vla_control.motion.base_path import accumulated, increments

CONFIG = QwenVLAConfig.preset("tiny")
RATE = 10.0
coordinates = st.floats(-50, 50)
paths = (
    st.integers(2, 12)
    .flatmap(
        lambda n: st.tuples(arrays(float, (n, 2), elements=coordinates), arrays(float, n, elements=st.floats(-20, 20)))
    )
    .map(lambda parts: np.column_stack(parts))
)


def straight_then_left(frames=41):
    """1 m/s along +x for 2 s, then a left turn on the spot with 0.5 rad/s."""
    time = np.arange(frames) / RATE
    return np.column_stack([np.minimum(time, 2), np.zeros(frames), 0.5 * np.maximum(time - 2, 0)])


def write(folder, *episodes, images=True):
    for i in range(max(len(e["poses"]) for e in episodes) if images else 0):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(folder / f"{i:03d}.png")
    for episode in episodes:
        if images:
            episode["frames"] = [f"{i:03d}.png" for i in range(len(episode["poses"]))]
    (folder / "walks.jsonl").write_text("\n".join(map(json.dumps, episodes)))
    return folder / "walks.jsonl"


def episode(poses=None, **more):
    poses = straight_then_left() if poses is None else poses
    return {"instruction": "go to the kitchen", "rate_hz": RATE, "poses": np.asarray(poses).tolist(), **more}


def open_source(path, held_out=0.0, steps=None, images=True, **more):
    context = SourceContext(CONFIG, held_out, images=images, trajectory_steps=steps)
    return NavigationData(kind="navigation", path=path, **more).open(context)


def waypoints(source, index):
    sample = source.sample(index, np.random.default_rng(0))
    return source.statistics["navigation"].unnormalize(sample.actions), sample


@settings(deadline=None, max_examples=50)
@given(paths)
def test_accumulating_the_increments_gives_the_poses_back(poses):
    found = accumulated(poses[0], increments(poses))
    np.testing.assert_allclose(found[:, :2], poses[1:, :2], atol=1e-9)
    np.testing.assert_allclose(np.exp(1j * found[:, 2]), np.exp(1j * poses[1:, 2]), atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(paths, coordinates, coordinates, st.floats(-3, 3))
def test_increments_do_not_depend_on_the_fixed_frame(poses, x, y, turn):
    cos, sin = np.cos(turn), np.sin(turn)
    moved = poses @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [x, y, turn]
    one, other = increments(poses), increments(moved)
    np.testing.assert_allclose(one[:, :2], other[:, :2], atol=1e-9)
    np.testing.assert_allclose(np.exp(1j * one[:, 2]), np.exp(1j * other[:, 2]), atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.floats(-3, 3), st.floats(0.1, 2), st.floats(-1.5, 1.5))
def test_forward_is_x_left_is_y_and_a_left_turn_is_positive(heading, distance, turn):
    """The robot drives ahead, then sideways to its left, then turns; whatever way it looked at first."""
    ahead = np.array([np.cos(heading), np.sin(heading)])
    left = np.array([-np.sin(heading), np.cos(heading)])
    poses = [[0, 0, heading], [*distance * ahead, heading], [*distance * (ahead + left), heading]]
    poses.append([*poses[-1][:2], heading + turn])
    expected = [[distance, 0, 0], [0, distance, 0], [0, 0, turn]]
    np.testing.assert_allclose(increments(np.array(poses)), expected, atol=1e-12)


def test_the_angle_takes_the_short_way_round():
    np.testing.assert_allclose(increments(np.array([[0, 0, 3.1], [0, 0, -3.1]]))[0, 2], 2 * np.pi - 6.2)


def test_waypoints_follow_the_logged_path_and_end_in_stop(tmp_path):
    source = open_source(write(tmp_path, episode()))
    found, sample = waypoints(source, 10)  # at 1 s, 1 m from the corner
    np.testing.assert_allclose(found[:2], [[0.5, 0, 0]] * 2, atol=1e-6)
    np.testing.assert_allclose(found[2:6], [[0, 0, 0.25]] * 4, atol=1e-6)
    np.testing.assert_allclose(found[6:], 0, atol=1e-6)
    assert sample.valid.all() and sample.actions.shape == (8, 3)
    np.testing.assert_allclose(waypoints(source, 40)[0], 0, atol=1e-6)


def test_stop_survives_normalization_where_the_robot_never_stands(tmp_path):
    poses = np.column_stack([np.arange(2000) / 2, np.zeros(2000), np.zeros(2000)])  # less than 1 % of it is STOP
    source = open_source(write(tmp_path, episode(poses, rate_hz=2.0), images=False))
    np.testing.assert_allclose(waypoints(source, 1999)[0], 0, atol=1e-6)


def test_history_is_at_2_hz_and_not_padded(tmp_path):
    source = open_source(write(tmp_path, episode()), history=4)
    assert source.sample(0, np.random.default_rng(0)).frame_rate == 2.0
    for frame, expected in ((0, [0]), (4, [4]), (5, [0, 5]), (30, [15, 20, 25, 30])):
        images = source.sample(frame, np.random.default_rng(0)).images["ego"]
        assert images[:, 0, 0, 0].tolist() == expected
        assert images.shape[1:] == (CONFIG.image_size, CONFIG.image_size, 3)


def test_without_vision_no_image_is_read(tmp_path):
    path = write(tmp_path, episode())
    source = open_source(path, images=False)
    for image in tmp_path.glob("*.png"):
        image.unlink()
    assert source.sample(20, np.random.default_rng(0)).images == {} and source.camera_tags == ()


def test_the_prompt_states_convention_horizon_and_rate(tmp_path):
    source = open_source(write(tmp_path, episode(), images=False), robot="rover", robot_tag="Rover")
    text = source.sample(0, np.random.default_rng(0)).text
    assert text == (
        "The robot is Rover with mobile base. The control frequency is 2 Hz. Please predict the next 8 navigation "
        "waypoints (dx, dy, dtheta) to execute the following task: go to the kitchen."
    )
    base = load_robot("mobile_base").prompt("go to the kitchen")
    assert text == base.replace("TurtleBot3 Waffle Pi", "Rover"), "the wording of the suite's own base"
    info = source.embodiments["rover"]
    assert info.prompt("go to the kitchen") == text and info.control_mode == "base_waypoints" and info.period == 0.5
    assert text in list(source.texts())


def test_failed_episodes_are_left_out_or_end_without_stop(tmp_path):
    path = write(tmp_path, episode(), episode(success=False), images=False)
    source = open_source(path)
    assert len(source.training) == 41 and source.provenance()["failed_left_out"] == 1
    both = open_source(path, only_successful=False)
    assert len(both.training) == 82
    assert both.sample(20, np.random.default_rng(0)).valid.tolist() == [True] * 8
    assert both.sample(41 + 20, np.random.default_rng(0)).valid.tolist() == [True] * 4 + [False] * 4
    with pytest.raises(DataError, match="no episode succeeded"):
        open_source(write(tmp_path, episode(success=False), images=False))


def test_whole_trajectories_cover_the_episode_once(tmp_path):
    source = open_source(write(tmp_path, episode(), images=False), steps=5)
    rows = [waypoints(source, index) for index in source.training]
    assert [len(found) for found, _ in rows] == [5, 4]  # 4 s at 2 Hz, and one STOP
    joined = accumulated(np.zeros(3), np.concatenate([found for found, _ in rows]))
    np.testing.assert_allclose(joined[-2:], [[2, 0, 1.0]] * 2, atol=1e-5)
    assert "the next 4 navigation waypoints" in rows[1][1].text


def test_episodes_are_held_out_whole(tmp_path):
    source = open_source(write(tmp_path, *[episode() for _ in range(4)], images=False), held_out=0.25)
    np.testing.assert_array_equal(source.held_out, np.arange(3 * 41, 4 * 41))
    assert len(source.tasks) == len(source.training) == 3 * 41


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"poses": [[0, 0, 0]]}, "poses: Tuple should have at least 2 items"),
        ({"poses": [[0, 0, 0], [0, float("nan"), 0]]}, "poses.1.1: Input should be a finite number"),
        ({"poses": [[0, 0], [0, 0]]}, "poses.0"),
        ({"rate_hz": 0}, "rate_hz: Input should be greater than 0"),
        ({"instruction": " "}, "the text is empty"),
        ({"frames": ["000.png"]}, "camera 'ego' has 1 frames for 41 poses"),
        ({"frames": {"ego": ["gone.png"] * 41}}, "no such image: .*gone.png"),
        ({"speed": 3}, "speed: Extra inputs"),
    ],
)
def test_bad_episodes_are_named(tmp_path, wrong, message):
    path = write(tmp_path, episode(), episode(**wrong), images=False)
    with pytest.raises(DataError, match=rf"walks\.jsonl:2: .*{message}"):
        open_source(path)
    assert len(open_source(path, on_bad_rows="skip").training) == 41


def test_images_are_resampled_as_in_inference(tmp_path):
    """A photograph of noise: any other method of resampling is off by several of 255."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(noise).save(tmp_path / f"n{i}.png")
    walk = episode(np.zeros((3, 3))) | {"frames": [f"n{i}.png" for i in range(3)]}
    source = open_source(write(tmp_path, walk, images=False))
    shown = source.sample(2, np.random.default_rng(0)).images["ego"][-1]
    expected = cv2.resize(noise, (CONFIG.image_size, CONFIG.image_size), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_array_equal(image_transform_of(CONFIG).resize(noise), expected)
