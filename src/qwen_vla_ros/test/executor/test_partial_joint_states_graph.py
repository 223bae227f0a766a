# SPDX-License-Identifier: Apache-2.0
"""Arm and gripper report on one topic, each from a publisher of its own: both count, each with its own age."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ros_peer import Peer, Processes

from embodiment_descriptions import load_robot
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport

ARM, GRIPPER = "arm_broadcaster", "gripper_broadcaster"


@pytest.fixture(scope="module")
def started() -> Iterator[Peer]:
    (arm,) = load_robot("widowx").arms
    with Peer(parts={ARM: arm.joints, GRIPPER: [arm.gripper.joint]}) as peer, Processes() as processes:
        processes.start("executor_node")
        peer.wait_until_active("executor_node")
        yield peer


@pytest.fixture
def peer(started: Peer) -> Peer:
    started.forget()
    started.restart("executor_node")
    started.silent.clear()
    started.wait_until_connected()
    started.clear()
    return started


def test_a_chunk_is_executed(peer):
    peer.report(peer.have_accepted(), ChunkReport.COMPLETED)
    assert peer.arm_commands and peer.gripper_commands


@pytest.mark.parametrize(("silent", "joint"), [(GRIPPER, "left_finger"), (ARM, "waist")])
def test_the_age_of_one_part_does_not_hide_that_of_the_other(peer, silent, joint):
    number = peer.have_accepted()
    peer.silent.add(silent)
    held = peer.report(number, ChunkReport.HELD)
    assert held.reason_codes.tolist() == [Reason.JOINT_STATE_LOST] and joint in held.message
    refused = peer.verdict(peer.send(peer.chunk()))
    assert refused.verdict == ChunkReport.REFUSED and refused.reason_codes.tolist() == [Reason.NO_JOINT_STATE]
    peer.silent.clear()
    peer.have_accepted()
