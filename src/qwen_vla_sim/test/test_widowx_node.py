# SPDX-License-Identifier: Apache-2.0
"""The parameters of the node `widowx_sim` select its scenes."""

import pytest
import rclpy
from rclpy.parameter import Parameter

from qwen_vla_sim.widowx.node import WidowXSim
from qwen_vla_sim.widowx.suite import WidowXPickSuite, WidowXSuite


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.try_shutdown(context=context)


def scene_of(context, **parameters):
    """The scene that the node has laid out when it has started."""
    overrides = [Parameter(name, value=value) for name, value in {"image_rate": 0.0, "seed": 7, **parameters}.items()]
    node = WidowXSim(context=context, parameter_overrides=overrides)
    try:
        return node.world.scene
    finally:
        node.close()
        node.destroy_node()


def test_suite_task_and_shift_determine_the_scene_of_a_seed(context):
    suite = WidowXSuite()
    assert scene_of(context) == suite.scene(7)
    assert scene_of(context, suite="widowx_pick") == WidowXPickSuite().scene(7)
    assert scene_of(context, shift="colour") == suite.scene(7, "colour")
    assert scene_of(context, task="pick_cube") == suite.task("pick_cube").scene(7) != suite.scene(7)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"suite": "mars"}, "suite 'mars' is not one of: widowx, widowx_pick"),
        ({"shift": "colors"}, "shift 'colors' is not one of: '', colour, instance"),
        ({"task": "fly"}, "suite widowx has no task 'fly'; it has: spoon_on_towel"),
        ({"suite": "widowx_pick", "shift": "colour"}, "suite widowx_pick has no shift 'colour'"),
    ],
)
def test_unknown_values_are_refused(context, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        scene_of(context, **parameters)
