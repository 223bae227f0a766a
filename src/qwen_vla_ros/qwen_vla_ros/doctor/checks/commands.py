# SPDX-License-Identifier: Apache-2.0
"""Command interfaces: each has a listening controller, and no other node commands the same joints."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from embodiment_descriptions import EmbodimentConfig
from embodiment_descriptions.commands import CommandInterface
from qwen_vla_control.observation.plausibility import UNKNOWN
from qwen_vla_rclpy.optional_interfaces import DISTRIBUTION
from qwen_vla_ros.doctor.checks.ros_setup import AREA as ROS_SETUP
from qwen_vla_ros.doctor.checks.streams import nodes, one_of, short
from qwen_vla_ros.doctor.facts import Endpoint, Graph, Topic
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import EMERGENCY_STOP, EXECUTOR
from qwen_vla_ros.ros.names import resolve

AREA = Area("Commands")
# Nodes that subscribe to everything and move nothing.
OBSERVERS = (
    *("rosbag2", "rqt", "plotjuggler", "foxglove", "rosbridge", "rviz", "rerun", "_"),
    *("episode_recorder", "trajectory_visualizer"),
)

# Parts of Nav2 that share cmd_vel_nav by design and are silent without a goal.
TAKE_TURNS = ("controller_server", "behavior_server", "docking_server")


def check_packages(config: EmbodimentConfig) -> Iterator[Finding]:
    """Are the message packages of the commands installed?"""
    packages = {kind.split("/")[0] for command in config.commands for kind in command.types}
    missing = sorted(name for name in packages if importlib.util.find_spec(name) is None)
    distribution = os.environ.get("ROS_DISTRO", DISTRIBUTION)
    for name in missing:
        remedy = f"apt install ros-{distribution}-{name.replace('_', '-')}"
        yield ROS_SETUP.fail(name, f"not installed, but required to command {config.name}", remedy)
    if packages and not missing:
        yield ROS_SETUP.ok("command messages", f"{', '.join(sorted(packages))}")
    if not config.commands:
        yield AREA.warn("commands", "the YAML lists none", "add the robot's command interfaces under `commands`")


def check_commands(config: EmbodimentConfig, graph: Graph, namespace: str) -> Iterator[Finding]:
    """All checks of all command interfaces."""
    executor = resolve(namespace, EXECUTOR)
    for command in config.commands:
        yield from check_controller(command, graph)
        name = resolve(namespace, command.endpoint)
        if command.is_action:
            yield check_action(command, name, graph)
            continue
        topic = graph.topic(name)
        yield check_listeners(command, topic)
        yield from check_rivals(command, topic, graph, executor)
    yield check_emergency_stop(graph, resolve(namespace, EMERGENCY_STOP))


def check_emergency_stop(graph: Graph, name: str) -> Finding:
    """Is there an emergency stop in the graph, and is it released?"""
    topic, heard = graph.topic(name), graph.heard(name)
    if not topic.publishers:
        if graph.clock():
            return AREA.ok("emergency stop", "none; not required for a simulated robot")
        remedy = f"connect one (std_msgs/Bool on {name}, true while pressed) and set estop_required of executor_node"
        return AREA.warn("emergency stop", f"{name} has no publisher", remedy)
    if topic.publishers[0].type != "std_msgs/msg/Bool":
        return AREA.fail(
            "emergency stop", f"{name} has the type {short(topic.publishers[0].type)}", "publish std_msgs/Bool"
        )
    if not heard:
        fact = f"no message from {topic.publishers[0].node} on {name}"
        return AREA.warn("emergency stop", fact, "have it publish its state periodically, or as transient local")
    if heard[-1].content:
        remedy = "release it, then run: ros2 service call /executor_node/reset_estop std_srvs/srv/Trigger"
        return AREA.fail("emergency stop", "pressed", remedy)
    return AREA.ok("emergency stop", f"released, from {topic.publishers[0].node}")


def check_controller(command: CommandInterface, graph: Graph) -> Iterator[Finding]:
    """Is the controller active? An inactive one may still subscribe. No finding without a controller manager."""
    if not graph.controllers or "{controller}" not in command.start_hint:
        return
    name = command.endpoint.rsplit("/", 1)[0].rsplit("/", 1)[-1]
    state = graph.controllers.get(name)
    if state is None:
        yield AREA.fail(f"{name}: state", "not loaded in the controller manager", _start(command))
    elif state != "active":
        yield AREA.fail(f"{name}: state", state, f"ros2 control set_controller_state {name} active")
    else:
        yield AREA.ok(f"{name}: state", "active")


def check_action(command: CommandInterface, name: str, graph: Graph) -> Finding:
    """Is there an action server of the right type?"""
    types, wanted = graph.actions.get(name, ()), command.types
    if not types:
        return AREA.fail(name, "no action server", _start(command))
    if not set(types) & set(wanted):
        fact = f"the action is {short(types[0])}, the YAML has {short(wanted[0])}"
        return AREA.fail(name, fact, command.type_hint(types[0]))
    return AREA.ok(name, f"action server {short(wanted[0])}")


def check_listeners(command: CommandInterface, topic: Topic) -> Finding:
    """Does a controller subscribe? Publishing without one succeeds, and moves nothing."""
    label, wanted = command.endpoint, command.types
    listeners = [s for s in topic.subscribers if not _observes(s)]
    right = [s for s in listeners if s.type in wanted]
    if not listeners:
        only = f" except {nodes(topic.subscribers)}, which only observes" if topic.subscribers else ""
        return AREA.fail(label, f"{topic.name} has no subscriber{only}", _start(command))
    if not right:
        fact = f"{listeners[0].node} expects {short(listeners[0].type)}, not {' or '.join(map(short, wanted))}"
        return AREA.fail(label, fact, command.type_hint(listeners[0].type))
    kinds = {s.type for s in right}
    if len(kinds) > 1:
        fact = f"{nodes(right)} expect different types: {', '.join(sorted(map(short, kinds)))}"
        return AREA.fail(
            label, fact, "a topic has only one type: correct the settings (enable_stamped_cmd_vel in Nav2)"
        )
    deaf = [s for s in right if s.conflict]
    if deaf:
        fact = f"QoS of {deaf[0].node} ({deaf[0].qos}) does not match: {deaf[0].conflict}"
        write = AREA.fail if deaf == right else AREA.warn
        return write(label, fact, "change the QoS of the controller: reliable, volatile")
    if len(right) < len(listeners):
        odd = next(s for s in listeners if s not in right)
        fact = f"{nodes(right)} subscribes, but {odd.node} expects {short(odd.type)} there"
        return AREA.warn(label, fact, "stop one of them, or give it a topic of its own")
    if len({s.node for s in right}) > 1:
        fact = f"{len(right)} nodes execute the commands: {nodes(right)}"
        return AREA.warn(label, fact, "stop the one that should not move; is a simulator running beside the robot?")
    return AREA.ok(label, f"{right[0].node} subscribes ({short(right[0].type)})")


def check_rivals(command: CommandInterface, topic: Topic, graph: Graph, executor: str) -> Iterator[Finding]:
    """Does another node send commands, too? With two of them a robot jitters, or worse."""
    rivals = [p for p in topic.publishers if p.node != executor and not _observes(p)]
    if not rivals:
        return
    senders = {a.publisher for a in graph.heard(topic.name)}
    sending = [p for p in rivals if p.gid in senders]
    now = nodes(sending) or (one_of(topic.publishers) if UNKNOWN in senders else "")
    fact = f"also published by {nodes(rivals)}" + (f"; sending now: {now}" if now else "")
    remedy = f"stop {nodes(rivals)}: only {executor} may send commands"
    polite = command.moves_base and all(p.node.rsplit("/", 1)[-1] in TAKE_TURNS for p in rivals)
    both = any(p.node == executor for p in topic.publishers) or len(rivals) > 1
    if sending or (both and not polite):
        yield AREA.fail(f"{command.endpoint}: rivals", fact, remedy)
    else:
        yield AREA.warn(f"{command.endpoint}: rivals", fact, "send no goals to Nav2 meanwhile" if polite else remedy)


def _observes(endpoint: Endpoint) -> bool:
    return endpoint.node.rsplit("/", 1)[-1].startswith(OBSERVERS)


def _start(command: CommandInterface) -> str:
    return command.start_hint.replace("{controller}", command.endpoint.rsplit("/", 1)[0])
