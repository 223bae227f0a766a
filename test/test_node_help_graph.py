# SPDX-License-Identifier: Apache-2.0
"""What `--help` says of a node is what the running node offers in the graph: no more, no less, with these types."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from rclpy.node import NodeNameNonExistentError

from qwen_vla_control.node_interface import Endpoint, NodeInterface
from qwen_vla_ros.drawing import trajectory_visualizer
from qwen_vla_ros.executor import executor_parameters
from qwen_vla_ros.policy import policy_node
from qwen_vla_ros.recording import episode_recorder
from qwen_vla_ros.ros.spinning_node import SpinningNode
from qwen_vla_ros.simulation.stack import node_command, stack_host
from qwen_vla_sim.aloha.node import AlohaSim
from qwen_vla_sim.mobile_base.node import MobileBaseSim
from qwen_vla_sim.widowx.node import WidowXSim

NODES = {
    interface.name: interface
    for interface in (
        *(node.interface() for node in (WidowXSim, AlohaSim, MobileBaseSim)),
        *(policy_node.INTERFACE, executor_parameters.INTERFACE),
        *(episode_recorder.INTERFACE, trajectory_visualizer.INTERFACE),
    )
}
DIRECTIONS = {"publisher": "publishes", "subscriber": "subscribes", "service": "services", "client": "calls"}
OF_EVERY_NODE = {"rosout", "parameter_events"}
BELOW_EVERY_NODE = (
    *("transition_event", "change_state", "get_state", "get_available_states", "get_available_transitions"),
    *("get_transition_graph", "describe_parameters", "get_parameters", "get_parameter_types", "list_parameters"),
    *("set_parameters", "set_parameters_atomically", "get_type_description"),
)
NOT_HERE = {"executor_node/base_path", "tf"}  # of robots with a base; where tf2_msgs is installed
if find_spec("controller_manager_msgs") is None:  # not among the wheels
    NOT_HERE |= {"controller_manager/activity", "controller_manager/switch_controller"}
PATIENCE = 60.0  # [s]


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Iterator[SpinningNode]:
    """A look at a graph in which all of them run; two of the simulated robots are in a namespace beside the third."""
    with stack_host(tmp_path_factory.mktemp("logs")) as host, SpinningNode("onlooker", host.domain) as client:
        client.check = host.processes.check
        for name, interface in NODES.items():
            parameters = {"autostart": True} if interface.managed else {}
            command = node_command(name, parameters, host.environment, {"__ns": namespace(name)})
            host.processes.start(name, command, host.environment)
        yield client


def namespace(node: str) -> str:
    return "/beside" if node in ("aloha_sim", "mobile_base_sim") else "/"


def full_name(endpoint: Endpoint, interface: NodeInterface) -> str:
    """Its name in the graph, without the first slash, by the defaults of the parameters."""
    name = interface.default_name(endpoint).split(" (parameter")[0]
    return name.replace("~", interface.name).lstrip("/")


def offered(graph: SpinningNode, direction: str, node: str) -> dict[str, list[str]]:
    """Names and types of what a node has in the graph beside what every node has."""
    space = namespace(node)
    try:
        found = getattr(graph.node, f"get_{direction}_names_and_types_by_node")(node, space)
    except NodeNameNonExistentError:
        return {}
    usual = OF_EVERY_NODE | {f"{node}/{name}" for name in BELOW_EVERY_NODE}
    usual |= {"clock"} if direction == "subscriber" else set()  # with use_sim_time
    names = {name.removeprefix(space).lstrip("/"): types for name, types in found}
    return {name: types for name, types in names.items() if name not in usual and "/_action/" not in name}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("node", NODES)
def test_help_and_graph_agree(node: str, direction: str, graph: SpinningNode) -> None:
    endpoints = getattr(NODES[node], DIRECTIONS[direction])
    declared = {full_name(endpoint, NODES[node]): endpoint for endpoint in endpoints}
    of_robot = {kind for name, endpoint in declared.items() if "<" in name for kind in endpoint.types}
    named = {name for name in declared if "<" not in name} - NOT_HERE
    what = f"{direction}s of {node}: {', '.join(sorted(named))}"
    graph.wait(lambda: named <= offered(graph, direction, node).keys(), what, PATIENCE)
    for name, types in offered(graph, direction, node).items():
        allowed = set(declared[name].types) if name in declared else of_robot
        assert set(types) <= allowed, f"{node} --help says nothing of the {direction} {name} {types}"


def test_the_action_is_offered_under_the_name_that_help_says(graph: SpinningNode) -> None:
    """Actions are services and topics with names of their own."""
    (action,) = policy_node.INTERFACE.actions
    name = f"/{full_name(action, policy_node.INTERFACE)}/_action/send_goal"
    types = [f"{action.types[0]}_SendGoal"]
    graph.wait(lambda: dict(graph.node.get_service_names_and_types()).get(name) == types, name, PATIENCE)
