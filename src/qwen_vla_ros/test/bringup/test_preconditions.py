# SPDX-License-Identifier: Apache-2.0
"""A wrong launch argument is one line with the argument, its value and what would be correct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qwen_vla_ros.bringup.preconditions import ArgumentError, check_policy, check_scene, found


def refused(said: str):
    """The error, whose one line contains this text."""
    return pytest.raises(ArgumentError, match=f"^[^\\n]*{re.escape(said)}[^\\n]*$")


def test_a_missing_file_is_reported_with_the_argument_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with refused(f"embodiment_config:=mine.yaml: there is no such file (seen from {tmp_path})"):
        found("mine.yaml", "embodiment_config")
    (tmp_path / "mine.yaml").touch()
    assert found("mine.yaml", "embodiment_config") == tmp_path / "mine.yaml"
    assert found("config/embodiments/widowx.yaml", "embodiment_config").is_file()  # relative to the suite


@pytest.mark.parametrize("seed", ["-1", "1.5", "abc", ""])
def test_a_seed_is_an_integer_of_at_least_0(seed: str) -> None:
    with refused(f"seed:={seed}: a seed must be an integer of at least 0"):
        check_scene("widowx", seed, "", "")


@pytest.mark.parametrize("suite, task, shift, said", [
    ("widowx_pick", "", "colour", "shift:=colour: the suite widowx_pick has none"),
    ("aloha", "dance", "", "task:=dance: the suite aloha has "),
])  # fmt: skip
def test_a_suite_offers_its_own_tasks_and_shifts(suite: str, task: str, shift: str, said: str) -> None:
    with refused(said):
        check_scene(suite, "0", task, shift)
    check_scene("widowx", "0", "", "colour")


@pytest.mark.parametrize("policy, said", [
    ("no_such", "policy:=no_such: no checkpoint directory at no_such"),
    ("strange://host", "policy:=strange://host: "),
])  # fmt: skip
def test_a_policy_has_to_exist_before_its_node_starts(policy: str, said: str) -> None:
    with refused(said):
        check_policy(policy, "cpu")
    check_policy("none", "cuda:99")
    check_policy("tiny", "cpu")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cuda:x"])
def test_a_device_has_to_exist(device: str) -> None:
    with refused(f"device:={device}: "):
        check_policy("tiny", device)
