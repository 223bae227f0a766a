"""The nodes: unique names, lifecycle states, signs of life, diagnostics, and one clock for all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from embodiment_descriptions import Embodiment, known_robots
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_ros.doctor.checks.streams import OTHER_CLOCK, SYNCHRONISE
from qwen_vla_ros.doctor.facts import Graph, Status, duplicates, longest_gap, rate
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import ANNOUNCEMENT, CLOCK, DIAGNOSTICS, EXECUTOR, HEARTBEAT, POLICY, resolve

AREA, CLOCKS = Area("Nodes"), Area("Clocks")
LAUNCH = "ros2 launch qwen_vla_ros {robot}.launch.py"  # of a robot that ships with the suite
LAUNCH_ANY = "ros2 launch qwen_vla_ros robot.launch.py embodiment_config:=<YAML of {robot}>"
LISTED = 5  # of a long list
HEARTBEAT_TIMEOUT = 0.4  # [s] of silence after which the executor holds
AHEAD, BEHIND = 0.005, 0.05  # [s] a message cannot come before it was sent; coming later may be the network
WARNING, ERROR = 1, 2  # levels of diagnostic_msgs/DiagnosticStatus; 3 is stale
STATE_REMEDIES = {
    "inactive": "ros2 lifecycle set {node} activate",
    "unconfigured": "ros2 lifecycle set {node} configure; its log says why it could not, if it has tried",
    "no answer": "the node hangs or is busy: look at its log, or start it again",
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
    """Where is everybody? `others` are the domains in which processes of this machine take part."""
    elsewhere = [str(other) for other in others if other != domain]
    if elsewhere:
        remedy = (
            f"on this machine there are nodes in domain {', '.join(elsewhere)}: export ROS_DOMAIN_ID={elsewhere[0]}"
        )
    else:
        remedy = "start the robot; if it runs, compare ROS_DOMAIN_ID, RMW_IMPLEMENTATION and discovery range there"
    return AREA.fail("graph", f"no node is visible in domain {domain}", f"{remedy}; --offline leaves the graph out")


def check_names(graph: Graph) -> Finding:
    """Is every name used once? Services and parameters of two nodes of one name answer at random."""
    twice = duplicates(graph.nodes)
    if twice:
        fact = ", ".join(f"{name} runs {count} times" for name, count in twice.items())
        return AREA.fail("names", fact, "end the extra ones, or give each robot its namespace")
    return AREA.ok("names", f"{len(graph.nodes)} node{'s' * (len(graph.nodes) != 1)}, every name once")


def check_state(robot: Embodiment, graph: Graph, node: str) -> Finding:
    """Is a node of the suite at work?"""
    if node not in graph.nodes:
        launch = LAUNCH if robot.name in known_robots() else LAUNCH_ANY
        remedy = f"{launch.format(robot=robot.name)}; right if you check the robot first"
        return AREA.warn(node, "is not running", remedy)
    state = graph.states.get(node, "no answer")
    if state == "active":
        return AREA.ok(node, "active")
    remedy = STATE_REMEDIES.get(state, "wait for the end of the transition").format(node=node)
    return AREA.warn(node, f"is {state}" if state != "no answer" else "does not tell its state", remedy)


def check_heartbeat(graph: Graph, topic: str) -> Finding:
    """Does the policy show signs of life, without long gaps?"""
    arrivals = graph.heard(topic)
    if len(arrivals) < 2:
        fact = f"{len(arrivals) or 'none'} on {topic} in {graph.seconds:.1f} s"
        return AREA.fail("heartbeat", fact, "the executor holds the robot: look at the log of policy_node")
    gap = longest_gap(arrivals)
    fact = f"{rate(arrivals):.0f} Hz, longest gap {gap:.2f} s (limit {HEARTBEAT_TIMEOUT} s)"
    remedy = "the machine of the policy is too busy: fewer torch_threads, or end what else runs there"
    if gap > HEARTBEAT_TIMEOUT:
        return AREA.fail("heartbeat", fact, remedy)
    if gap > HEARTBEAT_TIMEOUT / 2:
        return AREA.warn("heartbeat", fact, remedy)
    return AREA.ok("heartbeat", fact)


def check_announcement(robot: Embodiment, graph: Graph, topic: str) -> Iterator[Finding]:
    """Is the running policy made for this robot?"""
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
            remedy = "it read another YAML or description: restart policy_node, check its embodiment_config"
            yield AREA.fail("policy's robot", f"policy_node has {'; '.join(wrong)}", remedy)
        else:
            yield AREA.ok("policy's robot", f"policy_node is set up for '{robot.name}' as here")


def check_diagnostics(graph: Graph) -> Iterator[Finding]:
    """Does any node report a problem itself? The last word of each counts."""
    last: dict[str, Status] = {s.name: s for a in graph.heard(DIAGNOSTICS) for s in a.content}
    bad = sorted((s for s in last.values() if s.level >= WARNING), key=lambda s: (-s.level, s.name))
    for status in bad[:LISTED]:
        fact = f"{status.name}: {status.message or 'no message'}"
        write = AREA.fail if status.level == ERROR else AREA.warn
        yield write("diagnostics", fact, "as it says; ros2 topic echo /diagnostics shows the values")
    if len(bad) > LISTED:
        yield AREA.warn("diagnostics", f"{len(bad) - LISTED} more problems", "ros2 topic echo /diagnostics")
    if last and not bad:
        yield AREA.ok("diagnostics", f"{len(last)} report{'s' * (len(last) != 1)}, all well")


def check_clocks(graph: Graph) -> Iterator[Finding]:
    """All checks of clocks."""
    yield check_simulated_time(graph)
    yield from check_skew(graph)


def check_simulated_time(graph: Graph) -> Finding:
    """Do all nodes live in the same time?"""
    simulated = sorted(node for node, on in graph.sim_time.items() if on)
    real = sorted(node for node, on in graph.sim_time.items() if not on)
    ticks = graph.clock()
    publishers = {p.node for p in graph.topic(CLOCK).publishers}
    followers = [node for node in real if node not in publishers]  # who makes the time need not follow it
    if simulated and followers:
        fact = f"use_sim_time is true in {_few(simulated)}, false in {_few(followers)}"
        return CLOCKS.fail(
            "use_sim_time", fact, "set use_sim_time to the same in every node (in launch: use_sim_time:=)"
        )
    if simulated and not ticks:
        fact = f"true in {_few(simulated)}, but nothing comes on /clock: their time stands still"
        return CLOCKS.fail("use_sim_time", fact, "start the simulator (or unpause it), or set use_sim_time to false")
    if len(ticks) > 2 and len({tick.stamp for tick in ticks}) == 1:
        return CLOCKS.fail("use_sim_time", "/clock stands still", "unpause the simulator")
    if ticks and followers and not simulated:
        fact = f"/clock runs, but use_sim_time is false in {_few(followers)}"
        return CLOCKS.warn("use_sim_time", fact, "end what publishes /clock, or set use_sim_time to true everywhere")
    return CLOCKS.ok("use_sim_time", "simulated time everywhere" if simulated else "real time everywhere")


def check_skew(graph: Graph) -> Iterator[Finding]:
    """Do the clocks of the machines agree? Compared is when a message was sent, by its sender, with when it came."""
    owners = {p.gid: p.node for topic in graph.topics.values() for p in topic.publishers}
    delays: dict[str, list[float]] = defaultdict(list)
    for arrivals in graph.arrivals.values():
        for a in arrivals:
            if a.sent:
                delays[owners.get(a.publisher, "an unknown node")].append((a.received - a.sent) / NANOSECONDS)
    # What was said before we came (latched) is old without fault: the quickest message of each node counts.
    least = {node: min(values) for node, values in delays.items() if len(values) > 2}
    wrong = {node: delay for node, delay in least.items() if not -AHEAD <= delay <= BEHIND}
    for node, delay in sorted(wrong.items()):
        if abs(delay) > OTHER_CLOCK:
            amount = f"{abs(delay) / 86400:.0f} days"
        else:
            amount = f"{1e3 * abs(delay):.0f} ms" if abs(delay) < 1 else f"{abs(delay):.1f} s"
        side = "ahead of" if delay < 0 else "behind"
        write = CLOCKS.fail if abs(delay) > 2 * BEHIND else CLOCKS.warn
        yield write("skew", f"the clock of {node} is {amount} {side} ours", SYNCHRONISE)
    if least and not wrong:
        worst = max(least.values(), key=abs)
        yield CLOCKS.ok("skew", f"{len(least)} of {len(graph.nodes)} nodes compared: within {1e3 * abs(worst):.1f} ms")


def _few(names: list[str]) -> str:
    names = [Path(name).name for name in names]
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
