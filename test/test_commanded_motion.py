# SPDX-License-Identifier: Apache-2.0
"""The commanded motion that is made of messages alone, against the simulator's controller that executes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_ros.executor.command_interfaces.joint_trajectory import trajectory_message
from qwen_vla_ros.simulation.runtime_benchmark.commanded_motion import executed
from qwen_vla_sim.controllers.joint_trajectory_controller import JointTrajectoryController
from qwen_vla_sim.controllers.stand_ins import trajectory_from_message

JOINTS = ("waist", "elbow")
PERIOD = 0.2  # [s]
rows = st.lists(st.tuples(*[st.floats(-0.3, 0.3)] * len(JOINTS)), min_size=2, max_size=6)


@given(st.lists(st.tuples(rows, st.integers(1, 1400)), min_size=1, max_size=4))
def test_it_is_what_the_controller_commands(sent):
    at, messages = 10**9, []
    for positions, milliseconds in sent:
        path = JointPath.through(JOINTS, np.vstack([np.zeros(len(JOINTS)), positions]), PERIOD)
        messages.append((at, trajectory_message(path)))
        at += milliseconds * 1_000_000
    stretches = executed(messages, [0.0, 0.0])
    controller = JointTrajectoryController(JOINTS, [0.0, 0.0])
    for (arrival, message), stretch in zip(messages, stretches, strict=True):
        controller.update(arrival)
        controller.accept(trajectory_from_message(message), arrival)
        # Between two rows it is linear in time, so that both ends of each row tell all.
        ends = [arrival + round(row * PERIOD * 1e9) for row in range(len(message.points) + 1)]
        times = sorted({t for end in (*ends, stretch.until) for t in (end, end - 1) if arrival <= t < stretch.until})
        seen = []
        for now in times:
            controller.update(now)
            seen.append(np.abs(controller.desired_state.accelerations).max())
        assert stretch.peak(0.0) == pytest.approx(max(seen), rel=1e-4, abs=1e-3)


def test_a_message_that_comes_after_the_end_finds_the_joints_at_rest():
    path = JointPath.through(JOINTS, np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.1]]), PERIOD)
    first, second = executed([(0, trajectory_message(path)), (10**9, trajectory_message(path))], [0.0, 0.0])
    assert first.end == first.until == 400_000_000
    np.testing.assert_allclose(second.path.positions[0], [0.2, 0.1])
    assert not second.path.velocities[0].any()
