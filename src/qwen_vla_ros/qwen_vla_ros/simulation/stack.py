# SPDX-License-Identifier: Apache-2.0
"""A simulated robot and the nodes of this suite as processes with the real middleware, ready for instructions.

Processes and parameters are those of launch/<robot>.launch.py with hardware:=mujoco, but `launch` is not needed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState

from qwen_vla.output_paths import claim_folder
from qwen_vla.policies.checkpoint import checkpoint_of
from qwen_vla_msgs.srv import ResetWorld
from qwen_vla_ros.ros.environment import adopted, own_environment, say_what_is_ignored
from qwen_vla_ros.ros.ros_domain import free_domain
from qwen_vla_ros.ros.running_nodes import LifecycleState
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode
from qwen_vla_ros.simulation.child_processes import LOGS, ChildProcesses
from qwen_vla_ros.simulation.interruption import signals_as_exceptions
from qwen_vla_ros.simulation.progress_line import ProgressLine

VISUALIZER = "trajectory_visualizer"
POLICY = "policy_node"
MANAGED = (POLICY, "executor_node")
READY_TIMEOUT = 600.0  # [s]; seconds on an idle machine, three minutes observed on a busy one
TRANSITION_TIMEOUT = 60.0  # [s] one of them loads a model
ATTEMPTS = 3  # a node that fails to configure this often, despite robot_description, will not succeed


@dataclass(frozen=True)
class Simulator:
    """The node that simulates a robot.

    Attributes:
        node: its name, and that of its program.
        remappings: by node, topics whose names differ from the robot's.
    """

    node: str
    remappings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


SIMULATORS = {  # by the name of the embodiment
    "widowx": Simulator("widowx_sim"),
    "aloha": Simulator("aloha_sim"),
    # Without Nav2 the executor drives the base itself.
    "mobile_base": Simulator("mobile_base_sim", {"executor_node": {"cmd_vel_nav": "cmd_vel"}}),
}


@dataclass(frozen=True)
class SimulatedWorld:
    """The scenes of the simulator.

    Attributes:
        robot: name of the embodiment.
        suite: the task suite whose scenes the seeds select.
        shift: kind of scenes that differ from training; empty: none.
        task: of every scene; empty: the one that the seed alone selects.
    """

    robot: str = "widowx"
    suite: str = "widowx"
    shift: str = ""
    task: str = ""

    @property
    def simulator(self) -> Simulator:
        """The simulator of this robot; ValueError for a robot without one."""
        if self.robot not in SIMULATORS:
            raise ValueError(f"robot {self.robot!r} has no simulator node; robots with one: {', '.join(SIMULATORS)}")
        return SIMULATORS[self.robot]


class StackError(RuntimeError):
    """The stack did not become ready; the message has the node, the reason, and the end of its log."""


@dataclass(frozen=True)
class SimulatedStack:
    """A running stack.

    Attributes:
        world: the scenes of the simulator.
        domain: its ROS domain.
        client: a node in that domain; waiting with it fails once a process of the stack has ended.
        processes: the child processes.
        start_seconds: from the start of the first process until all were ready [s].
        commands: restart each process, by name; with `environment`.
    """

    world: SimulatedWorld
    domain: int
    client: SpinningNode
    processes: ChildProcesses
    start_seconds: float
    commands: Mapping[str, list[str]]
    environment: Mapping[str, str]

    @property
    def simulator(self) -> str:
        """The name of the simulator node."""
        return self.world.simulator.node

    def wait_until_ready(self) -> None:
        """Wait until every node is (again) in the graph and active."""
        _Readiness(self.client, self.processes, self.simulator, MANAGED).wait()


@dataclass(frozen=True)
class Host:
    """Where stacks run: a ROS domain and its processes; a policy_node may outlive a stack.

    Attributes:
        domain: the ROS domain.
        environment: of every process.
        processes: the child processes.
    """

    domain: int
    environment: Mapping[str, str]
    processes: ChildProcesses


@contextmanager
def stack_host(logs: Path) -> Iterator[Host]:
    """A host whose processes write logs to the folder `logs`, one file per node; all of them end with it.

    The ROS settings of this shell are ignored, and named. SIGINT and SIGTERM become exceptions inside. OutputRefused
    when the folder contains something else.
    """
    claim_folder(logs, LOGS)
    say_what_is_ignored()
    with ExitStack() as cleanup:
        cleanup.enter_context(signals_as_exceptions())
        domain = cleanup.enter_context(free_domain())
        environment = stack_environment(domain, logs)
        cleanup.enter_context(adopted(environment))
        yield Host(domain, environment, cleanup.enter_context(ChildProcesses(logs)))


@contextmanager
def simulated_stack(
    policy: str | Path | None,
    logs: Path | Host,
    policy_parameters: Mapping[str, Any] | None = None,
    speed: float = 1.0,
    remappings: Mapping[str, Mapping[str, str]] | None = None,
    executor_parameters: Mapping[str, Any] | None = None,
    world: SimulatedWorld = SimulatedWorld(),
) -> Iterator[SimulatedStack]:
    """Start the stack, yield it when every node is ready, and end every process in any case.

    Args:
        policy: reference of the policy, or folder of its checkpoint; None: policy_node is not started.
        logs: folder for one log file per node; or a host: then policy_node stays when the stack ends, unconfigured, and
        serves the robot of the next stack on that host, with the parameters of the first stack.
        policy_parameters: parameters of policy_node in addition to those of the launch file.
        speed: simulated seconds per real second.
        remappings: by node, other names for its topics.
        executor_parameters: parameters of executor_node in addition to those of the launch file.
        world: the scenes of the simulator.

    Raises StackError or ChildEnded when it does not start. SIGINT and SIGTERM become exceptions inside.
    """
    began = time.monotonic()
    with ExitStack() as cleanup:
        host = logs if isinstance(logs, Host) else cleanup.enter_context(stack_host(logs))
        environment, processes = host.environment, host.processes
        client = cleanup.enter_context(SpinningNode("stack_client", host.domain))
        client.check = processes.check
        of_nodes = node_parameters(policy, policy_parameters or {}, speed, world)
        of_nodes["executor_node"] |= executor_parameters or {}
        own, more = world.simulator.remappings, remappings or {}
        commands = {
            name: node_command(name, parameters, environment, {**own.get(name, {}), **more.get(name, {})})
            for name, parameters in of_nodes.items()
        }
        waits = POLICY in processes.pids()
        for name, command in commands.items():
            if name != POLICY or not waits:
                processes.start(name, command, environment)
        if waits:  # unlike under autostart, configuration is not retried when robot_description arrives late
            described = partial(client.node.count_publishers, "robot_description")
            client.wait(described, f"robot_description of {world.simulator.node}", READY_TIMEOUT)
            change_state(client, POLICY, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
        managed = tuple(name for name in MANAGED if name in commands)
        _Readiness(client, processes, world.simulator.node, managed).wait()
        yield SimulatedStack(world, host.domain, client, processes, time.monotonic() - began, commands, environment)
        if isinstance(logs, Host):
            _leave_the_policy(client, processes)


def _leave_the_policy(client: SpinningNode, processes: ChildProcesses) -> None:
    """End every process except policy_node, and unconfigure that one."""
    processes.stop(but=(POLICY,))
    change_state(client, POLICY, Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)


def change_state(client: SpinningNode, node: str, *transitions: int) -> None:
    """Have a managed node make transitions in order; StackError when it does not."""
    service = client.node.create_client(ChangeState, f"{node}/change_state")
    try:
        for number in transitions:
            request = ChangeState.Request(transition=Transition(id=number))
            if not client.call(service, request, TRANSITION_TIMEOUT).success:
                raise StackError(f"{node} failed to make transition {number}; see its log")
    finally:
        client.in_turn(lambda: client.node.destroy_client(service))


def stack_environment(domain: int, logs: Path) -> dict[str, str]:
    """Environment of every process of the stack; no message leaves this machine."""
    environment = own_environment()
    environment.setdefault("ROS_LOG_DIR", str(logs.resolve() / "ros"))
    return environment | {
        "ROS_DOMAIN_ID": str(domain),
        "PYTHONUNBUFFERED": "1",
        "RCUTILS_COLORIZED_OUTPUT": "0",
    }


def node_parameters(
    policy: str | Path | None, more: Mapping[str, Any], speed: float = 1.0, world: SimulatedWorld = SimulatedWorld()
) -> dict[str, dict[str, Any]]:
    """Parameters by node, as in the launch file, in the order of starting.

    Only a simulator with several suites has a parameter for that: it is left out where the suite is the robot's own.
    """
    simulated = {"use_sim_time": True}
    managed = {**simulated, "autostart": True}
    of_policy = {} if policy is None else {POLICY: {**managed, "policy": policy_argument(policy), **more}}
    return {
        world.simulator.node: {
            **simulated,
            "seed": 0,
            "realtime_factor": float(speed),
            **({} if world.suite == world.robot else {"suite": world.suite}),
            "shift": world.shift,
            "task": world.task,
        },
        "executor_node": {**managed},
        **of_policy,
        VISUALIZER: simulated,
    }


def policy_argument(policy: str | Path) -> str:
    """The parameter `policy` of policy_node: the folder of a checkpoint as an absolute path."""
    checkpoint = checkpoint_of(str(policy))
    return str(checkpoint.resolve() if checkpoint else policy)


def node_command(
    name: str,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    remappings: Mapping[str, str] | None = None,
) -> list[str]:
    """The command line of a node; StackError when its program is not installed."""
    # JSON is YAML, in which ROS reads parameters; the quotes keep any path a string.
    settings = [f"{key}:={json.dumps(value, ensure_ascii=False)}" for key, value in parameters.items()]
    words = [word for setting in settings for word in ("-p", setting)]
    words += [word for old, new in (remappings or {}).items() for word in ("-r", f"{old}:={new}")]
    return [str(_program(name, environment)), "--ros-args", *words]


def _program(name: str, environment: Mapping[str, str]) -> Path:
    """Path of a program: beside the interpreter in a virtual environment, in lib/<package> in a colcon workspace."""
    simulators = {simulator.node for simulator in SIMULATORS.values()}
    package = "qwen_vla_sim" if name in simulators else "qwen_vla_ros"
    prefixes = [entry for entry in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    places = [Path(sys.executable).parent / name, *(Path(prefix, "lib", package, name) for prefix in prefixes)]
    for place in places:
        if os.access(place, os.X_OK):
            return place
    raise StackError(f"{name} is not installed; searched {', '.join(map(str, places))}; run `make setup`")


class _Readiness:
    """Watches the graph until every node is present and active."""

    def __init__(self, client: SpinningNode, processes: ChildProcesses, simulator: str, managed: Sequence[str]) -> None:
        self._client, self._processes, self._simulator = client, processes, simulator
        node = client.node
        self._reset = node.create_client(ResetWorld, f"{simulator}/reset")
        self._states = {name: LifecycleState(client, name) for name in managed}
        self._failures = dict.fromkeys(managed, 0)
        for name in managed:
            client.hear(TransitionEvent, f"{name}/transition_event", self._counter(name), 10)

    def wait(self) -> None:
        began = time.monotonic()
        line = ProgressLine()

        def ready() -> bool:
            states = self._look()
            self._give_up_if_hopeless()
            text = ", ".join(f"{name} {state}" for name, state in states.items())
            line.update(f"starting: {text}", f"({time.monotonic() - began:.0f} s)")
            return all(state in ("active", "ready") for state in states.values())

        try:
            self._client.wait(ready, "complete stack", READY_TIMEOUT)
        except NoAnswer as error:
            late = [name for name, state in self._look().items() if state not in ("active", "ready")]
            raise StackError(f"{error}: {self._why(late)}") from None
        domain, seconds = self._client.node.context.get_domain_id(), time.monotonic() - began
        what = f"the simulated robot, {' and '.join(self._states)} are ready"
        line.finish(f"{what}, in ROS domain {domain} of this machine ({seconds:.1f} s)")

    def _look(self) -> dict[str, str]:
        visualizer = self._client.node.count_publishers(f"{VISUALIZER}/predicted_path") > 0
        return {
            self._simulator: "ready" if self._reset.service_is_ready() else "starting",
            VISUALIZER: "ready" if visualizer else "starting",
            **{name: state.label() for name, state in self._states.items()},
        }

    def _counter(self, name: str) -> Callable[[TransitionEvent], None]:
        def count(event: TransitionEvent) -> None:
            failed = event.start_state.id == State.TRANSITION_STATE_CONFIGURING and (
                event.goal_state.id == State.PRIMARY_STATE_UNCONFIGURED
            )
            if failed and self._reset.service_is_ready():  # before, robot_description may be missing
                self._failures[name] += 1

        return count

    def _give_up_if_hopeless(self) -> None:
        hopeless = [name for name, count in self._failures.items() if count >= ATTEMPTS]
        if hopeless:
            raise StackError(f"{hopeless[0]} cannot be configured: {self._why(hopeless)}")

    def _why(self, names: list[str]) -> str:
        return "\n".join(f"{name}: {self._processes.describe_log(name)}" for name in names)
