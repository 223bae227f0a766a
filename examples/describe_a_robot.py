# SPDX-License-Identifier: Apache-2.0
"""Read a robot that is not part of the suite: its limits, channels and prompt come from its own description.

.venv/bin/python examples/describe_a_robot.py [EMBODIMENT_YAML]
"""

import sys
from pathlib import Path

from embodiment_descriptions import load_robot

SO101 = Path(__file__).parent / "so101/so101.yaml"


def main(path: str = str(SO101)) -> None:
    robot = load_robot(path)
    print(f"{robot.robot_tag}: {robot.control_mode}, {robot.rate_hz:g} Hz, {robot.chunk_size} actions in a chunk")
    for name in robot.joint_names:
        limit = robot.limits[name]
        print(f"  {name:14} {limit.lower:7.3f} to {limit.upper:6.3f}, at most {limit.velocity:.2f} per second")
    print(robot.prompt("put the block into the box"))


if __name__ == "__main__":
    main(*sys.argv[1:])
