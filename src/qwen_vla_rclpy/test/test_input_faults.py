# SPDX-License-Identifier: Apache-2.0
"""Input faults are counted by place, reported once, and no longer a problem when they are over."""

from qwen_vla_rclpy.input_faults import ELSEWHERE, PLACES, RECENT, REPEAT, InputFaults


def test_a_fault_is_reported_once_and_again_only_after_a_while():
    faults = InputFaults()
    assert [faults.add("/chunk", "too large", now) for now in (0.0, 0.1, REPEAT - 0.1)] == [True, False, False]
    assert faults.add("/joint_states", "too large", 0.2), "another place has not been reported yet"
    assert faults.add("/chunk", "too large", REPEAT)
    assert faults.count("/chunk") == 4 and faults.count("/nowhere") == 0 and faults.total == 5


def test_a_fault_is_a_problem_while_it_is_recent():
    faults = InputFaults()
    faults.add("/chunk", "too large", 0.0)
    faults.add("/chunk", "cannot be read", 1.0)
    assert faults.recent(1.0 + RECENT / 2) == {"/chunk": "cannot be read"}
    assert faults.recent(1.0 + RECENT) == {}


def test_more_places_than_any_node_has_take_no_more_memory():
    faults = InputFaults()
    for number in range(10 * PLACES):
        faults.add(f"/topic_{number}", "too large", 0.0)
    assert len(faults.recent(0.0)) == PLACES + 1
    assert faults.count(ELSEWHERE) == 9 * PLACES
