# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla say`: one instruction to a running policy_node, or to one that is started for it.

The command line imports this module for its options: everything that needs ROS is imported at run time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from qwen_vla_ros.commander import RobotCommander

OBEYED, REFUSED, NOBODY = 0, 1, 3  # exit codes; 2 is that of invalid options
DISCOVERY = 5.0  # [s] for the nodes of a running graph to be found
BUSY = 30.0  # [s] for those of a simulated robot, which is known to run, on a machine that it keeps busy
READY_TIMEOUT = 600.0  # [s] a policy that is being started loads its model


@dataclass
class Say:
    """Give a running robot one instruction, and tell how it ended.

    The robot is the one of `qwen-vla sim` if one is running, otherwise that of this shell's ROS domain. Ctrl-C cancels
    the instruction, and the robot holds. Exit code 0 when chunks were executed until the end or the timeout (a policy
    does not know whether a task is completed), 1 when nothing was executed or a fault ended it, 3 when no robot or
    policy answered, 130 after Ctrl-C.

    $ qwen-vla say "pick up the red cube"
    $ qwen-vla say "go to the chair" --timeout 120
    $ qwen-vla say "stand still" --policy mock://hold   # no policy_node is running: start this one, for this time
    $ qwen-vla say "pick up the red cube" --domain 7 --namespace lab
    """

    instruction: tyro.conf.Positional[str]
    """What the robot should do."""
    timeout: float = 0.0
    """When to end it, in the robot's time [s]; 0: policy_node's default, 60 s."""
    policy: str = ""
    """Start a policy_node for it: a checkpoint's folder, or the name of one in checkpoints/; or NAME://ADDRESS."""
    domain: int | None = None
    """ROS domain of the robot; default: that of `qwen-vla sim`, otherwise ROS_DOMAIN_ID."""
    namespace: str = ""
    """Namespace of the robot's nodes."""
    logs: Path = Path("out/say")
    """Folder for the log of the policy_node that --policy starts."""

    def run(self) -> int:
        from qwen_vla_ros.ros.environment import adopted, in_own_environment, ros_environment

        self._check()
        simulated = self._simulated_domain()
        if simulated is None:
            with adopted(ros_environment()):
                own = self.domain if self.domain is not None else int(os.environ.get("ROS_DOMAIN_ID") or 0)
                return self._say(own)
        with in_own_environment():
            return self._say(simulated, known=True)

    def _check(self) -> None:
        from qwen_vla_ros.ros.chunk_messages import checked_instruction, checked_timeout

        checked_instruction(self.instruction)
        checked_timeout(self.timeout)
        if self.domain is not None and not 0 <= self.domain <= 232:
            raise ValueError(f"domain {self.domain}: ROS domains are 0 to 232")

    def _simulated_domain(self) -> int | None:
        """The domain of the simulated robot that is meant; None for any other robot."""
        from qwen_vla_ros.simulation.running_simulations import running_simulations

        running = running_simulations()
        if self.domain is not None:
            running = [simulation for simulation in running if simulation.domain == self.domain]
        if len(running) > 1:
            names = ", ".join(f"{simulation.robot} in domain {simulation.domain}" for simulation in running)
            raise ValueError(f"several simulated robots are running ({names}); choose one with --domain")
        if not running:
            return None
        (one,) = running
        print(f"to the simulated {one.robot} in ROS domain {one.domain}", flush=True)
        return one.domain

    def _say(self, domain: int, known: bool = False) -> int:
        from qwen_vla_ros.commander import RobotCommander
        from qwen_vla_ros.ros.running_nodes import is_there
        from qwen_vla_ros.simulation.interruption import signals_as_exceptions

        patience = READY_TIMEOUT if self.policy else BUSY
        with signals_as_exceptions(), RobotCommander(self.namespace, domain, patience, "qwen_vla_say") as robot:
            if known:  # not policy_node: it may have been started without one
                is_there(robot.client, robot.executor_node, BUSY)
            if problem := self._problem(robot):
                print(f"qwen-vla: {problem}", flush=True)
                return NOBODY
            with self._policy_started(robot, domain):
                return self._send(robot)

    def _problem(self, robot: RobotCommander) -> str:
        """Why the instruction cannot be sent there; empty if it can."""
        from qwen_vla_ros.ros.running_nodes import absent, is_there

        wanted = robot.executor_node if self.policy else robot.policy_node
        if not is_there(robot.client, wanted, DISCOVERY):
            return absent(robot.client, wanted) + ("" if self.policy else ", or start a policy with --policy")
        if self.policy and is_there(robot.client, robot.policy_node, DISCOVERY):  # never two policies for one robot
            end_it = "end it (qwen-vla sim --no-policy starts none), or omit --policy"
            return f"a {robot.policy_node} is already running there; {end_it}"
        return ""

    @contextmanager
    def _policy_started(self, robot: RobotCommander, domain: int) -> Iterator[None]:
        """Run policy_node inside, if one is wanted; it has the robot and the clock of the executor."""
        if not self.policy:
            yield
            return
        from qwen_vla.output_paths import claim_folder
        from qwen_vla_ros.ros.running_nodes import read_parameters
        from qwen_vla_ros.simulation.child_processes import LOGS, ChildProcesses
        from qwen_vla_ros.simulation.stack import POLICY, node_command, policy_argument

        shared = read_parameters(robot.client, robot.executor_node, ("embodiment_config", "use_sim_time"))
        parameters: Mapping[str, Any] = {"autostart": True, "policy": policy_argument(self.policy), **shared}
        claim_folder(self.logs, LOGS)
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
        remappings = {"__ns": f"/{self.namespace.strip('/')}"} if self.namespace else {}
        with ChildProcesses(self.logs) as processes:
            robot.client.check = processes.check
            processes.start(POLICY, node_command(POLICY, parameters, environment, remappings), environment)
            yield

    def _send(self, robot: RobotCommander) -> int:
        from qwen_vla_ros.simulation.progress_line import ProgressLine

        line = ProgressLine()
        line.update(f"waiting for {robot.policy_node}")
        result = robot.say(self.instruction, self.timeout, line.update)
        line.finish(f"“{self.instruction}”: {result}")
        return OBEYED if result.success else REFUSED
