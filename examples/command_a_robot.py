# SPDX-License-Identifier: Apache-2.0
"""Sends a running robot home, gives it an instruction, and prints what it did.

    qwen-vla sim widowx                                              # in another shell; it prints its ROS domain
    python examples/command_a_robot.py "pick up the red cube" --domain 42

Ctrl-C ends the motion. Exit code 0 when the robot was commanded until the end, 1 when it was not, and why is printed.
"""

from __future__ import annotations

import argparse
import sys

from qwen_vla_ros.commander import CommandRefused, NoAnswer, Rejected, RobotCommander, Verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instruction")
    parser.add_argument("--timeout", type=float, default=10.0, help="when to end it [s, the robot's time]")
    parser.add_argument("--domain", type=int, help="ROS domain of the robot; default: ROS_DOMAIN_ID")
    parser.add_argument("--namespace", default="", help="of the robot's nodes")
    parser.add_argument("--patience", type=float, default=30.0, help="until its nodes are found and active [s]")
    options = parser.parse_args()
    try:
        with RobotCommander(options.namespace, options.domain, options.patience) as robot:
            return command(robot, options.instruction, options.timeout)
    except (CommandRefused, Rejected, NoAnswer) as error:  # each says what to do
        print(error, file=sys.stderr)
        return 1


def command(robot: RobotCommander, instruction: str, timeout: float) -> int:
    robot.wait_until_active()
    robot.go_home()
    before = robot.joint_positions()
    result = robot.say(instruction, timeout)
    print(f"{instruction}: {result}")
    for name, position in robot.joint_positions().items():
        print(f"  {name}: {before[name]:.3f} → {position:.3f}")
    for report in robot.reports:
        if report.verdict is Verdict.REFUSED:
            print(f"  chunk {report.chunk_id} was refused: {report.message}")
    robot.go_home()
    return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main())
