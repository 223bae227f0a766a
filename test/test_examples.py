# SPDX-License-Identifier: Apache-2.0
"""The examples run as they are, and print what their pages say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def output(name: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_has_a_test() -> None:
    """Beside this one, or in test_your_own_robot.py, which runs the tutorial's commands."""
    files = [*Path(__file__).parent.glob("test_*.py"), EXAMPLES.parent / "docs/tutorial/your_own_robot.md"]
    tests = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in tests] == []


def test_a_robot_is_described_by_its_own_files() -> None:
    text = output("describe_a_robot.py", str(EXAMPLES / "so101/so101.yaml"))
    assert text == output("describe_a_robot.py") and "SO-101: joint_position, 30 Hz" in text
    assert "The robot is SO-101 with single arm." in text and "task: put the block into the box." in text


def test_an_image_gives_a_chunk() -> None:
    text = output("infer_one_image.py", "9003")
    assert "16 actions, one each 0.2 s" in text and "x        y        z       rx       ry       rz  gripper" in text
    assert len([line for line in text.splitlines()[3:] if len(line.split()) == 7]) == 8


def test_one_chunk_is_accepted_and_one_is_refused_as_the_tutorial_shows_it() -> None:
    text = output("gate_a_chunk.py")
    shown = (EXAMPLES.parent / "docs/tutorial/first_ten_minutes.md").read_text(encoding="utf-8")
    assert "accepted" in text and "refused, OUT_OF_WORKSPACE" in text
    assert all(f"    {line}\n" in shown for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_is_fine_tuned_on_recordings_and_evaluated(tmp_path: Path) -> None:
    text = output("record_train_evaluate.py", str(tmp_path / "example"), "3")
    steps = [line.split()[2] for line in text.splitlines() if line.startswith("$ qwen-vla")]
    assert steps == ["collect", "inspect", "train", "evaluate"]
    assert (tmp_path / "example/train/model/model.safetensors").is_file()
    assert "ok: training on it would be right" in text and re.search(r"^widowx: \d of 2 \(", text, re.MULTILINE)
