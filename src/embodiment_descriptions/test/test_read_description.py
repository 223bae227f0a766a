# SPDX-License-Identifier: Apache-2.0
"""A description is read from its file: any encoding that XML declares, and xacro with its arguments."""

from pathlib import Path

import pytest

from embodiment_descriptions import EmbodimentError, read_description, xacro_arguments
from embodiment_descriptions.urdf import parse_urdf

XACRO = '<robot name="r" xmlns:xacro="http://ros.org/wiki/xacro">{}</robot>'


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "utf-8", "UTF-8", "utf-16", "windows-1252"])
def test_the_encoding_is_the_one_that_the_file_declares(tmp_path: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<!-- Maße --><robot name="r"><link name="Größe"/></robot>'
    file = tmp_path / "r.urdf"
    file.write_bytes(text.encode(encoding))
    read = read_description(file)
    assert parse_urdf(read).links == ("Größe",) and "Maße" in read
    assert parse_urdf(read.encode().decode()).name == "r"


def test_a_file_without_declaration_is_utf_8_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "r.urdf"
    file.write_text('<robot name="r"><link name="Größe"/></robot>\n', encoding="utf-8")
    assert read_description(file) == file.read_text(encoding="utf-8")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert parse_urdf(read_description(file)).links == ("Größe",)


@pytest.mark.parametrize(
    "data", ['<robot name="ß"/>'.encode("latin-1"), b'<?xml version="1.0" encoding="klingon"?><robot name="r"/>']
)
def test_a_file_in_another_encoding_than_it_declares_is_named(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "r.urdf"
    file.write_bytes(data)
    with pytest.raises(EmbodimentError, match="r.urdf is not written in the encoding .*; save it as UTF-8"):
        read_description(file)


def test_the_first_bytes_count_more_than_the_declaration(tmp_path: Path) -> None:
    """As PowerShell writes `xacro robot.xacro > robot.urdf`: UTF-16, with the declaration of UTF-8."""
    file = tmp_path / "r.urdf"
    file.write_bytes(
        '<?xml version="1.0" encoding="utf-8"?>\r\n<robot name="r"><link name="Größe"/></robot>'.encode("utf-16")
    )
    assert parse_urdf(read_description(file)).links == ("Größe",)


def test_a_xacro_is_expanded_with_its_arguments(tmp_path: Path) -> None:
    file = tmp_path / "r.urdf.xacro"
    file.write_text(XACRO.format('<xacro:arg name="side" default="left_"/><link name="$(arg side)hand"/>'))
    assert parse_urdf(read_description(file)).links == ("left_hand",)
    assert parse_urdf(read_description(file, xacro_arguments(["side:=right_"]))).links == ("right_hand",)
    with pytest.raises(EmbodimentError, match="'side=right_' is not of the form name:=value"):
        xacro_arguments(["side=right_"])


def test_a_urdf_takes_no_arguments(tmp_path: Path) -> None:
    file = tmp_path / "r.urdf"
    file.write_text('<robot name="r"/>')
    with pytest.raises(EmbodimentError, match=r"r.urdf takes no arguments \(side\): it is not a .xacro"):
        read_description(file, {"side": "left_"})


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ('<xacro:include filename="$(find nobodys_pkg)/a.xacro"/>', "source the ROS workspace .*xacro FILE > my_robot"),
        ('<link name="$(arg side)hand"/>', "argument: side; give it a value: side:="),
        ('<xacro:arg name="side"/>', "missing attribute 'default'"),
    ],
)
def test_what_a_xacro_lacks_is_named_with_the_way_out(tmp_path: Path, inside: str, said: str) -> None:
    file = tmp_path / "r.urdf.xacro"
    file.write_text(XACRO.format(inside))
    with pytest.raises(EmbodimentError, match=f"cannot expand .*r.urdf.xacro: .*{said}"):
        read_description(file)


def test_a_xacro_that_is_no_text_is_refused_without_its_bytes(tmp_path: Path) -> None:
    xacro = tmp_path / "r.urdf.xacro"
    xacro.write_bytes(b"\xca" * 10_000)
    with pytest.raises(EmbodimentError, match="cannot expand .*r.urdf.xacro: .* 0xca .*; save it as UTF-8$") as error:
        read_description(xacro)
    assert len(str(error.value)) < 300 + len(str(xacro))


def test_a_xacro_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    folder = tmp_path / "r.urdf.xacro"
    folder.mkdir()
    with pytest.raises(EmbodimentError, match=r"^cannot expand (\S+): \S+r\.urdf\.xacro: Is a directory$"):
        read_description(folder)
