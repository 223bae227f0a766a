# SPDX-License-Identifier: Apache-2.0
"""How a robot is commanded, and where its state comes from: which YAML is accepted, and which is not."""

from pathlib import Path

import pytest

from embodiment_descriptions import Embodiment, EmbodimentError
from embodiment_descriptions.commands import GripperActionCommand, JointTrajectoryCommand, XsSingleCommand

ARM = {"backend": "joint_trajectory", "topic": "arm_controller/joint_trajectory", "joints": ["j1", "j2", "j3"]}
GRIPPER = {
    "backend": "gripper_action",
    "action": "gripper_controller/gripper_cmd",
    "joint": "slide",
    "kind": "parallel",
}
MOTOR = {"backend": "xs_single", "topic": "commands/joint_single", "joint": "slide", "name": "gripper"}
CALIBRATION = {"closed": -0.6, "open": 1.5}
BASE = {"backend": "base_velocity"}
LIMITS = {"max_linear": 0.5, "max_angular": 1.0, "max_linear_acceleration": 1.0, "max_angular_acceleration": 2.0}


def based(config: dict, **more: object) -> dict:
    """The configuration with a base to drive."""
    return (
        config | {"base": {"kind": "differential", "link": "base"}, "odometry": {}, "safety": {"base": LIMITS}} | more
    )


def test_defaults(small: tuple[str, dict]) -> None:
    e = Embodiment.from_urdf(*small)
    assert e.commands == () and e.odometry is None
    assert [(source.topic, source.prefix) for source in e.joint_states] == [("joint_states", "")]
    assert (e.safety.max_joint_acceleration, e.safety.self_collision, e.safety.base) == (None, False, None)


def test_every_backend(small: tuple[str, dict]) -> None:
    urdf, config = small
    e = Embodiment.from_urdf(urdf, config | {"commands": [ARM, GRIPPER]})
    arm, gripper = e.commands
    assert isinstance(arm, JointTrajectoryCommand) and arm.commanded == ("j1", "j2", "j3")
    assert isinstance(gripper, GripperActionCommand) and gripper.commanded == ("slide",)
    assert (gripper.max_rate_hz, gripper.dead_band) == (5.0, 0.001)
    forward = {"backend": "forward_command", "topic": "forward_position_controller/commands"}
    e = Embodiment.from_urdf(urdf, config | {"commands": [forward | {"joints": ["slide", "j3", "j2", "j1"]}]})
    assert e.commands[0].commanded == ("slide", "j3", "j2", "j1"), "the controller's own order is kept"
    group = {"backend": "xs_group", "topic": "commands/joint_group", "group": "arm", "joints": ["j1", "j2", "j3"]}
    e = Embodiment.from_urdf(urdf, config | {"commands": [group, MOTOR | {"calibration": CALIBRATION}]})
    motor = e.commands[1]
    assert isinstance(motor, XsSingleCommand) and (motor.calibration.closed, motor.calibration.open) == (-0.6, 1.5)


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (BASE, "cmd_vel_nav"),
        ({"backend": "nav2_follow_path"}, "follow_path"),
        ({"backend": "nav2_pose"}, "navigate_to_pose"),
    ],
)
def test_every_backend_of_a_base(small: tuple[str, dict], command: dict, where: str) -> None:
    urdf, config = small
    e = Embodiment.from_urdf(urdf, based(config, commands=[command], control_mode="base_waypoints", arms=[]))
    assert e.commands[0].endpoint == where
    assert e.channel_names == ("dx", "dy", "dtheta") and e.base_frame == "base"


FAULTS: dict[str, tuple[dict, str]] = {
    "old key": ({"controllers": {"arm": "arm_controller/joint_trajectory"}}, "controllers: unknown key"),
    "backend unknown": (
        {"commands": [ARM | {"backend": "servo"}]},
        "commands.0: .*'servo'; installed: 'base_velocity', .*'xs_single'. Correct `backend`, or install the package",
    ),
    "backend no text": ({"commands": [ARM | {"backend": ["servo"]}]}, r"commands.0: .*\['servo'\]; installed: "),
    "backend missing": (
        {"commands": [{"topic": "t", "joints": ["j1"]}]},
        "commands.0: .*`backend` is missing; installed: 'base_velocity', ",
    ),
    "no mapping": ({"commands": ["joint_trajectory"]}, "commands.0: Input should be a valid dictionary"),
    "key unknown": (
        {"commands": [ARM | {"topics": "t"}]},
        r"commands.0.topics: unknown key; .*'topic'",
    ),
    "topic missing": ({"commands": [{k: v for k, v in ARM.items() if k != "topic"}]}, "topic: missing"),
    "no joints": ({"commands": [ARM | {"joints": []}]}, "joints: .*at least 1"),
    "duplicate joint": ({"commands": [ARM, ARM, GRIPPER]}, "commanded joint j1, j2, j3 is named more than once"),
    "joint left out": ({"commands": [ARM]}, "no entry of commands moves slide"),
    "joint unknown": (
        {"commands": [ARM | {"joints": ["j1", "j2", "j3", "j4"]}, GRIPPER]},
        "commands name j4, which neither arms, hands nor waist list",
    ),
    "no gripper": (
        {"commands": [ARM | {"joints": ["j1", "j2", "slide"]}, GRIPPER | {"joint": "j3"}]},
        "gripper_action moves grippers, and 'j3' is not one",
    ),
    "gripper kind": ({"commands": [ARM, GRIPPER | {"kind": "fast"}]}, "kind: .*'parallel' or 'classic'"),
    "dead band": ({"commands": [ARM, GRIPPER | {"dead_band": -1}]}, "dead_band: .*greater than or equal to 0"),
    "rate": ({"commands": [ARM, GRIPPER | {"max_rate_hz": 0}]}, "max_rate_hz: .*greater than 0"),
    "no calibration": ({"commands": [ARM, MOTOR]}, "calibration: missing"),
    "calibration": (
        {"commands": [ARM, MOTOR | {"calibration": {"closed": 1.0, "open": 1.0}}]},
        "closed and open are both 1.0",
    ),
    "base undescribed": ({"commands": [ARM, GRIPPER, BASE]}, "drive a base .base_velocity., but `base` describes none"),
    "no joint states": ({"joint_states": []}, "joint_states: .*at least 1"),
    "duplicate joint states": (
        {"joint_states": [{"topic": "a"}, {"topic": "a"}]},
        "joint states a with prefix '' is named more than once",
    ),
    "acceleration": ({"safety": {"max_joint_acceleration": 0}}, "max_joint_acceleration: .*greater than 0"),
    "base limits": ({"safety": {"base": {"max_linear": 0.5}}}, "safety.base.max_angular: missing"),
}


