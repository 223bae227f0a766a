# SPDX-License-Identifier: Apache-2.0
"""Let the gate decide about two motions of a WidowX: one that it accepts, and one that leaves the workspace.

    .venv/bin/python examples/gate_a_chunk.py

Neither ROS nor a model is needed.
"""

import numpy as np

from embodiment_descriptions import load_robot
from qwen_vla_control.gate import Chunk, Refused, RobotState, gate_of


def main() -> None:
    robot = load_robot("widowx")
    home = np.array([robot.home[name] for name in robot.joint_names])  # [rad | m]
    gate, state = gate_of(robot), RobotState(now_ns=0, observed=home, measured=home)
    for distance in (0.05, 0.5):  # [m], along the tip's x axis
        rows = np.zeros((robot.chunk_size, len(robot.channel_names)))
        rows[:, robot.channel_names.index("x")] = np.linspace(0.0, distance, len(rows))
        rows[:, robot.channel_names.index("gripper")] = 1.0  # open
        try:
            path = gate.decide(Chunk.of_rows(robot, rows, execution_horizon=8), state).path
            print(f"{distance} m: accepted, {path.duration:.1f} s, joints end at {np.round(path.positions[-1], 2)}")
        except Refused as refused:
            print(f"{distance} m: refused, {', '.join(reason.name for reason in refused.reasons)}")
            print(f"  {refused}")


if __name__ == "__main__":
    main()
