# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla sim`: a simulated robot that stays up, for `qwen-vla say` and whatever else joins its graph.

The command line imports this module for its options: everything that needs ROS is imported at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from qwen_vla.evaluation.options import DEFAULT_POLICY

FOREVER = float("inf")


@dataclass
class Sim:
    """Start a simulated robot with its policy and executor.

    It stays up until Ctrl-C, in a free ROS domain of this machine, and reaches no real robot. `qwen-vla say` in another
    shell then gives it an instruction. Exit code 0 after Ctrl-C, 1 when a node ended by itself; its log is in --logs.

    $ qwen-vla sim widowx
    $ qwen-vla sim aloha --seed 9003 --speed 0.5
    $ qwen-vla sim widowx --no-policy   # then: qwen-vla say "…" --policy out/train/mine/model
    """

    robot: tyro.conf.Positional[str]
    """widowx, aloha or mobile_base."""
    policy: str = DEFAULT_POLICY
    """Checkpoint: its folder, or the name of one in checkpoints/; or NAME://ADDRESS of an installed policy."""
    no_policy: bool = False
    """Start no policy; `qwen-vla say --policy …` then starts one for its instruction."""
    seed: int = 9000
    """Scene; only validation scenes (below 20000)."""
    speed: float = 1.0
    """Simulated seconds per real second; less than 1 for a machine that is too slow for real time."""
    logs: Path = Path("out/sim")
    """Folder for the nodes' logs."""

    def run(self) -> int:
        from qwen_vla_ros.ros.environment import in_own_environment

        self._check()
        with in_own_environment():
            return self._run()

    def _check(self) -> None:
        from qwen_vla.policies.checkpoint import checkpoint_of
        from qwen_vla.seeds import require_split
        from qwen_vla.suites import not_simulated
        from qwen_vla_ros.simulation.stack import SIMULATORS

        if self.robot not in SIMULATORS:
            raise ValueError(f"{not_simulated(self.robot, 'robot')}; robots with a simulator: {', '.join(SIMULATORS)}")
        if not 0.01 <= self.speed <= 100:
            raise ValueError(f"speed {self.speed}: it must be 0.01 to 100 simulated seconds per real second")
        require_split("validation", range(self.seed, self.seed + 1), "--seed")
        if not self.no_policy:
            checkpoint_of(self.policy)

    def _run(self) -> int:
        from qwen_vla_ros.simulation.running_simulations import announced
        from qwen_vla_ros.simulation.stack import SimulatedWorld, simulated_stack
        from qwen_vla_ros.simulation.task_client import TaskClient

        policy = None if self.no_policy else self.policy
        world = SimulatedWorld(self.robot, self.robot)
        try:
            with simulated_stack(policy, self.logs, speed=self.speed, world=world) as stack:
                instruction = TaskClient(stack).reset(self.seed)
                with announced(self.robot, stack.domain):
                    print(self._next_steps(stack.domain, instruction), flush=True)
                    stack.client.wait(lambda: False, "end", FOREVER)  # a node that ends is an error
        except KeyboardInterrupt:
            pass
        print("the simulated robot has ended")
        return 0

    def _next_steps(self, domain: int, instruction: str) -> str:
        policy = " --policy tiny" if self.no_policy else ""
        return (
            f'next, in another shell:  qwen-vla say "{instruction}"{policy}\n'
            f"to look at it:           ROS_DOMAIN_ID={domain} qwen-vla doctor --robot {self.robot}; "
            f"ROS_DOMAIN_ID={domain} qwen-vla view\n"
            f"logs: {self.logs}; Ctrl-C ends it"
        )