def test_arm_and_gripper_may_publish_on_topics_of_their_own_with_the_same_prefix(small: tuple[str, dict]) -> None:
    urdf, config = small
    robot = Embodiment.from_urdf(urdf, config | {"joint_states": [{"topic": "a"}, {"topic": "b"}]})
    assert [source.topic for source in robot.joint_states] == ["a", "b"]


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong(fault: str, small: tuple[str, dict]) -> None:
    urdf, config = small
    change, message = FAULTS[fault]
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(urdf, config | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commands": [ARM, GRIPPER]}, "no entry of commands drives the base"),
        ({"commands": [ARM, GRIPPER, BASE, {"backend": "nav2_pose"}]}, "more than once: base_velocity, nav2_pose"),
        ({"control_mode": "base_waypoints", "odometry": None}, "needs a base; describe it under `odometry`"),
        ({"control_mode": "base_velocity", "safety": {}}, "needs a base; describe it under `safety.base`"),
        ({"control_mode": "joint_position", "arms": []}, "needs arms; describe them under `arms`"),
    ],
)
def test_wrong_base(change: dict, message: str, small: tuple[str, dict]) -> None:
    urdf, config = small
    Embodiment.from_urdf(urdf, based(config))
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(urdf, based(config, **change))


def test_a_gripper_may_be_calibrated_a_little_outside_the_urdf(small: tuple[str, dict]) -> None:
    urdf, config = small
    arm = config["arms"][0]
    config["arms"] = [arm | {"gripper": arm["gripper"] | {"closed": -0.001, "open": 0.043}}]
    e = Embodiment.from_urdf(urdf, config)
    assert (e.limits["slide"].lower, e.limits["slide"].upper) == (-0.001, 0.043)
    assert (e.limits["slide"].velocity, e.limits["slide"].effort) == (1, 5)
    config["arms"] = [arm | {"gripper": arm["gripper"] | {"open": 0.0441}}]
    with pytest.raises(EmbodimentError, match=r"gripper open: slide = 0.0441 is outside its limits 0.0 .. 0.04"):
        Embodiment.from_urdf(urdf, config)


# --- one file that extends another ------------------------------------------------------------------------------------

PLAIN = """
name: small
robot_tag: Small
rate_hz: 10
chunk_size: 8
cameras: [{tag: ego, topic: ego/image_raw, info_topic: ego/camera_info}]
arms: [{name: arm, joints: [j1, j2, j3], base_link: base, tip_link: tip}]
safety: {max_step_rad: 0.1, max_start_jump_rad: 0.2}
"""


def written(folder: Path, **files: str) -> Path:
    """Write the files, and return the folder."""
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content, encoding="utf-8")
    return folder


def test_a_file_lists_only_the_differences(tmp_path: Path, small: tuple[str, dict]) -> None:
    written(tmp_path, plain=PLAIN, real="extends: plain.yaml\nrate_hz: 20\nsafety: {max_step_rad: 0.3}\n")
    e = Embodiment.from_urdf(small[0], tmp_path / "real.yaml")
    assert (e.name, e.rate_hz, e.chunk_size) == ("small", 20.0, 8)
    assert (e.safety.max_step_rad, e.safety.max_start_jump_rad) == (0.3, 0.35), "a key is replaced as a whole"


@pytest.mark.parametrize(
    ("real", "message"),
    [
        ("extends: nowhere.yaml\n", "cannot read .*nowhere.yaml: No such file"),
        ("extends: ../plain.yaml\n", "a file can extend another one in its own folder"),
        ("extends: [plain.yaml]\n", "a file can extend another one in its own folder"),
        ("extends: middle.yaml\n", "middle.yaml, which extends yet another file; one step is allowed"),
        ("extends: plain.yaml\nrate: 3\n", "real.yaml is not valid:\n  rate: unknown key"),
    ],
)
def test_wrong_extension(real: str, message: str, tmp_path: Path, small: tuple[str, dict]) -> None:
    written(tmp_path, plain=PLAIN, middle="extends: plain.yaml\n", real=real)
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(small[0], tmp_path / "real.yaml")


def test_text_cannot_extend_a_file(small: tuple[str, dict]) -> None:
    with pytest.raises(EmbodimentError, match="extends is 'plain.yaml'; a file can"):
        Embodiment.from_urdf(small[0], "extends: plain.yaml\nname: small\n")
