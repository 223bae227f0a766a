# SPDX-License-Identifier: Apache-2.0
"""Whoever may set parameters cannot make a running executor less careful."""

from __future__ import annotations

from lifecycle_msgs.msg import Transition

from qwen_vla_ros.executor.executor_parameters import PARAMETERS


def test_every_parameter_of_the_executor_is_fixed_at_the_start_or_by_configuring():
    assert [row.name for row in PARAMETERS if not (row.read_only or row.safety)] == []


def test_they_are_fixed_from_configuring_to_cleaning_up(peer, processes):
    processes.start("executor_node")
    peer.wait_until_active("executor_node")
    weaker = {row.name: row.maximum for row in PARAMETERS if row.maximum is not None}
    assert {"heartbeat_timeout", "joint_state_timeout", "max_observation_age", "following_tolerance"} <= set(weaker)
    for name, value in weaker.items():
        assert not peer.set_parameter("executor_node", name, value), name
    assert peer.transition("executor_node", Transition.TRANSITION_DEACTIVATE)
    assert not peer.set_parameter("executor_node", "heartbeat_timeout", 10.0)
    assert peer.transition("executor_node", Transition.TRANSITION_CLEANUP)
    assert peer.set_parameter("executor_node", "heartbeat_timeout", 1.0)
    assert not peer.set_parameter("executor_node", "following_tolerance", 1.0), "only at start"
    assert peer.transition("executor_node", Transition.TRANSITION_CONFIGURE)
    assert not peer.set_parameter("executor_node", "heartbeat_timeout", 0.4)
