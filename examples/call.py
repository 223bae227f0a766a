# SPDX-License-Identifier: Apache-2.0
"""Calls a service of a node, where there is no `ros2` command (ROS 2 from wheels has none).

    python examples/call.py executor_node/go_home
    python examples/call.py episode_recorder/start --instruction "wave"
    python examples/call.py episode_recorder/stop

Waits until the node is active. Exit code 0 when it did what was asked; its message is printed.
"""

from __future__ import annotations

import argparse
import os
import sys

from std_srvs.srv import Trigger

from qwen_vla_msgs.srv import StartEpisode
from qwen_vla_ros.ros.running_nodes import wait_until_active
from qwen_vla_ros.ros.spinning_node import SpinningNode

PATIENCE = 120.0  # [s] a node that has just been started loads its robot first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service", help="NODE/SERVICE")
    parser.add_argument("--instruction", help="for episode_recorder/start")
    options = parser.parse_args()
    kind = Trigger if options.instruction is None else StartEpisode
    request = kind.Request() if options.instruction is None else kind.Request(instruction=options.instruction)
    node = options.service.rpartition("/")[0]
    with SpinningNode("call", int(os.environ.get("ROS_DOMAIN_ID") or 0)) as client:
        wait_until_active(client, node, PATIENCE)
        reply = client.call(client.node.create_client(kind, options.service), request, PATIENCE)
    print(reply.message or options.service)
    return 0 if reply.success else 1


if __name__ == "__main__":
    sys.exit(main())
