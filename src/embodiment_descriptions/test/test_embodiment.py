# SPDX-License-Identifier: Apache-2.0
"""What is derived from a URDF and a YAML: names, limits, channels, gripper mapping."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodiment_descriptions import (
    Embodiment,
    EmbodimentConfig,
    JointLimit,
    Kinematics,
    describe,
    load_robot,
    resource_path,
)

WIDOWX = load_robot("widowx")


def test_widowx(widowx: Embodiment) -> None:
    assert (widowx.name, widowx.robot_tag, widowx.control_mode) == ("widowx", "WidowX", "eef_delta")
    assert (widowx.rate_hz, widowx.chunk_size, widowx.period) == (5.0, 16, 0.2)
    assert widowx.joint_names == (
        "waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "left_finger",
    )  # fmt: skip
    assert widowx.channel_names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert (widowx.has_waist, widowx.base, widowx.inferred) == (False, None, ())
    assert [camera.tag for camera in widowx.cameras] == ["ego", "cam_wrist"]
    assert widowx.image_markers() == [
        ("<|ego_start|>", "<|ego_end|>"),
        ("<|cam_wrist_start|>", "<|cam_wrist_end|>"),
    ]
    assert set(widowx.home) == set(widowx.joint_names) == set(widowx.limits)


def test_yaml_as_path_text_or_mapping(small: tuple[str, dict], widowx: Embodiment) -> None:
    path = resource_path("config/embodiments/widowx.yaml")
    for source in (path, str(path), path.read_text(encoding="utf-8")):
        assert Embodiment.from_urdf(widowx.urdf, source) == widowx
    urdf, config = small
    assert Embodiment.from_urdf(urdf, config).robot_tag == "Small"


def test_embodiment_is_frozen(widowx: Embodiment) -> None:
    with pytest.raises(ValueError, match="frozen"):
        widowx.rate_hz = 10.0


def test_dual_arm_channels_carry_the_arm_name(twin) -> None:
    e = Embodiment.from_urdf(*twin())
    pose = ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert e.channel_names == tuple(f"{side}_{name}" for side in ("left", "right") for name in pose)
    assert e.joint_names[-2:] == ("left_slide", "right_slide")


def test_joint_position_channels(twin) -> None:
    urdf, config = twin(waist=True)
    e = Embodiment.from_urdf(urdf, config | {"control_mode": "joint_position"})
    assert e.channel_names == (
        "left_j1", "left_j2", "left_j3", "left_gripper",
        "right_j1", "right_j2", "right_j3", "right_gripper", "torso_lift",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "channels"), [("base_waypoints", ("dx", "dy", "dtheta")), ("base_velocity", ("vx", "vy", "wz"))]
)
def test_base_channels(mode: str, channels: tuple[str, ...], twin) -> None:
    urdf, config = twin(base=True)
    assert Embodiment.from_urdf(urdf, config | {"control_mode": mode}).channel_names == channels


def test_arm_without_gripper(small: tuple[str, dict]) -> None:
    urdf, config = small
    config["arms"][0]["gripper"] = None
    e = Embodiment.from_urdf(urdf, config)
    assert e.channel_names == ("x", "y", "z", "rx", "ry", "rz")
    with pytest.raises(ValueError, match="has no gripper"):
        e.gripper_to_joint(0.5)


def test_home_is_zero_or_nearest_without_one(small: tuple[str, dict]) -> None:
    urdf, config = small
    e = Embodiment.from_urdf(urdf.replace('lower="-2.0"', 'lower="0.5"'), config)
    assert e.home == {"j1": 0.5, "j2": 0.5, "j3": 0.5, "slide": 0.0}


def test_continuous_joint_has_no_position_limits(small: tuple[str, dict]) -> None:
    urdf, config = small
    e = Embodiment.from_urdf(urdf.replace('name="j3" type="revolute"', 'name="j3" type="continuous"'), config)
    assert (e.limits["j3"].lower, e.limits["j3"].upper) == (float("-inf"), float("inf"))


def test_gripper_ends(widowx: Embodiment) -> None:
    assert widowx.gripper_to_joint(0.0) == pytest.approx(0.015)
    assert widowx.gripper_to_joint(1.0) == pytest.approx(0.037)
    assert widowx.gripper_to_joint(7.0) == pytest.approx(0.037)
    assert widowx.gripper_from_joint(0.040) > 1.0
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            widowx.gripper_to_joint(bad)
        with pytest.raises(ValueError, match="not finite"):
            widowx.gripper_from_joint(bad)


@given(st.floats(0, 1))
def test_gripper_round_trip(fraction: float) -> None:
    position = WIDOWX.gripper_to_joint(fraction)
    limit = WIDOWX.limits["left_finger"]
    assert limit.lower - 1e-12 <= position <= limit.upper + 1e-12
    assert WIDOWX.gripper_from_joint(position) == pytest.approx(fraction, abs=1e-9)


def test_describe_shows_every_joint_and_the_exact_prompt(widowx: Embodiment) -> None:
    text = describe(widowx, "put the cube down")
    assert f"\n{widowx.prompt('put the cube down')}\n" in text
    for name in (*widowx.joint_names, *(camera.topic for camera in widowx.cameras), "<|cam_wrist_start|>"):
        assert name in text
    assert "guessed" not in text


def test_describe_shows_waist_and_base(twin) -> None:
    text = describe(Embodiment.from_urdf(*twin(waist=True, base=True)))
    assert "torso_lift" in text and "differential" in text and "arm 'right'" in text


def test_resources_are_found_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "share" / "qwen_vla_ros" / "config" / "only_here.yaml"
    installed.parent.mkdir(parents=True)
    installed.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'nothing'}:{tmp_path}")
    assert resource_path("config/only_here.yaml") == installed


@pytest.mark.parametrize(
    "name, hardware", [("aloha", "mock"), ("aloha", "real"), ("widowx", "mock"), ("widowx", "real")]
)
def test_no_opening_is_rounded_beyond_the_range_of_its_gripper(name: str, hardware: str) -> None:
    """0.021 + (0.057 - 0.021) is more than 0.057, and ros2_control says so once a second."""
    for index, arm in enumerate(load_robot(name, hardware).arms):
        openings = np.linspace(0.0, 1.0, 1001)
        positions = arm.gripper.position(openings)
        assert positions.min() == arm.gripper.closed and positions.max() == arm.gripper.open
        found = [load_robot(name, hardware).gripper_to_joint(opening, index) for opening in (0.0, 0.5, 1.0)]
        assert found == list(arm.gripper.position(np.array([0.0, 0.5, 1.0])))


def test_limits_that_the_urdf_lacks_come_from_the_yaml(small: tuple[str, dict]) -> None:
    urdf, config = small
    urdf = urdf.replace('lower="-2.0" upper="2.0" velocity="3.0" effort="10.0"', 'velocity="0" effort="0"', 1)
    config["joint_limits"] = {"j1": {"lower": -1.5, "upper": 1, "velocity": 0.5}, "j2": {"upper": 1.8, "velocity": 2}}
    e = Embodiment.from_urdf(urdf, config)
    assert e.limits["j1"] == JointLimit(type="revolute", lower=-1.5, upper=1.0, velocity=0.5, effort=0.0)
    assert e.limits["j2"] == JointLimit(type="revolute", lower=-2.0, upper=1.8, velocity=2.0, effort=10.0)
    assert Kinematics(e).upper.tolist() == [1.0, 1.8, 2.0], "and everything that moves the robot keeps to them"
    kept = e.model_dump(mode="json", include=set(EmbodimentConfig.model_fields))  # as recordings keep their robot
    assert Embodiment.from_urdf(urdf, kept) == e


def test_no_effort_is_no_obstacle(small: tuple[str, dict]) -> None:
    """Nothing here depends on it, and exporters leave it out or at 0."""
    urdf, config = small
    assert Embodiment.from_urdf(urdf.replace(' effort="10.0"', "", 1), config).limits["j1"].effort == 0.0
