# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/add_an_episode_source.md as it stands there: its one module in a package of its own, and its command."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext

PAGE = Path(__file__).resolve().parents[1] / "docs/how-to/add_an_episode_source.md"
WIDOWX = load_robot("widowx")
ROWS = 25
CONTEXT = SourceContext(QwenVLAConfig.preset("tiny"), 0.0)


def block(language: str) -> str:
    """The only block of a language on the page."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return text


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder in which the page's package is installed, with nothing but itself; no network."""
    folder, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("teleop_log")
    (source / "teleop_log.py").write_text(block("python"))
    (source / "pyproject.toml").write_text(block("toml"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", folder, source], check=True)
    return folder


def log(seed: int, task: str, **changes) -> dict[str, np.ndarray]:
    """An episode of the page's format: the arms sway, and the pictures are noise."""
    rng = np.random.default_rng(seed)
    home = np.array([WIDOWX.home[name] for name in WIDOWX.joint_names])
    sway = home + 0.02 * np.sin(np.arange(ROWS + 1)[:, None] / 5 + np.arange(len(home)))
    sway[:, -1] = 0.02  # the fingers stay as they are
    views = {view: rng.integers(0, 256, (ROWS, 24, 32, 3), dtype=np.uint8) for view in ("top_view", "wrist_view")}
    return {"hz": 10.0, "task": task, "success": True, "qpos": sway[:-1], "command": sway[1:]} | views | changes


@pytest.fixture
def logs(tmp_path):
    """Three episodes, the last of which failed; by name."""
    folder, made = tmp_path / "out/teleop", {}
    folder.mkdir(parents=True)
    for seed, task in enumerate(("lift the cube", "push the cube", "drop the cube")):
        made[f"{seed}.npz"] = log(seed, task, success=seed < 2)
        np.savez(folder / f"{seed}.npz", **made[f"{seed}.npz"])
    return made


def run(folder: Path, path: str = "", *more: str) -> subprocess.CompletedProcess:
    """The command of the page in a folder, with `path` to find more packages in."""
    program, *words = shlex.split(block("sh"))
    return subprocess.run(
        [Path(sys.executable).parent / program, *words, *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_an_episode_of_the_added_format_becomes_a_data_set(package, tmp_path, logs):
    converted = run(tmp_path, str(package))
    assert converted.returncode == 0, converted.stderr
    summary = json.loads(converted.stdout)
    assert (summary["episodes"], summary["rows"], summary["failed_left_out"]) == (2, 2 * ROWS, ["2.npz"])
    reader = LeRobotReader(tmp_path / "out/data/teleop")
    assert reader.tasks == ["lift the cube", "push the cube"] and reader.rate_hz == 10.0
    assert reader.info["robot_type"] == "widowx" and reader.features["action"] == WIDOWX.joint_names
    for number, episode in enumerate(list(logs.values())[:2]):
        first, end = reader.episodes[number]
        np.testing.assert_allclose(reader.frames["observation.state"][first:end], episode["qpos"], atol=1e-6)
        np.testing.assert_allclose(reader.frames["action"][first:end], episode["command"], atol=1e-6)
        for row in range(ROWS):
            image = reader.image("observation.images.ego", int(first) + row)
            np.testing.assert_array_equal(image, episode["top_view"][row])


def test_a_recipe_takes_the_folder_as_it_is(package, tmp_path, logs, monkeypatch):
    assert run(tmp_path, str(package), "--failed", "keep").returncode == 0
    monkeypatch.syspath_prepend(package)
    direct = RobotData(kind="robot", path=str(tmp_path / "out/teleop"), robot="widowx").open(CONTEXT)
    converted = RobotData(kind="robot", path=str(tmp_path / "out/data/teleop")).open(CONTEXT)
    np.testing.assert_array_equal(direct.training, converted.training)
    for index in map(int, direct.training):
        ours, theirs = direct.sample(index, None), converted.sample(index, None)
        assert ours.text == theirs.text and "10 Hz" in ours.text
        np.testing.assert_allclose(ours.actions, theirs.actions, atol=1e-3)
        for tag, image in ours.images.items():
            np.testing.assert_array_equal(image, theirs.images[tag])


def test_a_recording_that_cannot_be_used_is_named(package, tmp_path, logs):
    np.savez(tmp_path / "out/teleop/1.npz", **{name: logs["1.npz"][name] for name in ("task", "success", "qpos")})
    refused = run(tmp_path, str(package))
    assert refused.returncode == 1
    assert "1.npz: out/teleop/1.npz lacks command, hz, top_view, wrist_view; record it again" in refused.stderr


def test_options_that_say_nothing_to_the_format_are_refused(package, tmp_path, logs):
    said = run(tmp_path, str(package), "--marker-topic", "episode").stderr
    assert "is read by TeleopLog, which does not support marker_topic; it supports: instruction" in said
    assert "has 10 rows per second, which TeleopLog does not resample; omit --rate-hz 5" in (
        run(tmp_path, str(package), "--rate-hz", "5").stderr
    )


def test_a_folder_that_two_sources_recognize_is_refused(package, tmp_path, logs):
    (tmp_path / "out/teleop/meta").mkdir()
    (tmp_path / "out/teleop/meta/info.json").write_text("{}")
    refused = run(tmp_path, str(package))
    assert refused.returncode == 1
    assert (
        "out/teleop contains 3 *.npz, meta/; more than one source recognizes it: lerobot (package qwen_vla), teleop_log"
        " (package teleop-log); installed: lerobot (package qwen_vla), rosbag (package qwen_vla), teleop_log"
        in refused.stderr
    )


def test_without_the_package_the_sources_that_there_are_are_named(tmp_path, logs):
    refused = run(tmp_path)
    assert refused.returncode == 1
    assert (
        "out/teleop contains 3 *.npz; no source recognizes it; installed: lerobot (package qwen_vla), rosbag (package "
        "qwen_vla). To add one: docs/how-to/add_an_episode_source.md" in refused.stderr
    )
