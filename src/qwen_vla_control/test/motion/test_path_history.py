# SPDX-License-Identifier: Apache-2.0
"""What was commanded at any moment of the last seconds, whichever path replaced another meanwhile."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.motion.path_history import PathHistory

S = 10**9
KEPT = 0.5  # [s]


def line(start: float, end: float) -> JointPath:
    """One joint at constant speed for a second, from one position to another."""
    speed = np.full((3, 1), end - start)
    return JointPath(("waist",), 0.5, np.linspace([start], [end], 3), speed)


@pytest.fixture
def history() -> PathHistory[JointPath]:
    return PathHistory(KEPT)


def test_what_was_commanded_is_on_the_path_that_was_valid_then(history):
    history.begin(line(0.0, 1.0), 10 * S)
    history.begin(line(5.0, 6.0), 10 * S + S // 2)
    for since, expected in ((0.0, 0.0), (0.25, 0.25), (0.4999, 0.4999), (0.5, 5.0), (0.75, 5.25), (1.5, 6.0)):
        assert history.at(10 * S + since * S) == pytest.approx(expected)
    assert history.at(9 * S) == pytest.approx(0.0)  # before the oldest, where that begins


def test_the_motion_is_as_old_as_its_first_path_until_it_ends(history):
    assert history.since_ns == 0 and history.latest is None
    history.begin(line(0.0, 1.0), 3 * S)
    newest = line(1.0, 2.0)
    history.begin(newest, 4 * S)
    assert history.since_ns == 3 * S and history.latest is newest
    history.end()
    assert history.latest is None
    history.begin(line(0.0, 1.0), 7 * S)
    assert history.since_ns == 7 * S


@pytest.mark.parametrize(("last", "first_kept"), [(1.4, 0.0), (1.6, 1.0)])
def test_paths_are_forgotten_when_their_successor_is_older_than_what_is_kept(history, last, first_kept):
    for start in (0.0, 1.0, last):
        history.begin(line(start, start + 1.0), round((20 + start) * S))
    assert history.at(20 * S) == pytest.approx(first_kept)


def test_the_newest_two_paths_are_always_known(history):
    history.begin(line(0.0, 1.0), 0)
    history.begin(line(1.0, 2.0), 100 * S)
    assert history.at(0) == pytest.approx(0.0)


def test_the_pieces_are_cut_where_paths_replace_one_another_and_at_both_ends(history):
    history.begin(line(0.0, 1.0), 10 * S)
    history.begin(line(5.0, 6.0), 10 * S + S // 2)
    history.begin(line(7.0, 8.0), 10 * S + 3 * S // 4)
    found = [tuple(float(row[0]) for row in piece) for piece in history.pieces(10.25 * S, 10.9 * S)]
    assert found == [pytest.approx((0.25, 0.5)), pytest.approx((5.0, 5.25)), pytest.approx((7.0, 7.15))]
    assert [float(first[0]) for first, _ in history.pieces(10.6 * S, 10.7 * S)] == [pytest.approx(5.1)]
    assert list(history.pieces(9.0 * S, 10.0 * S)) == []
