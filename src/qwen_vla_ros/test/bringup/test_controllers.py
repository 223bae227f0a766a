# SPDX-License-Identifier: Apache-2.0
"""The controllers' files are valid for ros2_control in every distribution that the suite supports, and safe for a
robot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.node import Node

from qwen_vla_ros.ros.distributions import DISTRIBUTIONS

REPOSITORY = Path(__file__).resolve().parents[4]
FILES = sorted((REPOSITORY / "config" / "controllers").glob("*.yaml"))
DECLARED = yaml.safe_load(Path(__file__).with_name("ros2_control_parameters.yaml").read_text())
TRAJECTORY = "joint_trajectory_controller/JointTrajectoryController"
TYPES = {
    "bool": lambda value: type(value) is bool,
    "int": lambda value: type(value) is int,
    "double": lambda value: type(value) is float,  # rclcpp takes no integer for a double
    "string": lambda value: type(value) is str,
    "string_array": lambda value: all(type(entry) is str for entry in value),
    "double_array": lambda value: all(type(entry) is float for entry in value),
}


def of_nodes(file: Path) -> dict[str, dict]:
    """Parameters by the name of their node."""
    content = yaml.safe_load(file.read_text())
    assert all(key.startswith("/**/") and set(entry) == {"ros__parameters"} for key, entry in content.items())
    return {key.removeprefix("/**/"): entry["ros__parameters"] for key, entry in content.items()}


def declared(kind: str, distribution: str) -> dict[str, str]:
    """Parameter → its type."""
    parts = (DECLARED[kind].get(part, {}) for part in ("everywhere", distribution))
    return {name: type_name for part in parts for type_name, names in part.items() for name in names}


def flat(parameters: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Parameters with their whole names."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def controllers(file: Path) -> dict[str, dict]:
    """Only the nodes that are controllers."""
    return {name: parameters for name, parameters in of_nodes(file).items() if "type" in parameters}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_parameter_is_declared_with_its_type(file: Path, distribution: str) -> None:
    for node, parameters in of_nodes(file).items():
        known = declared(parameters.get("type", node), distribution) | {"type": "string"}
        joints = parameters.get("joints", [])
        for name, value in flat(parameters):
            for joint in joints:
                name = name.replace(f".{joint}.", ".<joint>.")
            assert name in known, f"{node} of {distribution} has no parameter {name}"
            assert TYPES[known[name]](value), f"{node}: {name} must be a {known[name]}, not {value!r}"


def test_the_table_detects_a_wrong_name_and_a_wrong_type() -> None:
    jazzy, known = (declared("diff_drive_controller/DiffDriveController", name) for name in ("jazzy", "lyrical"))
    assert "publish_rate" in jazzy and "publish_rate" not in known
    assert not TYPES[known["wheel_radius"]](1) and not TYPES[known["open_loop"]]("false")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_arm_starts_at_its_position_and_continues_from_its_command(file: Path) -> None:
    for name, parameters in controllers(file).items():
        if parameters["type"] == TRAJECTORY:
            assert parameters["set_last_command_interface_value_as_state_on_activation"] is False, name
            assert parameters["interpolate_from_desired_state"] is True, name


@pytest.mark.parametrize("file", [file for file in FILES if "_real" not in file.stem], ids=lambda file: file.stem)
def test_speeds_are_limited_below_the_gate_whatever_a_distribution_does_by_default(file: Path) -> None:
    assert of_nodes(file)["controller_manager"]["enforce_command_limits"] is True


def test_the_frames_of_a_base_in_a_namespace_are_those_of_its_description() -> None:
    parameters = of_nodes(REPOSITORY / "config/controllers/mobile_base.yaml")["diff_drive_controller"]
    assert parameters["tf_frame_prefix_enable"] is False


@pytest.mark.parametrize("namespace", ["", "lab"])
def test_the_real_arm_s_manager_runs_at_the_rate_of_its_bus_in_the_order_in_which_launch_gives_files(
    namespace: str,
) -> None:
    """`-p use_sim_time` comes first and creates an entry for all nodes: entries that name the node must override it."""
    files = [str(REPOSITORY / f"config/controllers/{name}.yaml") for name in ("widowx", "widowx_real")]
    arguments = ["--ros-args", "-p", "use_sim_time:=false", *(word for f in files for word in ("--params-file", f))]
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context)
    try:
        node = Node(
            "controller_manager",
            namespace=namespace,
            context=context,
            automatically_declare_parameters_from_overrides=True,
        )
        assert node.get_parameter("update_rate").value == 10
        assert node.get_parameter("enforce_command_limits").value is True
    finally:
        rclpy.shutdown(context=context)
