# SPDX-License-Identifier: Apache-2.0
"""A node's robot: its robot_description from the graph, its YAML by name or by path."""

import pytest

from embodiment_descriptions import EmbodimentError, embodiment_file, load_robot
from qwen_vla_ros.ros.embodiment_source import read_embodiment

WIDOWX = load_robot("widowx")


def test_by_default_it_is_the_robot_named_in_the_description():
    assert read_embodiment(WIDOWX.urdf, "") == read_embodiment(WIDOWX.urdf, "widowx") == WIDOWX


def test_a_yaml_is_named_by_its_path_and_the_description_is_that_of_the_graph(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(embodiment_file("widowx").read_text().replace("ego/image_raw", "desk/image_raw"))
    (tmp_path / "mine.urdf").write_text("<robot/>")
    robot = read_embodiment(WIDOWX.urdf, str(file))
    assert robot.cameras[0].topic == "desk/image_raw" and robot.urdf == WIDOWX.urdf
    assert read_embodiment(WIDOWX.urdf, "config/embodiments/widowx.yaml") == WIDOWX


def test_a_robot_that_the_suite_does_not_know_needs_its_yaml():
    strange = WIDOWX.urdf.replace('name="widowx"', 'name="robbie"', 1)
    with pytest.raises(EmbodimentError, match="unknown robot 'robbie'; known robots: .* path of its embodiment YAML"):
        read_embodiment(strange, "")


@pytest.mark.parametrize("name", ["lab/mine.yaml", "mine.yaml", "mine.urdf"])
def test_the_name_in_a_description_is_never_taken_for_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    for file in ("lab/mine.yaml", "mine.yaml"):
        (tmp_path / file).write_text(embodiment_file("widowx").read_text())
    with pytest.raises(EmbodimentError, match=rf"is named '{name}'; set the parameter embodiment_config"):
        read_embodiment(WIDOWX.urdf.replace('name="widowx"', f'name="{name}"', 1), "")
