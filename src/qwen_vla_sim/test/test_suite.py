# SPDX-License-Identifier: Apache-2.0
"""Which tasks a suite has: those that installed packages offer as entry points, and no broken ones."""

import numpy as np
import pytest

from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite
from qwen_vla_sim.widowx.suite import WidowXSuite
from qwen_vla_sim.widowx.tasks.stack_cube import StackCube

MODULE = """
from qwen_vla_sim.widowx.tasks.pick_cube import PickCube

class Lift(PickCube):
    name = "lift"

class Nothing:
    name = "nothing"
"""
RAISE_PEG = """
import numpy as np
from qwen_vla_sim.aloha.bimanual_task import DONE, BimanualTask
from qwen_vla_sim.aloha.grasping import PITCH, Goal, Goals, carry, closed_around, grasp, grip_on_table, holds
from qwen_vla_sim.aloha.hands import hand_pose

UP = np.array([-0.019, -0.1, 0.15])

class RaisePeg(BimanualTask):
    name = "raise_peg"
    instructions = ("raise the {color} peg",)
    held_out_instructions = ("up with the {color} peg",)
    kind = "peg"
    regions = (((-0.119, -0.2), (0.081, -0.1)),) * 2
    grips = {"right": 0.0, "left": 0.0}

    def apart(self, first, second):
        return abs(first[0] - second[0]) > 0.085

    def progress(self, situation):
        height = float(situation.target[2, 3])
        if not situation.right.touched[situation.scene.target]:
            return 0, float(np.linalg.norm(situation.right.position - situation.target[:3, 3])), "not grasped"
        return (DONE, 0.0, "") if height > 0.1 else (1, 0.1 - height, "not raised")

    def expert(self, situation):
        s, peg = situation, situation.scene.target
        left, closed = Goal(s.left.pose, 1.0), closed_around(s, peg)
        if holds(s, s.right, peg):
            return Goals(left, Goal(carry("right", s.right, s.target[:3, 3], UP, PITCH), closed))
        return Goals(left, grasp(s.right, hand_pose("right", grip_on_table(s, peg, 0.0), PITCH), closed))
"""
VISIT_HALL = """
from qwen_vla_sim.mobile_base.driving import PAST_MAT, aim_at
from qwen_vla_sim.mobile_base.driving_task import DrivingTask

class VisitHall(DrivingTask):
    name = "visit_hall"
    instructions = ("visit the {thing} next door",)
    held_out_instructions = ("next door to the {thing}",)

    def target(self, rng):
        return int(rng.integers(3, 5))

    def expert(self, situation):
        return aim_at(situation, situation.scene.target if situation.pose[0] > PAST_MAT else None)
"""


def test_what_a_package_offers_comes_after_the_published_tasks(install_tasks):
    install_tasks("lifters", MODULE, {"widowx.lift": "Lift"})
    suite = WidowXSuite()
    assert suite.tasks == (*suite.rotation, "lift")
    assert suite.scene(3, task="lift").task == suite.task("lift")
    assert suite.task("lift") != suite.task("pick_cube") and suite.task("stack_cube") == StackCube()


def test_two_packages_with_the_same_task_are_refused(install_tasks):
    install_tasks("stackers", MODULE, {"widowx.stack_cube": "Lift"})
    with pytest.raises(ValueError, match="two packages offer the task widowx.stack_cube: .*uninstall one"):
        WidowXSuite()


@pytest.mark.parametrize("value", ["Lift", "Nothing"])
def test_what_is_not_a_task_of_that_name_is_refused_when_requested(install_tasks, value):
    install_tasks("foreign", MODULE, {"widowx.nothing": value})
    suite = WidowXSuite()
    with pytest.raises(ValueError, match="widowx.nothing = foreign:.* is not a task named 'nothing'"):
        suite.task("nothing")
    assert suite.scene(0).task.name == "spoon_on_towel"


def test_a_task_with_a_broken_module_affects_only_itself(install_tasks):
    install_tasks("broken", "import no_such_module", {"widowx.broken": "Task"})
    suite = WidowXSuite()
    assert suite.scene(0).task.name == "spoon_on_towel" and "broken" in suite.tasks
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        suite.task("broken")


def test_a_suite_whose_own_tasks_are_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setattr(WidowXSuite, "rotation", (*WidowXSuite.rotation, "juggle"))
    with pytest.raises(RuntimeError, match="tasks of the suite widowx are not installed: juggle; .*make setup"):
        WidowXSuite()


@pytest.mark.parametrize(
    ("suite", "module", "name", "value"),
    [(AlohaSuite, RAISE_PEG, "raise_peg", "RaisePeg"), (MobileBaseSuite, VISIT_HALL, "visit_hall", "VisitHall")],
    ids=["aloha", "mobile_base"],
)
def test_an_added_task_is_demonstrated_by_its_expert(install_tasks, suite, module, name, value):
    """The WidowX's is on the page about adding tasks, and tested with it."""
    install_tasks(f"{name}_package", module, {f"{suite.name}.{name}": value})
    suite = suite()
    env = suite.make_env(task=name)
    env.render_size = (24, 32)
    shown = [suite.demonstrate(env, seed) for seed in range(3_000_000, 3_000_003)]
    assert all(success for _, _, success in shown)
    for instruction, frames, _ in shown:
        assert instruction.split()[0] == name.split("_")[0]
        assert suite.extra_info()["tasks"][np.ravel(frames["annotation.task"])[0]] == name
    env.close()
