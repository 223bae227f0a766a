"""`qwen-vla inspect` of bags, and conversion by the same checks."""

import numpy as np
import pytest
from test_rosbag import START, WIDOWX, Bag, S, joints_at, record

from qwen_vla.data.convert import BadEpisodes, convert
from qwen_vla.data.convert_options import ConvertOptions
from qwen_vla.inspection import inspect


def bag(path, far=()):
    """Three seconds; `far`: numbers of the joint messages whose elbow is in degrees."""
    with Bag(path) as writer:
        record(writer, 3.0, without=("joints",))
        for number in range(300):
            values = joints_at(number / 100)
            values[2] = np.degrees(values[2]) if number in far else values[2]
            writer.joints(START + number * S // 100, values)
    return path


def test_a_bag_is_described(tmp_path):
    findings = inspect(bag(tmp_path / "bag"), robot="widowx", instruction="lift it", row=2)
    assert findings.ok, findings.problems
    assert findings.episodes == 1 and findings.rows == 15 and findings.rate_hz == WIDOWX.rate_hz
    assert {camera.tag: (camera.width, camera.height) for camera in findings.cameras} == {
        "ego": (32, 24),
        "cam_wrist": (32, 24),
    }
    assert list(findings.sample["state"]) == list(WIDOWX.joint_names)
    assert findings.instructions == [{"text": "lift it", "rows": 15}]


def test_a_bag_without_instruction_or_robot_is_refused_with_the_remedy(tmp_path):
    path = bag(tmp_path / "bag")
    assert "no instruction" in inspect(path, robot="widowx").problems[0].what
    assert "--robot" in inspect(path, instruction="lift it").problems[0].remedy


def test_what_inspection_refuses_conversion_refuses(tmp_path):
    path = bag(tmp_path / "bags/far", far=range(100, 140))
    findings = inspect(path, robot="widowx", instruction="lift it")
    assert findings.bad_rows == 2 and "elbow is" in findings.bad_rows_listed[0]
    options = ConvertOptions(path.parent, tmp_path / "out", "widowx", instruction="lift it", workers=1)
    with pytest.raises(BadEpisodes, match=r"2 of 15 rows are bad: row 5: observation.state: elbow is .* limit 1.61"):
        convert(options)
