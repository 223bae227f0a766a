# SPDX-License-Identifier: Apache-2.0
"""The order of the checks, and the input of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embodiment_descriptions import Embodiment, EmbodimentConfig, EmbodimentError, description_of, embodiment_file
from embodiment_descriptions.config import load_config
from embodiment_descriptions.description import Hardware
from qwen_vla_ros.doctor.checks.cameras import check_cameras
from qwen_vla_ros.doctor.checks.checkpoint import AREA as MODEL
from qwen_vla_ros.doctor.checks.checkpoint import (
    Checkpoint,
    check_checkpoint,
    check_installed,
    check_same,
    is_checkpoint,
    read_checkpoint,
)
from qwen_vla_ros.doctor.checks.commands import check_commands, check_packages
from qwen_vla_ros.doctor.checks.description import check_description, live_description
from qwen_vla_ros.doctor.checks.joints import check_joint_states
from qwen_vla_ros.doctor.checks.machine import check_machine, look_at_machine
from qwen_vla_ros.doctor.checks.nodes import check_clocks, check_nobody, check_nodes
from qwen_vla_ros.doctor.checks.odometry import check_odometry
from qwen_vla_ros.doctor.checks.ros_setup import check_ros, check_ros_setup, domain_of, domains_in_use
from qwen_vla_ros.doctor.checks.streams import check_definitions
from qwen_vla_ros.doctor.facts import Graph
from qwen_vla_ros.doctor.findings import Finding
from qwen_vla_ros.doctor.interfaces import watches

REMOTE = "remote"  # as --policy: the model is on another machine
DEFAULT_POLICY = "tiny"  # of policy_node


@dataclass(frozen=True)
class Patient:
    """The robot to be examined.

    Attributes:
        config: the robot's YAML.
        own: the robot from the description that belongs to its YAML; None for a robot known only by its YAML.
        namespace: of the robot's topics and nodes.
        policy: reference, "remote", or empty for the one that policy_node has loaded.
    """

    config: EmbodimentConfig
    own: Embodiment | None
    namespace: str = ""
    policy: str = ""


def find_patient(robot: str, hardware: Hardware | Literal["mujoco"], namespace: str, policy: str) -> Patient:
    """Find a robot of the suite by its name, or one of the user's by the path of its YAML.

    Args:
        robot: name or path, see `embodiment_descriptions.embodiment_file`.
        hardware: as in the launch files; a robot may have other topics in reality than in simulation.
        namespace, policy: see Patient.

    Raises:
        EmbodimentError, ResourceError: there is no such robot, or its files are invalid.
    """
    described_as: Hardware = "mock" if hardware == "mujoco" else hardware
    file = embodiment_file(robot, described_as)
    urdf = description_of(file, described_as)
    own = Embodiment.from_urdf(urdf, file) if urdf else None
    return Patient(load_config(file), own, namespace, policy)


def look_at_graph(patient: Patient, environment: Mapping[str, str], seconds: float) -> Graph:
    """Observe the graph; only this requires ROS."""
    from qwen_vla_ros.doctor.listener import listen

    watched = watches(patient.config, patient.namespace)
    return listen(domain_of(environment), watched, patient.namespace, seconds)


def examine_setup(patient: Patient, environment: Mapping[str, str]) -> list[Finding]:
    """Check whether this machine can join a graph."""
    return [*check_ros_setup(environment), check_ros(), *check_packages(patient.config)]


def examine(patient: Patient, environment: Mapping[str, str], graph: Graph | None) -> Iterator[Finding]:
    """Check everything except the setup; `graph` is None when it is skipped."""
    robot = patient.own if graph is None else _robot(patient, graph)
    policy = _policy(patient, graph)
    checkpoint = read_checkpoint(policy) if policy != REMOTE and is_checkpoint(policy) else None
    yield from check_machine(look_at_machine(environment), checkpoint.weights if checkpoint else None)
    if not is_checkpoint(policy):
        loaded = graph is not None and graph.policy == policy
        yield MODEL.ok("policy", f"policy_node has loaded {policy}") if loaded else check_installed(policy)
    if checkpoint:
        yield from _model(patient, graph, checkpoint, robot)
    if graph is not None:
        yield from _graph(patient, graph, robot, checkpoint.image_size if checkpoint else 0, domain_of(environment))


def _policy(patient: Patient, graph: Graph | None) -> str:
    return patient.policy or (graph.policy if graph else "") or DEFAULT_POLICY


def _model(
    patient: Patient, graph: Graph | None, checkpoint: Checkpoint, robot: Embodiment | None
) -> Iterator[Finding]:
    running = graph.policy if graph else ""
    if running and patient.policy:
        yield from check_same(checkpoint, running)
    elif running and not Path(checkpoint.folder).is_dir():
        yield MODEL.ok("checkpoint", f"policy_node has loaded {running}, which is not on this machine")
        return
    yield from check_checkpoint(checkpoint, robot)


def _graph(patient: Patient, graph: Graph, robot: Embodiment | None, image_size: int, domain: int) -> Iterator[Finding]:
    """Check the running graph; when it is empty, only that is reported."""
    if not graph.nodes:
        yield check_nobody(domain, domains_in_use())
        return
    namespace = patient.namespace
    yield from check_definitions(graph)
    yield from check_description(patient.config, patient.own, graph, namespace)
    if robot is not None:
        yield from check_joint_states(robot, graph, namespace)
        yield from check_odometry(robot, graph, namespace)
        yield from check_cameras(robot, graph, namespace, image_size)
    yield from check_commands(patient.config, graph, namespace)
    if robot is not None:
        yield from check_nodes(robot, graph, namespace)
    yield from check_clocks(graph)


def _robot(patient: Patient, graph: Graph) -> Embodiment | None:
    """Return the robot as running; as described by the suite where its description is missing or does not match."""
    try:
        return Embodiment.from_urdf(live_description(graph, patient.namespace), patient.config.model_dump())
    except EmbodimentError:
        return patient.own


def environment_of_nodes() -> dict[str, str]:
    """Return the environment of nodes started from this shell."""
    from qwen_vla_ros.ros.environment import ros_environment

    environment = ros_environment()
    os.environ.update(environment)
    return environment
