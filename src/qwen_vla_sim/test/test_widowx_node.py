"""Which scenes the node `widowx_sim` shows is told by its parameters."""

import pytest
import rclpy
from rclpy.parameter import Parameter

from qwen_vla_sim.widowx.node import WidowXSim
from qwen_vla_sim.widowx.pick_scene import sample_pick_scene
from qwen_vla_sim.widowx.scene import sample_scene


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


def test_suite_and_shift_decide_what_a_seed_means(context):
    assert scene_of(context) == sample_scene(7)
    assert scene_of(context, suite="widowx_pick") == sample_pick_scene(7)
    assert scene_of(context, shift="colour") == sample_scene(7, "colour")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"suite": "mars"}, "suite 'mars' is not one of: widowx, widowx_pick"),
        ({"shift": "colours"}, "shift 'colours' is not one of: '', colour, instance"),
        ({"suite": "widowx_pick", "shift": "colour"}, "widowx_pick has no scenes with the shift 'colour'"),
    ],
)
def test_what_there_is_not_is_refused(context, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        scene_of(context, **parameters)
