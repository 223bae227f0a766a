# SPDX-License-Identifier: Apache-2.0
"""The tip poses of the arms at an observation, from the joint states around it. Free of ROS and torch.

End-effector deltas of a chunk are relative to that pose; continuing an older chunk needs both poses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodiment_descriptions import Kinematics
from qwen_vla_control.observation.joint_reader import JointReader

MAX_GAP = 0.1  # [s] from the observation to the joint states nearest to it


def tip_poses(reader: JointReader, kinematics: Sequence[Kinematics], stamp_ns: int) -> dict[str, np.ndarray]:
    """Pose (4, 4) of each tip in the base link of its arm, by the arm's name in the layout ("" for the only one).

    Args:
        reader: must require the joints of the arms.
        kinematics: one per arm of the robot, in their order.
        stamp_ns: ROS time of the observation [ns].

    Raises:
        NotObserved: a joint is unknown at that time.
    """
    positions, robot = reader.at(stamp_ns, MAX_GAP).known, reader.embodiment
    arms = zip(robot.layout.arms, robot.arms, kinematics, strict=True)
    return {label: chain.forward(np.array([positions[name] for name in arm.joints])) for label, arm, chain in arms}
