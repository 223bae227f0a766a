# SPDX-License-Identifier: Apache-2.0
"""The model: is the checkpoint complete, was it trained for this robot, and are its statistics within its limits?

Reads the files of the checkpoint without torch, so that it also works on a robot's computer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embodiment_descriptions import Embodiment, ResourceError
from embodiment_descriptions.commands.installed import package_of
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.checkpoint.files import check_checkpoint as check_checkpoint_files
from qwen_vla.model.checkpoint.files import read_embodiments, read_normalization, weight_files
from qwen_vla.model.normalization import Quantiles
from qwen_vla.policies.checkpoint import PLACEHOLDER, checkpoint_path
from qwen_vla.policies.fit import checkpoint_misfits, missing_inputs, training_misfits
from qwen_vla.policies.opening import CHECKPOINT, find_policy, split_reference
from qwen_vla_ros.doctor.findings import Area, Finding, Level

AREA = Area("Model")
STILL = 1e-9  # spread below which a channel never moved in training


@dataclass(frozen=True)
class Checkpoint:
    """Contents of its files.

    Attributes:
        problem: why it cannot be used at all; empty when it can.
        weights: size of the weight files [bytes].
        robots: by name of the embodiment.
        statistics: by name of the dataset.
        image_size: side of the model's square input image [px]; 0 when unknown.
    """

    folder: str
    problem: str = ""
    weights: int = 0
    robots: dict[str, EmbodimentInfo] = field(default_factory=dict)
    statistics: dict[str, Quantiles] = field(default_factory=dict)
    image_size: int = 0


def read_checkpoint(name: str) -> Checkpoint:
    """Read a checkpoint: a folder, or the name of one of the suite."""
    address = split_reference(name)[1]
    folder = Path(address).expanduser()
    try:
        folder = checkpoint_path(address)
        image_size = check_checkpoint_files(folder).image_size
        weights = sum(file.stat().st_size for file in weight_files(folder))
        return Checkpoint(str(folder), "", weights, read_embodiments(folder), read_normalization(folder), image_size)
    except (OSError, ValueError, ResourceError) as error:
        return Checkpoint(str(folder), " ".join(str(error).split()))


def is_checkpoint(policy: str) -> bool:
    """Is a policy one of our checkpoints, whose files can be checked before it is opened?"""
    return split_reference(policy)[0] == CHECKPOINT


def check_installed(policy: str) -> Finding:
    """Is a package installed that opens this policy? Its own requirements are checked when it is opened."""
    try:
        package = package_of(find_policy(policy))
    except ValueError as error:
        return AREA.fail(
            "policy", str(error), "install its package (docs/how-to/add_a_policy.md), or specify another policy"
        )
    return AREA.ok("policy", f"package {package} opens {policy}; policy_node then checks that it matches the robot")


def check_checkpoint(checkpoint: Checkpoint, robot: Embodiment | None) -> Iterator[Finding]:
    """All checks of the model; for a robot without a description, only of its files."""
    if checkpoint.problem:
        remedy = "specify another with --policy, or copy or download it again; --policy remote skips the model"
        yield AREA.fail("checkpoint", checkpoint.problem, remedy)
        return
    yield AREA.ok("checkpoint", f"{Path(checkpoint.folder).name}: {checkpoint.weights / 1e6:.0f} MB of weights")
    if robot is None:
        fact = "not checked: there is no description of the robot"
        yield AREA.warn("fit", fact, "put NAME.urdf or NAME.urdf.xacro beside its YAML, or omit --offline")
        return
    trained = checkpoint.robots.get(robot.name)
    if trained is None:
        fact = f"trained for {', '.join(sorted(checkpoint.robots)) or 'no robot'}, not for '{robot.name}'"
        yield AREA.fail("robot", fact, "use a checkpoint for this robot, or fine-tune one (docs/how-to/train.md)")
        return
    fit = check_fit(trained, robot)
    yield fit
    yield check_prompt(trained, robot)
    if fit.level is not Level.FAIL or trained.channel_names == robot.channel_names:
        yield from check_statistics(trained, checkpoint, robot)


def check_same(checkpoint: Checkpoint, running: str) -> Iterator[Finding]:
    """Is the specified checkpoint the one that policy_node has loaded?"""
    other = read_checkpoint(running)
    if Path(other.folder).resolve() != Path(checkpoint.folder).resolve():
        fact = f"policy_node has loaded {running}; the following checks are of {checkpoint.folder}"
        yield AREA.warn("checkpoint", fact, "omit --policy, or start policy_node with the same policy:=…")


def check_fit(trained: EmbodimentInfo, robot: Embodiment) -> Finding:
    """Would policy_node load it? Depends on control mode, channels, period, chunk size and camera tags."""
    wrong = [*training_misfits(trained, robot), *missing_inputs(trained.camera_tags, (), robot)]
    if wrong:
        fact = f"it does not match '{robot.name}': {'; '.join(wrong)}"
        return AREA.fail("fit", fact, "use a checkpoint for this robot, or correct the robot's YAML")
    cameras = ", ".join(trained.camera_tags)
    return AREA.ok("fit", f"{robot.control_mode}, {len(robot.channel_names)} channels, cameras {cameras}")


def check_prompt(trained: EmbodimentInfo, robot: Embodiment) -> Finding:
    """Is the prompt that describes the robot as in training?"""
    now = robot.prompt(PLACEHOLDER)
    if trained.prompt_template != now:
        fact = f"in training “{trained.prompt_template}”, now “{now}”"
        return AREA.warn("prompt", fact, "correct tag, rate, chunk size or arms in the robot's YAML")
    return AREA.ok("prompt", "as in training")


def check_statistics(trained: EmbodimentInfo, checkpoint: Checkpoint, robot: Embodiment) -> Iterator[Finding]:
    """Would it be opened with the statistics that scale the model's output to motion?"""
    statistics = checkpoint.statistics.get(trained.dataset)
    wrong = list(checkpoint_misfits(trained, statistics, robot))
    if wrong or statistics is None:
        remedy = "policy_node will not load it: use another checkpoint, or train this one again"
        yield AREA.fail("statistics", "; ".join(wrong), remedy)
        return
    still = [n for n, a, b in zip(robot.channel_names, statistics.q01, statistics.q99, strict=True) if b - a < STILL]
    note = f"; never moved in training: {', '.join(still)}" if still else ""
    yield AREA.ok("statistics", f"within the robot's limits{note}")
