# SPDX-License-Identifier: Apache-2.0
"""Parameters with choices refuse other values, at the start and later, and list the choices."""

from __future__ import annotations

import pytest
import rclpy
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as Value

from qwen_vla_ros.ros.parameters import Parameter, Parameters

TABLE = (
    Parameter("color", "red", "What it looks like", choices=("red", "blue")),
    Parameter("name", "anything", "What it is called"),
)


@pytest.fixture
def make_node():
    context = rclpy.Context()
    context.init()
    nodes = []

    def make(**given) -> Node:
        overrides = [Value(name, value=value) for name, value in given.items()]
        nodes.append(Node("with_choices", context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_a_value_that_is_no_choice_is_refused_at_the_start(make_node):
    with pytest.raises(InvalidParameterValueException, match="color 'green' is not one of: red, blue"):
        Parameters(make_node(color="green"), TABLE)


def test_later_too_and_choices_can_be_looked_up(make_node):
    node = make_node(color="blue")
    parameters = Parameters(node, TABLE)
    assert node.describe_parameter("color").additional_constraints == "one of: red, blue"
    assert parameters.color == "blue"
    assert not node.set_parameters([Value("color", value="green")])[0].successful and parameters.color == "blue"
    assert node.set_parameters([Value("color", value="red"), Value("name", value="green")])[1].successful
    assert (parameters.color, parameters.name) == ("red", "green")


@pytest.mark.parametrize("speed", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_number_that_is_nan_or_outside_the_range_is_refused(make_node, speed):
    node = make_node()
    parameters = Parameters(node, (*TABLE, Parameter("speed", 0.5, "How fast it is [m/s]", 0.0, 1.0)))
    assert not node.set_parameters([Value("speed", value=speed)])[0].successful and parameters.speed == 0.5


def test_a_text_of_any_length_is_refused(make_node):
    node = make_node()
    parameters = Parameters(node, TABLE)
    (result,) = node.set_parameters([Value("name", value="x" * 1_000_000)])
    assert not result.successful and "1000000 characters (limit 4096)" in result.reason
    assert parameters.name == "anything"


def test_what_safety_depends_on_keeps_its_value_while_it_is_locked(make_node):
    node = make_node()
    parameters = Parameters(node, (*TABLE, Parameter("timeout", 0.5, "Patience [s]", 0.1, 1.0, safety=True)))
    assert node.set_parameters([Value("timeout", value=0.4)])[0].successful
    with parameters.locked():
        (result,) = node.set_parameters([Value("timeout", value=1.0)])
        assert not result.successful and "ros2 lifecycle set /with_choices deactivate, then cleanup" in result.reason
        assert node.set_parameters([Value("timeout", value=0.4), Value("name", value="else")])[1].successful
    assert parameters.timeout == 0.4 and node.set_parameters([Value("timeout", value=1.0)])[0].successful
