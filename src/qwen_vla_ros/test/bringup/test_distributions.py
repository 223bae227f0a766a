# SPDX-License-Identifier: Apache-2.0
"""Differences between ROS distributions are in one table."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_typestore

from qwen_vla_ros.ros import environment
from qwen_vla_ros.ros.distributions import DISTRIBUTIONS, distribution, of_wheels

OURS = "qwen_vla_msgs"
# The time of a transition is `timestamp` [ns] up to Kilted, `stamp` from Lyrical on; nothing reads it.
CHANGED_MESSAGES = {"lifecycle_msgs/msg/TransitionEvent"}


def sources() -> list[Path]:
    """Modules of all packages, without tests."""
    return list(Path(__file__).resolve().parents[3].glob("*/*_*/**/*.py"))


def imported_messages() -> set[str]:
    """Names of the messages of others that our packages import, as `package/msg/Name`."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources()]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {
        f"{node.module.replace('.', '/')}/{alias.name}"
        for node in imports
        if node.module.endswith(".msg") and not node.module.startswith(OURS)
        for alias in node.names
    }


def test_the_messages_that_are_used_are_the_same_in_all_distributions_but_one_field_that_nothing_reads() -> None:
    messages = imported_messages()
    assert len(messages) > 30 and {"sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"} <= messages
    stores = [get_typestore(Stores[f"ROS2_{name.upper()}"]) for name in DISTRIBUTIONS]
    definitions = {name: {store.generate_msgdef(name, ros_version=2)[0] for store in stores} for name in messages}
    assert {name for name, texts in definitions.items() if len(texts) > 1} == CHANGED_MESSAGES
    assert [path.name for path in sources() if ".timestamp" in path.read_text(encoding="utf-8")] == []


def test_the_shell_s_distribution_is_used_and_an_unknown_one_counts_as_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert distribution() is DISTRIBUTIONS["jazzy"]
    monkeypatch.delenv("ROS_DISTRO")
    assert distribution() is distribution("rolling") is DISTRIBUTIONS["lyrical"]


def test_the_how_to_matches_the_table_for_each_distribution() -> None:
    page = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "bring_up.md"
    lines = [line.strip("|").split("|") for line in page.read_text().splitlines() if line.startswith("|")]
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert [name.lower() for name in rows["Gazebo"]] == [d.gazebo.lower() for d in DISTRIBUTIONS.values()]
    (sends,) = [cells for name, cells in rows.items() if name.startswith("Nav2 publishes")]
    assert [cell.startswith("TwistStamped") for cell in sends] == [d.nav2_sends_stamped for d in DISTRIBUTIONS.values()]
    assert ["enable_stamped_cmd_vel" in cell for cell in sends] == [
        not d.nav2_sends_stamped for d in DISTRIBUTIONS.values()
    ]


@pytest.mark.parametrize("name, variable", [("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
                                            ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE")])  # fmt: skip
def test_fast_dds_finds_its_profile_by_the_variable_of_its_version(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_uses_wheels", lambda: False)
    given = environment.ros_environment(base={"ROS_DISTRO": name})
    assert [key for key in given if key.endswith("_DEFAULT_PROFILES_FILE")] == [variable]


def test_wheels_tell_their_distribution_to_every_process() -> None:
    if (name := of_wheels()) is None:
        pytest.skip("ROS 2 is not from wheels here")
    given = environment.ros_environment(base={"PATH": "/usr/bin", "ROS_DISTRO": "humble"})
    assert given["ROS_DISTRO"] == name
    rclpy = int(version("ros-rclpy").split(".")[0])
    assert {"jazzy": 7, "kilted": 9}[name] == rclpy, "wheels of two distributions are mixed"
    assert ("FASTRTPS_DEFAULT_PROFILES_FILE" in given) == (DISTRIBUTIONS[name].fast_dds == 2)
