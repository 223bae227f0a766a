# SPDX-License-Identifier: Apache-2.0
"""The enumerations in the code match those of the interfaces: the same names for the same numbers."""

import re
from enum import IntEnum
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory

from embodiment_descriptions import ControlMode
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ActionChunk
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.ros.reports import Ending, Verdict

CONSTANT = re.compile(r"^(\w+) ([A-Z][A-Z0-9_]*) *= *(\S+)", re.MULTILINE)


@pytest.fixture
def share(monkeypatch) -> Path:
    """Share folder of the installed interfaces, with their definitions."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", ros_environment()["AMENT_PREFIX_PATH"])
    return Path(get_package_share_directory("qwen_vla_msgs"))


def constants(path: Path, kind: str) -> dict[str, str]:
    """Name → value of all constants of an interface type."""
    return {name: value.strip('"') for found, name, value in CONSTANT.findall(path.read_text()) if found == kind}


@pytest.mark.parametrize(("enumeration", "kind"), [(Verdict, "uint8"), (Reason, "uint16")])
def test_the_codes_of_a_report_are_those_of_the_message(share: Path, enumeration: type[IntEnum], kind: str) -> None:
    defined = {name: int(value) for name, value in constants(share / "msg/ChunkReport.msg", kind).items()}
    assert defined == {member.name: member.value for member in enumeration}


def test_a_control_mode_has_one_name(share: Path) -> None:
    defined = constants(share / "msg/ActionChunk.msg", "string")
    assert defined == {f"CONTROL_MODE_{mode.name}": mode.value for mode in ControlMode}
    assert all(getattr(ActionChunk, name) == value for name, value in defined.items())


def test_the_end_of_a_goal_has_one_number(share: Path) -> None:
    defined = {
        name: int(value) for name, value in constants(share / "action/ExecuteInstruction.action", "uint16").items()
    }
    endings = {member.name: member.value for member in Ending}
    assert endings == defined
    assert all(getattr(ExecuteInstruction.Result, name) == number for name, number in defined.items())


def test_an_end_that_is_not_known_here_is_no_error() -> None:
    assert Ending(9999) is Ending.UNKNOWN and f"{Ending.REFUSED_TOO_OFTEN}" == "refused too often"
