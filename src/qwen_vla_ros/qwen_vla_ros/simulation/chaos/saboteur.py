# SPDX-License-Identifier: Apache-2.0
"""Has a simulated robot misbehave as hardware does, at random times, and then calls the operator.

One fault at a time, for a while; then it is repaired, and `executor_node/resynchronize` is called, as an operator who
has looked at the robot does. An arm is moved by hand, or does not follow, only where a controller manager can restart
its controller.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable

from std_srvs.srv import Trigger

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import JointTrajectoryCommand
from qwen_vla_msgs.srv import Misbehave
from qwen_vla_ros.ros.spinning_node import SpinningNode

CALM = (1.0, 4.0)  # [s] between two faults
DURATION = (0.3, 2.0)  # [s] of a fault that lasts
GLITCHES = (0.2, 0.8, 1.2)  # [rad]
ENCODER = 0.02  # [rad]
FALSE_HOME = 0.3  # [rad] what a second publisher says beside home
PUSH = 0.3  # [rad]
PUSHING = 1.0  # [s]
JUMPS = (0.3, 1.0)  # [m] of a base's odometry
CALLS, BETWEEN_CALLS = 3, 0.7  # of ~/resynchronize, and [s]: joint states are doubted for a while after a fault

Fault = Misbehave.Request
Step = tuple[float, Callable[[], None]]  # how long after the one before [s], and what to do
Choice = tuple[str, str, float]  # a fault, the joint or controller, and how much


class _Arms:
    """What goes wrong with arms, their encoders and their controllers."""

    def __init__(self, robot: Embodiment) -> None:
        self._joints = [joint for arm in robot.arms for joint in arm.joints]
        commands = [command for command in robot.commands if isinstance(command, JointTrajectoryCommand)]
        self._controllers = [command.endpoint.rpartition("/")[0] for command in commands]

    def choose(self, chance: random.Random, has_manager: bool) -> Choice:
        """Choose one at random."""
        joint = chance.choice(self._joints)
        found = [
            (Fault.GLITCH, joint, chance.choice(GLITCHES)),
            (Fault.ENCODER, joint, ENCODER),
            (Fault.SECOND_PUBLISHER, "", FALSE_HOME),
        ]
        found += [(Fault.INACTIVE, chance.choice(self._controllers), 0.0)] if self._controllers else []
        if has_manager:
            found += [(Fault.MOVED, joint, chance.choice((-PUSH, PUSH))), (Fault.NOT_FOLLOWING, joint, 0.0)]
        return chance.choice(found)


class _Base:
    """What goes wrong with a base, its odometry and its controller."""

    def choose(self, chance: random.Random, has_manager: bool) -> Choice:
        """Choose one at random."""
        jump = chance.choice(JUMPS)
        found = [(fault, "", jump) for fault in (Fault.GLITCH, Fault.ENCODER, Fault.SECOND_PUBLISHER)]
        return chance.choice([*found, (Fault.NOT_FOLLOWING, "", 0.0), (Fault.INACTIVE, "cmd_vel", 0.0)])


def weaknesses_of(robot: Embodiment) -> _Arms | _Base:
    """What can go wrong with a robot."""
    return _Base() if robot.control_mode.moves_base else _Arms(robot)


class Saboteur:
    """Acts when it is asked to, in the thread that asks; nothing waits for an answer.

    Attributes:
        deeds: how often it did what ("glitch": 3).
    """

    def __init__(self, client: SpinningNode, simulator: str, robot: Embodiment, seed: int) -> None:
        """Find the services of a simulator and of executor_node."""
        node, self._random = client.node, random.Random(seed)
        self._misbehave = node.create_client(Misbehave, f"{simulator}/misbehave")
        self._resynchronize = node.create_client(Trigger, "executor_node/resynchronize")
        self._weaknesses = weaknesses_of(robot)
        self._node = node
        self._plan: deque[Step] = deque()
        self._due = float("inf")
        self.deeds: Counter[str] = Counter()

    def wake(self) -> None:
        """Begin to act, with the operator's calls where some are left."""
        self._due = time.monotonic() + (BETWEEN_CALLS if self._plan else self._random.uniform(*CALM))

    def rest(self) -> None:
        """Repair everything and stop acting; the operator comes when it begins again."""
        self._due = float("inf")
        if self._plan:
            self._plan = deque(self._operator())
            self._ask(Fault.REPAIR)

    def act(self) -> None:
        """Do what is due."""
        if time.monotonic() < self._due:
            return
        if not self._plan:
            self._plan.extend(self._new_plan())
        _, do = self._plan.popleft()
        do()
        wait = self._plan[0][0] if self._plan else self._random.uniform(*CALM)
        self._due = time.monotonic() + wait

    def _new_plan(self) -> list[Step]:
        fault, name, amount = self._weaknesses.choose(self._random, self._has_manager())
        self.deeds[fault] += 1
        lasts, repair = self._random.uniform(*DURATION), self._doing(Fault.REPAIR)
        repeated = self._operator()
        begin = self._doing(fault, name, amount)
        if fault == Fault.MOVED:
            return [(0.0, self._doing(Fault.NO_TORQUE)), (0.1, begin), (PUSHING, repair), *repeated]
        return [(0.0, begin), (lasts, repair), *repeated]

    def _operator(self) -> list[Step]:
        return [(BETWEEN_CALLS, self._call_operator) for _ in range(CALLS)]

    def _has_manager(self) -> bool:
        services = self._node.get_service_names_and_types()
        return any(name.endswith("controller_manager/switch_controller") for name, _ in services)

    def _doing(self, fault: str, name: str = "", amount: float = 0.0) -> Callable[[], None]:
        return lambda: self._ask(fault, name, amount)

    def _ask(self, fault: str, name: str = "", amount: float = 0.0) -> None:
        self._misbehave.call_async(Misbehave.Request(fault=fault, name=name, amount=amount, on=True))

    def _call_operator(self) -> None:
        if self._resynchronize.service_is_ready():
            self._resynchronize.call_async(Trigger.Request())
