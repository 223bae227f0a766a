# SPDX-License-Identifier: Apache-2.0
"""ROS node `aloha_sim`: a simulated ALOHA behind the topics of its embodiment YAML.

With config/embodiments/aloha.yaml, these are the topics of ros2_control; with aloha_real.yaml, of each arm's xs_sdk.
"""

from __future__ import annotations

import sys

from embodiment_descriptions import Embodiment
from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.controllers.simulated_robot import SimulatedRobot
from qwen_vla_sim.node.sim_node import SimNode, run


class AlohaSim(SimNode):
    """Two arms at a table."""

    robot_name = "aloha"

    def make_robot(self, embodiment: Embodiment, options: dict[str, bool]) -> SimulatedRobot:
        return SimulatedRobot(AlohaSuite().make_world(self.shift, self.task, embodiment), **options)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run(AlohaSim, args)


if __name__ == "__main__":
    sys.exit(main())
