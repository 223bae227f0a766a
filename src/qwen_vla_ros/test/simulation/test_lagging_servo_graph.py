# SPDX-License-Identifier: Apache-2.0
"""A servo lags behind its commands, most of all where the way turns: that is no fault of anybody."""

from __future__ import annotations

import numpy as np
from joint_chunks import moving_waists
from misbehaving_robot import MisbehavingArms
from ros_peer import Processes

from qwen_vla_msgs.msg import ChunkReport

CHUNKS = 8
SMOOTH = (1 - np.cos(np.linspace(0.0, np.pi, 25))) / 2
OUT_AND_BACK = np.concatenate([0.3 * SMOOTH, 0.3 - 0.33 * SMOOTH])  # [rad] in a second


def test_chunks_follow_one_another_although_each_turns_just_before_its_end():
    with Processes() as processes, MisbehavingArms(processes) as robot:
        robot.start()
        refused = []
        for number in range(CHUNKS):
            rows = moving_waists(robot.embodiment, (-1) ** number * OUT_AND_BACK)
            sent = robot.send(robot.chunk(data=rows.reshape(-1).tolist()))
            verdict = robot.verdict(sent)
            if verdict.verdict == ChunkReport.ACCEPTED:
                robot.report(sent, ChunkReport.COMPLETED)
            else:
                refused.append(verdict.message)
        assert refused == []
        robot.assert_never_jumped()
