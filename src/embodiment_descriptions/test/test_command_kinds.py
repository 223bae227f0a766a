# SPDX-License-Identifier: Apache-2.0
"""Kinds of command interfaces come from installed packages, and say where their other parts are."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embodiment_descriptions import Embodiment, EmbodimentError, describe
from embodiment_descriptions.commands import (
    KINDS,
    CommandInterface,
    GripperActionCommand,
    find_kind,
    installed_kinds,
    make_part,
)

SERVO = '''
from typing import ClassVar, Literal
from embodiment_descriptions.commands import TopicCommand

class Servo(TopicCommand):
    """A bus of servos."""

    message_types: ClassVar = ("servo_msgs/msg/Angles",)
    recorded: ClassVar = "servo_bus:read"
    simulated: ClassVar = "servo_bus:Simulated"

    backend: Literal["servo"]
    joints: tuple[str, ...]
    gain: float = 1.0

    @property
    def commanded(self):
        return self.joints

class Simulated:
    def __init__(self, number): self.number = number
    def take(self): ...
'''
ENTRY = {"backend": "servo", "topic": "bus/angles", "joints": ["j1", "j2", "j3", "slide"]}
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package: (its name, the text of its module servo_bus, its entry points)."""
    monkeypatch.delitem(sys.modules, "servo_bus", raising=False)

    def package(name: str, module: str, **entries: str) -> None:
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "servo_bus.py").write_text(module)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{backend} = {where}" for backend, where in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[qwen_vla.command_interfaces]", *lines]))
        monkeypatch.syspath_prepend(folder)

    yield package
    sys.modules.pop("servo_bus", None)


def test_the_kinds_of_the_suite_are_installed_under_their_backends() -> None:
    assert {find_kind(name) for name in installed_kinds()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_the_suite_says_all_that_is_needed(kind: type[CommandInterface]) -> None:
    assert kind.ros_side and kind.recorded and kind.start_hint
    assert all("/action/" in name if kind.is_action else "/msg/" in name for name in kind.message_types)
    assert kind.simulated or kind is GripperActionCommand


def test_a_kind_of_another_package_is_read_and_described(small: tuple[str, dict], install: Install) -> None:
    install("bus", SERVO, servo="servo_bus:Servo")
    assert "servo" in installed_kinds()
    e = Embodiment.from_urdf(small[0], small[1] | {"commands": [ENTRY | {"gain": 2}]})
    assert (type(e.commands[0]).__name__, e.commands[0].gain) == ("Servo", 2.0)
    assert re.search("servo +bus/angles: j1, j2, j3, slide\n", describe(e))
    again = Embodiment.from_urdf(small[0], small[1] | {"commands": e.model_dump()["commands"]})
    assert again.commands == e.commands, "nothing is lost when a configuration is written down"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gian": 2}, "commands.0.gian: unknown key; did you mean 'gain'"),
        ({"gain": "high"}, "commands.0.gain: Input should be a valid number"),
        ({"joints": ["j1"]}, "no entry of commands moves j2, j3, slide"),
    ],
)
def test_its_keys_are_checked_as_those_of_the_suite(
    small: tuple[str, dict], install: Install, change: dict, message: str
) -> None:
    install("bus", SERVO, servo="servo_bus:Servo")
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(small[0], small[1] | {"commands": [ENTRY | change]})


def test_a_kind_that_moves_nothing_is_refused(small: tuple[str, dict], install: Install) -> None:
    install("bus", SERVO.replace("def commanded", "def moved"), servo="servo_bus:Servo")
    arm = {"backend": "joint_trajectory", "topic": "t", "joints": ENTRY["joints"]}
    with pytest.raises(EmbodimentError, match="servo moves neither joints nor the base; its class Servo has to say so"):
        Embodiment.from_urdf(small[0], small[1] | {"commands": [arm, ENTRY]})


@pytest.mark.parametrize(
    ("module", "where", "message"),
    [
        (SERVO, "servo_bus:Motor", "'servo' of package bus cannot be imported: .*Motor"),
        ("import driver_of_nobody", "servo_bus:Servo", "'servo' of package bus cannot be imported: .*driver_of_nobody"),
        (SERVO, "servo_bus:Simulated", "servo_bus:Simulated of package bus is not the command interface 'servo'"),
        (SERVO.replace('["servo"]', '["bus"]'), "servo_bus:Servo", 'with `backend: Literal."servo".`'),
    ],
)
def test_a_faulty_package_is_named(install: Install, module: str, where: str, message: str) -> None:
    install("bus", module, servo=where)
    with pytest.raises(ValueError, match=message):
        find_kind("servo")


def test_two_packages_of_one_kind_are_named(install: Install) -> None:
    install("bus", SERVO, servo="servo_bus:Servo")
    install("other_bus", SERVO, servo="servo_bus:Servo")
    with pytest.raises(ValueError, match="more than one package provides .* 'servo': bus, other_bus; uninstall one"):
        find_kind("servo")


def test_a_part_is_made_when_it_is_asked_for(install: Install) -> None:
    install("bus", SERVO, servo="servo_bus:Servo")
    command = find_kind("servo").model_validate(ENTRY)
    made = make_part(command, "simulated", ["take"], 3)
    assert isinstance(made, sys.modules["servo_bus"].Simulated) and made.number == 3
    for part, offered, message in (
        ("ros_side", (), "'servo' has no ROS side; command the robot through another one here, or name .* of Servo"),
        ("recorded", (), "'servo': its reader of recorded commands, servo_bus:read, cannot be imported"),
        ("simulated", ("take", "hold", "update"), "'servo': its stand-in in the simulator, .* lacks hold, update"),
    ):
        with pytest.raises(ValueError, match=f"command interface {message}"):
            make_part(command, part, offered, 3)


def test_what_the_parts_of_the_suite_are_is_known_without_importing_them() -> None:
    program = (
        "import sys; from embodiment_descriptions.commands import JointTrajectoryCommand as Command; "
        "command = Command(backend='joint_trajectory', topic='t', joints=('j1',)); "
        "sys.exit(command.ros_side.partition(':')[0] in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
