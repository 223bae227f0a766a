# SPDX-License-Identifier: Apache-2.0
"""What the saboteur does to which robot, and that the operator comes after it, also where it was interrupted."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from spinning_peer import SpinningPeer
from std_srvs.srv import Trigger

from embodiment_descriptions import load_robot
from qwen_vla_msgs.srv import Misbehave
from qwen_vla_ros.simulation.chaos.saboteur import CALLS, Saboteur, weaknesses_of

Fault = Misbehave.Request
OF_ARMS = {Fault.GLITCH, Fault.ENCODER, Fault.SECOND_PUBLISHER, Fault.INACTIVE}


class Victim(SpinningPeer):
    """A simulator and an executor that only note what they are asked."""

    def __init__(self) -> None:
        super().__init__("victim")
        self.asked: list[str] = []
        self.node.create_service(Misbehave, "robot_sim/misbehave", self._note)
        self.node.create_service(Trigger, "executor_node/resynchronize", self._note)

    def _note(self, request, response):
        with self.changed:
            self.asked.append(getattr(request, "fault", "resynchronize"))
            self.changed.notify_all()
        return response


@pytest.fixture
def victim() -> Iterator[Victim]:
    with Victim() as peer:
        yield peer


def saboteur(victim: Victim, robot: str, seed: int = 0) -> Saboteur:
    made = victim.in_turn(lambda: Saboteur(victim, "robot_sim", load_robot(robot), seed))
    made.wake()
    return made


def until(victim: Victim, one: Saboteur, condition, what: str) -> None:
    def acted() -> bool:
        one.act()
        return condition()

    victim.wait(acted, what)


@pytest.mark.parametrize(
    ("robot", "expected"),
    [("widowx", OF_ARMS), ("aloha", OF_ARMS), ("mobile_base", OF_ARMS | {Fault.NOT_FOLLOWING})],
)
def test_without_a_controller_manager_arms_are_neither_moved_nor_made_deaf(robot, expected):
    weaknesses = weaknesses_of(load_robot(robot))
    assert {weaknesses.choose(random.Random(seed), has_manager=False)[0] for seed in range(99)} == expected


def test_an_operator_comes_after_each_fault_also_where_it_was_interrupted(victim):
    one = saboteur(victim, "widowx")
    until(victim, one, lambda: victim.asked, "a fault")
    one.rest()
    victim.wait(lambda: victim.asked[-1] == Fault.REPAIR, "the repair")
    one.wake()
    until(victim, one, lambda: victim.asked.count("resynchronize") == CALLS, "the operator")
    assert one.deeds.total() == 1
