# SPDX-License-Identifier: Apache-2.0
"""A robot is found by its name or by the path of its YAML, with the description beside it."""

import shutil
from pathlib import Path

import pytest

from embodiment_descriptions import (
    EmbodimentError,
    ResourceError,
    description_of,
    embodiment_file,
    known_robot,
    load_robot,
    read_robot,
    resource_path,
)

SO101 = resource_path("examples/so101/so101.yaml")
XACRO = SO101.with_name("so101.urdf.xacro")
REMEDY = "known robots: aloha, mobile_base, widowx; for your own robot, give the path of its embodiment YAML"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The YAML of an arm outside the suite, with its xacro beside it."""
    shutil.copy(XACRO, tmp_path / "mine.urdf.xacro")
    file = tmp_path / "mine.yaml"
    file.write_text(SO101.read_text().replace("name: so101", "name: lab_arm", 1))
    return file


def test_by_name_the_hardware_may_have_a_yaml_of_its_own() -> None:
    assert embodiment_file("aloha").name == "aloha.yaml"
    assert embodiment_file("aloha", "real").name == "aloha_real.yaml"
    assert load_robot("aloha", "real") != load_robot("aloha") == known_robot("aloha")


def test_by_path_the_description_lies_beside_the_yaml(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = load_robot(own)
    assert robot.name == "lab_arm" and not robot.inferred and robot.joint_names[0] == "shoulder_pan"
    monkeypatch.chdir(own.parent)
    assert load_robot("mine.yaml") == load_robot("./mine.yaml") == robot
    monkeypatch.setenv("HOME", str(own.parent))
    assert load_robot("~/mine.yaml") == robot
    assert load_robot("examples/so101/so101.yaml").name == "so101", "relative to the suite, too"


@pytest.mark.parametrize("name", ["mine.urdf", "lab_arm.urdf", "description.urdf"])
def test_it_is_called_as_the_yaml_or_as_the_robot_or_is_the_only_one(own: Path, name: str) -> None:
    urdf = load_robot(own).urdf
    (own.parent / "mine.urdf.xacro").unlink()
    (own.parent / name).write_text(urdf)
    assert load_robot(own).urdf == urdf
    if name != "description.urdf":
        (own.parent / "table.urdf").write_text("<robot name='table'><link name='top'/></robot>")
        assert load_robot(own).urdf == urdf


def test_what_is_wrong_with_a_robot_names_its_files(own: Path) -> None:
    own.write_text(own.read_text().replace("shoulder_pan", "shoulder_pam"))
    with pytest.raises(EmbodimentError, match=r"mine\.yaml: .*'shoulder_pam'; did you mean 'shoulder_pan'"):
        load_robot(own)
    xacro = own.with_name("mine.urdf.xacro")
    with pytest.raises(EmbodimentError, match=r"mine\.urdf\.xacro with .*mine\.yaml: .*'shoulder_pam'"):
        read_robot(xacro, own)
    empty = own.with_name("empty.urdf")
    empty.write_text("")
    with pytest.raises(EmbodimentError, match=r"empty\.urdf: the URDF is empty"):
        read_robot(empty)


def test_which_one_is_meant_is_never_guessed(own: Path) -> None:
    (own.parent / "mine.urdf.xacro").rename(own.parent / "left.urdf.xacro")
    shutil.copy(own.parent / "left.urdf.xacro", own.parent / "right.urdf.xacro")
    expected = (
        r"several descriptions .* \(left.urdf.xacro, right.urdf.xacro\); rename the one .* mine.urdf or mine.urdf.x"
    )
    with pytest.raises(EmbodimentError, match=expected):
        load_robot(own)


def test_a_yaml_alone_takes_the_suites_description_of_the_robot_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "desk.yaml"
    file.write_text(embodiment_file("widowx").read_text().replace("ego/image_raw", "desk/image_raw"))
    robot = load_robot(file)
    assert robot.cameras[0].topic == "desk/image_raw" and robot.urdf == load_robot("widowx").urdf
    file.write_text(file.read_text().replace("name: widowx", "name: mine", 1))
    assert description_of(file) is None
    with pytest.raises(EmbodimentError, match=r"desk\.yaml: no description of the robot 'mine' .* as desk\.urdf or"):
        load_robot(file)


@pytest.mark.parametrize("word", ["robbie", "no/such", "mine.urdf", "mine.urdf.xacro"])
def test_what_is_no_robot_is_named_with_those_there_are(word: str) -> None:
    with pytest.raises(EmbodimentError, match=f"{word}.*; {REMEDY}"):
        load_robot(word)


def test_a_missing_yaml_is_named_with_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ResourceError, match=rf"^mine\.yaml: no such embodiment YAML \(relative to {tmp_path}\); {REMEDY}"
    ):
        load_robot("mine.yaml")


def test_a_name_out_of_a_file_is_never_taken_for_a_path(own: Path) -> None:
    with pytest.raises(EmbodimentError, match="unknown robot"):
        known_robot(str(own))
