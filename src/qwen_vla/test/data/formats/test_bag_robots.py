# SPDX-License-Identifier: Apache-2.0
"""Bags of the other robots: two arms behind xs_sdk with prefixed joint states, and a base, up to the data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rosbags.rosbag2 import StoragePlugin
from rosbags.typesys import get_types_from_msg
from test_rosbag import START, STORE, Bag, S, T, header

from embodiment_descriptions import Embodiment, load_robot, resource_path, robot_description
from qwen_vla import QwenVLAConfig
from qwen_vla.data.convert import convert
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.formats.rosbag import BagOptions, RosbagEpisodes
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext

GROUP, SINGLE = "interbotix_xs_msgs/msg/JointGroupCommand", "interbotix_xs_msgs/msg/JointSingleCommand"
SAY = BagOptions(instruction="open both grippers")
RATE = 50


def sent(row: int, arm: int) -> np.ndarray:
    """Six joint positions and the motor angle of the gripper commanded to one arm in succession."""
    return np.array([0.01 * row * (k + 1) / 7 * (1 - 2 * arm) for k in range(6)] + [0.6197 + 0.01 * row], np.float32)


def aloha_bag(path, embodiment: Embodiment, seconds: float = 1.0, names: Mapping[str, str] | None = None) -> None:
    """names: of the group and the motor that are commanded, by the last part of the topic."""
    told = {"joint_group": "arm", "joint_single": "gripper"} | (names or {})
    STORE.register(get_types_from_msg("string name\nfloat32[] cmd\n", GROUP))
    STORE.register(get_types_from_msg("string name\nfloat32 cmd\n", SINGLE))
    names = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "left_finger"]
    pixels = np.zeros((24, 32, 3), np.uint8)
    none = np.zeros(0)
    with Bag(path, StoragePlugin.SQLITE3, lag=0) as bag:
        for row in range(int(seconds * RATE)):
            now = START + row * S // RATE
            for arm, side in enumerate(("follower_left", "follower_right")):
                positions = np.arange(7.0) + 10 * arm + 0.001 * row
                kind = "sensor_msgs/msg/JointState"
                bag.add(f"{side}/joint_states", kind, T[kind](header(now), names, positions, none, none), now)
                command = sent(row, arm)
                bag.add(
                    f"{side}/commands/joint_group", GROUP, T[GROUP](told["joint_group"], command[:6]), now + 1_000_000
                )
                bag.add(
                    f"{side}/commands/joint_single",
                    SINGLE,
                    T[SINGLE](told["joint_single"], command[6]),
                    now + 1_000_000,
                )
            for camera in embodiment.cameras:
                bag.image(camera.topic, now, pixels)


def test_both_arms_of_an_aloha_are_read_and_converted(tmp_path):
    yaml = resource_path("config/embodiments/aloha_real.yaml")
    aloha = Embodiment.from_urdf(robot_description("aloha", hardware="real"), yaml)
    aloha_bag(tmp_path / "bag", aloha)
    (episode,) = RosbagEpisodes(tmp_path / "bag", aloha, SAY)
    assert episode.state.names == aloha.joint_names and len(episode) >= 45
    values = episode.state.select(["follower_right/elbow", "follower_left/left_finger"], "state")
    rows = np.arange(len(episode))
    np.testing.assert_allclose(values - values[0], 0.001 * np.stack([rows, rows], 1), atol=1e-9)
    np.testing.assert_allclose(values[0], [12, 6], atol=0.01)
    arms = episode.actions.select([f"follower_{side}/shoulder" for side in ("left", "right")], "actions")
    for row in rows[:-1]:  # what had been said when the row was one period old
        np.testing.assert_allclose(arms[row], [sent(row, 0)[1], sent(row, 1)[1]], atol=1e-6)
    finger = episode.actions.select(["follower_left/left_finger"], "actions")[:, 0]
    fraction = (np.array([sent(row, 0)[6] for row in rows]) - 0.6197) / (1.6214 - 0.6197)
    gripper = aloha.arms[0].gripper
    np.testing.assert_allclose(finger[:-1], gripper.closed + fraction[:-1] * (gripper.open - gripper.closed), atol=1e-6)


def base_bag(path, silent: tuple[float, float] = (0.0, 0.0)) -> None:
    """Four seconds of a base at 0.2 m/s; its odometry is silent from and until these times [s]."""
    twist, odometry = "geometry_msgs/msg/Twist", "nav_msgs/msg/Odometry"
    vector, point, quaternion = (T[f"geometry_msgs/msg/{name}"] for name in ("Vector3", "Point", "Quaternion"))
    pose, with_covariance = T["geometry_msgs/msg/Pose"], T["geometry_msgs/msg/PoseWithCovariance"]
    moving = T["geometry_msgs/msg/TwistWithCovariance"]
    with Bag(path, lag=0) as bag:
        for k in range(200):
            now, x = START + k * S // 50, 0.004 * k
            speed = T[twist](vector(0.2, 0.0, 0.0), vector(0.0, 0.0, 0.1))
            place = with_covariance(pose(point(x, 0.0, 0.0), quaternion(0.0, 0.0, 0.0, 1.0)), np.zeros(36))
            if not silent[0] <= k / 50 < silent[1]:
                told = T[odometry](header(now), "base_link", place, moving(speed, np.zeros(36)))
                bag.add("odom", odometry, told, now)
            bag.add("cmd_vel_nav", twist, speed, now)
            if k % 5 == 0:
                bag.image("camera/image_raw", now, np.full((24, 32, 3), k, np.uint8))


def test_a_row_without_odometry_near_it_is_a_defect_and_has_no_pose(tmp_path):
    base_bag(tmp_path / "bag", silent=(1.3, 2.7))
    (episode,) = RosbagEpisodes(tmp_path / "bag", load_robot("mobile_base"), SAY)
    bad = episode.defects["observation"]
    places = episode.columns["observation.odometry"].values
    assert 2 <= len(bad) <= 4 and all(why.startswith("missing odometry: odometry: ") for why in bad.values())
    assert np.flatnonzero(np.isnan(places).any(axis=1)).tolist() == sorted(bad)
    good = [row for row in range(len(episode)) if row not in bad]
    seconds = episode.columns["timestamp"].values[good, 0]
    np.testing.assert_allclose(places[good, 0] - places[0, 0], 0.2 * seconds, atol=0.2 * 0.1)


def test_a_base_is_read_and_converted(tmp_path):
    base = load_robot("mobile_base")
    base_bag(tmp_path / "bag")
    summary = convert(
        ConvertOptions(
            tmp_path / "bag", tmp_path / "out", "mobile_base", images="png", instruction=SAY.instruction, workers=1
        )
    )
    reader = LeRobotReader(tmp_path / "out")
    assert summary["episodes"] == 1 and len(reader) >= 7 and reader.rate_hz == base.rate_hz
    assert reader.features["observation.odometry"] == ("x", "y", "theta")
    np.testing.assert_allclose(np.diff(reader.frames["observation.odometry"][:, 0]), 0.1, atol=0.01)
    np.testing.assert_allclose(reader.frames["action.velocity"][1:], [[0.2, 0, 0.1]] * (len(reader) - 1), atol=1e-6)
    source = RobotData(kind="robot", path=str(tmp_path / "out")).open(SourceContext(QwenVLAConfig.preset("tiny"), 0.0))
    forward = source.chunk(0)
    np.testing.assert_allclose(forward[0], [0.1, 0, 0], atol=0.01)
