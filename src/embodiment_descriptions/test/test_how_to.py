"""The example of docs/how-to/describe_a_robot.md is a robot, and the page names what there is."""

import re

from embodiment_descriptions import Embodiment, resource_path
from embodiment_descriptions.commands import installed_kinds

PAGE = resource_path("docs/how-to/describe_a_robot.md").read_text(encoding="utf-8")


def test_the_example_describes_a_robot(small: tuple[str, dict]) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    e = Embodiment.from_urdf(small[0], example)
    assert (e.name, e.channel_names[-1]) == ("my_robot", "gripper")
    assert [command.backend for command in e.commands] == ["joint_trajectory", "gripper_action"]


def test_every_backend_is_named() -> None:
    assert [backend for backend in installed_kinds() if f"`{backend}`" not in PAGE] == []


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"`(config/[\w/]+\.yaml)`", PAGE)
    assert len(named) >= 2 and all(resource_path(name).is_file() for name in named)
