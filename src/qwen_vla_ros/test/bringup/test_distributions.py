"""What differs between ROS distributions is in one table."""

from __future__ import annotations

import pytest

from qwen_vla_ros.ros.distributions import DISTRIBUTIONS, distribution


def test_the_shell_s_distribution_is_taken_and_an_unknown_one_counts_as_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert distribution() is DISTRIBUTIONS["jazzy"]
    monkeypatch.delenv("ROS_DISTRO")
    assert distribution() is distribution("rolling") is DISTRIBUTIONS["lyrical"]
