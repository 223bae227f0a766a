# SPDX-License-Identifier: Apache-2.0
"""JSON of others: what is wrong is one line with the file, the field and the value."""

import pytest
from pydantic import BaseModel

from qwen_vla.json_files import read_json


class Robot(BaseModel):
    """A file, for instance."""

    joints: list[str]
    rate: float = 5.0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"joints": ["waist"], "rate": "fast"}', r"rate: .* valid number.*, got 'fast'; write it again"),
        (b'{"joints": ["waist", 3]}', r"joints.1: .* valid string, got 3"),
        (b"{}", "joints: missing"),
        (b'{"joints": ', "not JSON"),
        (b'{"joints": ["\xff"]}', "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b'{"joints": ["\\ud800"]}', "not JSON|joints.0"),
        (b'{"joints": "' + b"x" * 10_000 + b'"}', "joints: .*valid (array|list)"),
        (b'{"joints": [' + b"1, " * 999 + b"1]}", "; and 995 more"),
    ],
)
def test_what_is_wrong_is_one_short_line(tmp_path, content, text):
    file = tmp_path / "robot.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=text) as error:
        read_json(file, Robot, "write it again")
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    assert len(str(error.value)) < 600 + len(str(file))


def test_what_is_right_is_read_as_its_type(tmp_path):
    file = tmp_path / "robot.json"
    file.write_text('{"joints": ["waist"], "rate": 30, "of_a_later_version": 1}')
    assert read_json(file, Robot) == Robot(joints=["waist"], rate=30.0)
    assert read_json(file)["of_a_later_version"] == 1
    with pytest.raises(FileNotFoundError, match="gone.json is missing; write it again"):
        read_json(tmp_path / "gone.json", Robot, "write it again")
    with pytest.raises(ValueError, match=" is a folder, not a file; write it again"):
        read_json(tmp_path, Robot, "write it again")
