# SPDX-License-Identifier: Apache-2.0
"""The nodes: unique names, lifecycle states, heartbeats, diagnostics, and one clock for all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from embodiment_descriptions import Embodiment, known_robots
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_ros.doctor.checks.streams import OTHER_CLOCK, SYNCHRONIZE, one_of
from qwen_vla_ros.doctor.facts import Graph, Status, duplicates, longest_gap, rate
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import ANNOUNCEMENT, CLOCK, DIAGNOSTICS, EXECUTOR, HEARTBEAT, POLICY
from qwen_vla_ros.ros.names import resolve

AREA, CLOCKS = Area("Nodes"), Area("Clocks")
LAUNCH = "ros2 launch qwen_vla_ros {robot}.launch.py"  # of a robot that ships with the suite
LAUNCH_ANY = "ros2 launch qwen_vla_ros robot.launch.py embodiment_config:={config}"
RUN = "without a ros2 command: {node} --ros-args -p embodiment_config:={config} -p autostart:=true"
LISTED = 5  # items of a long list
HEARTBEAT_TIMEOUT = 0.4  # [s] without a heartbeat after which the executor holds
AHEAD, BEHIND = 0.005, 0.05  # [s] a message cannot arrive before it was sent; a delay may be due to the network
WARNING, ERROR = 1, 2  # levels of diagnostic_msgs/DiagnosticStatus; 3 is stale
STATE_REMEDIES = {
    "inactive": "ros2 lifecycle set {node} activate",
    "unconfigured": "ros2 lifecycle set {node} configure; if it has failed to, see its log",
    "no response": "the node hangs or is busy: check its log, or restart it",
}


def check_nodes(robot: Embodiment, graph: Graph, namespace: str) -> Iterator[Finding]:
    """All checks of nodes."""
    yield check_names(graph)
    for name in (POLICY, EXECUTOR):
        yield check_state(robot, graph, resolve(namespace, name))
    policy = resolve(namespace, POLICY)
    if graph.states.get(policy) == "active":
        yield check_heartbeat(graph, resolve(namespace, HEARTBEAT))
    yield from check_announcement(robot, graph, resolve(namespace, ANNOUNCEMENT))
    yield from check_diagnostics(graph)


def check_nobody(domain: int, others: list[int]) -> Finding:
    """Where are the nodes? `others` are the domains in which processes of this machine participate."""
    elsewhere = [str(other) for other in others if other != domain]
    if elsewhere:
        remedy = f"this machine has nodes in domain {', '.join(elsewhere)}: export ROS_DOMAIN_ID={elsewhere[0]}"
    else:
        remedy = "start the robot; if it is running, compare ROS_DOMAIN_ID, RMW_IMPLEMENTATION and discovery range"
    return AREA.fail("graph", f"no nodes found in domain {domain}", f"{remedy}; --offline skips the graph")


def check_names(graph: Graph) -> Finding:
    """Is every name unique? With two nodes of one name, either may respond to services and parameters."""
    repeated = duplicates(graph.nodes)
    if repeated:
        fact = ", ".join(f"{name} is running {count} times" for name, count in repeated.items())
        return AREA.fail("names", fact, "stop the extra ones, or give each robot a namespace")
    return AREA.ok("names", f"{len(graph.nodes)} node{'s' * (len(graph.nodes) != 1)}, names unique")


def check_state(robot: Embodiment, graph: Graph, node: str) -> Finding:
    """Is a node of the suite active?"""
    if node not in graph.nodes:
        ships = robot.name in known_robots()
        config = robot.name if ships else f"<YAML of {robot.name}>"
        launch = (LAUNCH if ships else LAUNCH_ANY).format(robot=robot.name, config=config)
        run = RUN.format(node=node.rpartition("/")[2], config=config)
        remedy = f"{launch} ({run}); expected if you check the robot first"
        return AREA.warn(node, "not running", remedy)
    state = graph.states.get(node, "no response")
    if state == "active":
        return AREA.ok(node, "active")
    remedy = STATE_REMEDIES.get(state, "wait for the end of the transition").format(node=node)
    return AREA.warn(node, state if state != "no response" else "does not report its state", remedy)


def check_heartbeat(graph: Graph, topic: str) -> Finding:
    """Does the policy send heartbeats, without long gaps?"""
    arrivals = graph.heard(topic)
    if len(arrivals) < 2:
        fact = f"{len(arrivals) or 'none'} on {topic} in {graph.seconds:.1f} s"
        return AREA.fail("heartbeat", fact, "the executor holds the robot: check the log of policy_node")
    gap = longest_gap(arrivals)
    fact = f"{rate(arrivals):.0f} Hz, longest gap {gap:.2f} s (limit {HEARTBEAT_TIMEOUT} s)"
    remedy = "the policy's machine is too busy: reduce torch_threads, or stop other programs there"
    if gap > HEARTBEAT_TIMEOUT:
        return AREA.fail("heartbeat", fact, remedy)
    if gap > HEARTBEAT_TIMEOUT / 2:
        return AREA.warn("heartbeat", fact, remedy)
    return AREA.ok("heartbeat", fact)


def check_announcement(robot: Embodiment, graph: Graph, topic: str) -> Iterator[Finding]:
    """Is the running policy configured for this robot?"""
    for arrival in graph.heard(topic)[-1:]:
        says = arrival.content
        pairs = {
            "robot": (says.name, robot.name),
            "control mode": (says.control_mode, robot.control_mode),
            "rate": (says.rate_hz, robot.rate_hz),
            "channels": (says.channel_names, robot.channel_names),
            "joints": (says.joint_names, robot.joint_names),
        }
        wrong = [f"{what} {a}, here {b}" for what, (a, b) in pairs.items() if a != b]
        if wrong:
            remedy = "it uses another YAML or description: check its embodiment_config and restart policy_node"
            yield AREA.fail("policy's robot", f"policy_node has {'; '.join(wrong)}", remedy)
        else:
            yield AREA.ok("policy's robot", f"policy_node is configured for '{robot.name}' as here")


def check_diagnostics(graph: Graph) -> Iterator[Finding]:
    """Does any node itself report a problem? Only the latest status of each counts."""
    last: dict[str, Status] = {s.name: s for a in graph.heard(DIAGNOSTICS) for s in a.content}
    bad = sorted((s for s in last.values() if s.level >= WARNING), key=lambda s: (-s.level, s.name))
    for status in bad[:LISTED]:
        fact = f"{status.name}: {status.message or 'no message'}"
        write = AREA.fail if status.level == ERROR else AREA.warn
        yield write("diagnostics", fact, "see its message; ros2 topic echo /diagnostics shows the values")
    if len(bad) > LISTED:
        yield AREA.warn("diagnostics", f"{len(bad) - LISTED} more problems", "ros2 topic echo /diagnostics")
    if last and not bad:
        yield AREA.ok("diagnostics", f"{len(last)} report{'s' * (len(last) != 1)}, all ok")


def check_clocks(graph: Graph) -> Iterator[Finding]:
    """All checks of clocks."""
    yield check_simulated_time(graph)
    yield from check_skew(graph)


def check_simulated_time(graph: Graph) -> Finding:
    """Do all nodes use the same time?"""
    simulated = sorted(node for node, on in graph.sim_time.items() if on)
    real = sorted(node for node, on in graph.sim_time.items() if not on)
    ticks = graph.clock()
    publishers = {p.node for p in graph.topic(CLOCK).publishers}
    followers = [node for node in real if node not in publishers]  # the publisher of /clock does not have to use it
    if simulated and followers:
        fact = f"use_sim_time is true in {_few(simulated)}, false in {_few(followers)}"
        return CLOCKS.fail(
            "use_sim_time", fact, "set use_sim_time to the same value in every node (in launch: use_sim_time:=)"
        )
    if simulated and not ticks:
        fact = f"true in {_few(simulated)}, but /clock has no messages: their time does not advance"
        return CLOCKS.fail("use_sim_time", fact, "start the simulator (or unpause it), or set use_sim_time to false")
    if len(ticks) > 2 and len({tick.stamp for tick in ticks}) == 1:
        return CLOCKS.fail("use_sim_time", "/clock does not advance", "unpause the simulator")
    if ticks and followers and not simulated:
        fact = f"/clock is running, but use_sim_time is false in {_few(followers)}"
        return CLOCKS.warn("use_sim_time", fact, "stop the publisher of /clock, or set use_sim_time to true everywhere")
    return CLOCKS.ok("use_sim_time", "simulated time everywhere" if simulated else "real time everywhere")


def check_skew(graph: Graph) -> Iterator[Finding]:
    """Do the clocks of the machines agree? Compares each message's send time, by its sender, with its arrival."""
    owners = {p.gid: p.node for topic in graph.topics.values() for p in topic.publishers}
    delays: dict[str, list[float]] = defaultdict(list)
    for name, arrivals in graph.arrivals.items():
        someone = one_of(graph.topic(name).publishers) or "an unknown node"
        for a in arrivals:
            if a.sent:
                delays[owners.get(a.publisher, someone)].append((a.received - a.sent) / NANOSECONDS)
    # Latched messages may be old without a fault: the fastest message of each node counts.
    least = {node: min(values) for node, values in delays.items() if len(values) > 2}
    wrong = {node: delay for node, delay in least.items() if not -AHEAD <= delay <= BEHIND}
    for node, delay in sorted(wrong.items()):
        if abs(delay) > OTHER_CLOCK:
            amount = f"{abs(delay) / 86400:.0f} days"
        else:
            amount = f"{1e3 * abs(delay):.0f} ms" if abs(delay) < 1 else f"{abs(delay):.1f} s"
        side = "ahead of" if delay < 0 else "behind"
        write = CLOCKS.fail if abs(delay) > 2 * BEHIND else CLOCKS.warn
        yield write("skew", f"the clock of {node} is {amount} {side} ours", SYNCHRONIZE)
    if least and not wrong:
        worst = max(least.values(), key=abs)
        yield CLOCKS.ok("skew", f"{len(least)} of {len(graph.nodes)} nodes compared: within {1e3 * abs(worst):.1f} ms")


def _few(names: list[str]) -> str:
    names = [Path(name).name for name in names]
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
