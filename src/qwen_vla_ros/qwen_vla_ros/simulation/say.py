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
    from qwen_vla_ros.ros.spinning_node import SpinningNode
    from qwen_vla_ros.simulation.instruction_client import Outcome

OBEYED, REFUSED, NOBODY = 0, 1, 3  # exit codes; 2 is that of invalid options
DISCOVERY = 5.0  # [s] for the nodes of a running graph to be found
BUSY = 30.0  # [s] for those of a simulated robot, which is known to run, on a machine that it keeps busy
POLICY, EXECUTOR = "policy_node", "executor_node"


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
        from qwen_vla_ros.ros.chunk_messages import checked_instruction

        checked_instruction(self.instruction)
        if not 0 <= self.timeout < 86400:
            raise ValueError(f"timeout {self.timeout} s: it must be 0 to 86400 s")
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
        from qwen_vla_ros.ros.spinning_node import SpinningNode
        from qwen_vla_ros.simulation.instruction_client import is_there
        from qwen_vla_ros.simulation.interruption import signals_as_exceptions

        with signals_as_exceptions(), SpinningNode("say", domain) as client:
            if known:
                is_there(client, self._name(EXECUTOR), BUSY)  # not policy_node: it may have been started without one
            if problem := self._problem(client, domain):
                print(f"qwen-vla: {problem}", flush=True)
                return NOBODY
            with self._policy_started(client, domain):
                return self._send(client)

    def _problem(self, client: SpinningNode, domain: int) -> str:
        """Why the instruction cannot be sent there; empty if it can."""
        from qwen_vla_ros.simulation.instruction_client import is_there

        wanted = EXECUTOR if self.policy else POLICY
        if not is_there(client, self._name(wanted), DISCOVERY):
            there = f"no {self._name(wanted)} is running in ROS domain {domain}"
            start = "" if self.policy else ", or start a policy with --policy"
            return f"{there}; start a robot (qwen-vla sim widowx, or ros2 launch …), or choose another --domain{start}"
        if self.policy and is_there(client, self._name(POLICY), DISCOVERY):  # never two policies for one robot
            return (
                f"a {self._name(POLICY)} is already running in ROS domain {domain}; end it (qwen-vla sim --no-policy "
                "starts none), or omit --policy"
            )
        return ""

    @contextmanager
    def _policy_started(self, client: SpinningNode, domain: int) -> Iterator[None]:
        """Run policy_node inside, if one is wanted; it has the robot and the clock of the executor."""
        if not self.policy:
            yield
            return
        from qwen_vla.output_paths import claim_folder
        from qwen_vla_ros.simulation.child_processes import LOGS, ChildProcesses
        from qwen_vla_ros.simulation.instruction_client import read_parameters
        from qwen_vla_ros.simulation.stack import node_command, policy_argument

        shared = read_parameters(client, self._name(EXECUTOR), ("embodiment_config", "use_sim_time"))
        parameters: Mapping[str, Any] = {"autostart": True, "policy": policy_argument(self.policy), **shared}
        claim_folder(self.logs, LOGS)
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
        remappings = {"__ns": f"/{self.namespace.strip('/')}"} if self.namespace else {}
        with ChildProcesses(self.logs) as processes:
            client.check = processes.check
            processes.start(POLICY, node_command(POLICY, parameters, environment, remappings), environment)
            yield

    def _send(self, client: SpinningNode) -> int:
        from qwen_vla_ros.simulation.instruction_client import execute
        from qwen_vla_ros.simulation.progress_line import ProgressLine

        line = ProgressLine()
        outcome = execute(client, self._name(POLICY), self.instruction, self.timeout, line.update)
        line.finish(describe(self.instruction, outcome))
        return OBEYED if outcome.obeyed else REFUSED

    def _name(self, node: str) -> str:
        """Full name of a node of the robot."""
        return "/" + "/".join(part for part in (self.namespace.strip("/"), node) if part)


def describe(instruction: str, outcome: Outcome) -> str:
    """The outcome as a line for people."""
    chunks = f"{outcome.executed} chunks executed, {outcome.refused} refused, {outcome.seconds:.1f} s"
    why = f": {outcome.message}" if outcome.message else ""
    return f"“{instruction}”: {outcome.ending} ({chunks}){why}"
