# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/describe_a_robot.md names what there is; its commands run in test/test_add_an_arm.py."""

import re

from embodiment_descriptions import resource_path
from embodiment_descriptions.commands import installed_kinds

PAGE = resource_path("docs/how-to/describe_a_robot.md").read_text(encoding="utf-8")


def test_every_backend_is_named() -> None:
    assert [backend for backend in installed_kinds() if f"`{backend}`" not in PAGE] == []


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"`(config/[\w/]+\.yaml)`", PAGE)
    assert len(named) >= 2 and all(resource_path(name).is_file() for name in named)
