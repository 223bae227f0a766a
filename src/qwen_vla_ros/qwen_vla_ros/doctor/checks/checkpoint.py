"""The model: is the checkpoint complete, was it trained for this robot, and are its statistics within its limits?

Reads the files of the checkpoint without torch, so that it also works on a robot's computer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodiment_descriptions import Channel, ChannelKind, ControlMode, Embodiment, ResourceError
from embodiment_descriptions.actions.channels import BASE, ROTATION, TRANSLATION
from qwen_vla.model.normalization import Quantiles
from qwen_vla.policies.checkpoint import PLACEHOLDER, checkpoint_path
from qwen_vla.policies.fit import missing_inputs, training_misfits
from qwen_vla.policies.opening import CHECKPOINT, find_policy, split_reference
from qwen_vla_ros.doctor.findings import Area, Finding

AREA = Area("Model")
CONFIG, EMBODIMENTS, STATISTICS = "config.json", "embodiments.json", "normalization.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # [bytes] limit of the format
LIMIT_MARGIN = 0.05  # share of a joint's range by which demonstrations may exceed the limits of the URDF
FARTHEST = 3.0  # [m] no arm moves its tip this far in one chunk
STILL = 1e-9  # spread below which a channel never moved in training


@dataclass(frozen=True)
class Trained:
    """One entry of embodiments.json: a robot for which the checkpoint was trained."""

    name: str
    channel_names: tuple[str, ...]
    control_mode: str
    period: float
    horizon: int
    camera_tags: tuple[str, ...]
    prompt_template: str
    dataset: str


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
    robots: dict[str, Trained] = field(default_factory=dict)
    statistics: dict[str, Quantiles] = field(default_factory=dict)
    image_size: int = 0


def read_checkpoint(name: str) -> Checkpoint:
    """Read a checkpoint: a folder, or the name of one of the suite."""
    address = split_reference(name)[1]
    folder = Path(address).expanduser()
    try:
        folder = checkpoint_path(address)
        robots = {key: _trained(value) for key, value in _json(folder / EMBODIMENTS).items()}
        statistics = {key: Quantiles.from_json(value) for key, value in _json(folder / STATISTICS).items()}
        image_size = int(_json(folder / CONFIG).get("image_size", 0))
        return Checkpoint(str(folder), "", _weights(folder), robots, statistics, image_size)
    except (OSError, ValueError, KeyError, TypeError, ResourceError) as error:
        return Checkpoint(str(folder), " ".join(str(error).split()))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _trained(data: dict[str, Any]) -> Trained:
    fields = {key: data[key] for key in Trained.__dataclass_fields__}
    return Trained(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


def _weights(folder: Path) -> int:
    """Return the size of all weight files [bytes], after checking the header of each."""
    index = folder / INDEX
    names = sorted(set(_json(index)["weight_map"].values())) if index.is_file() else [WEIGHTS]
    for file in (folder / name for name in names):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing")
        size = file.stat().st_size
        if size != _promised_size(file):
            raise ValueError(f"{file} is damaged or truncated ({size} bytes)")
    return sum((folder / name).stat().st_size for name in names)


def _promised_size(file: Path) -> int:
    """Return the size implied by the header of a safetensors file: 8 bytes, JSON of the size they state, the tensors.

    Parsed here, because a robot's computer has neither torch nor safetensors. -1 for an invalid header.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(min(length, LONGEST_HEADER)))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return -1
    return 8 + length + max(ends, default=0)


def is_checkpoint(policy: str) -> bool:
    """Is a policy one of our checkpoints, whose files can be checked before it is opened?"""
    return split_reference(policy)[0] == CHECKPOINT


def check_installed(policy: str) -> Finding:
    """Is a package installed that opens this policy? Its own requirements are checked when it is opened."""
    try:
        package = find_policy(policy).dist.name
    except ValueError as error:
        return AREA.fail(
            "policy", str(error), "install its package (docs/how-to/add_a_policy.md), or specify another policy"
        )
    return AREA.ok("policy", f"package {package} opens {policy}; policy_node then checks that it matches the robot")


def check_checkpoint(checkpoint: Checkpoint, robot: Embodiment) -> Iterator[Finding]:
    """All checks of the model."""
    if checkpoint.problem:
        remedy = "specify another with --policy, or copy or download it again; --policy remote skips the model"
        yield AREA.fail("checkpoint", checkpoint.problem, remedy)
        return
    yield AREA.ok("checkpoint", f"{Path(checkpoint.folder).name}: {checkpoint.weights / 1e6:.0f} MB of weights")
    trained = checkpoint.robots.get(robot.name)
    if trained is None:
        fact = f"trained for {', '.join(sorted(checkpoint.robots)) or 'no robot'}, not for '{robot.name}'"
        yield AREA.fail("robot", fact, "use a checkpoint for this robot, or fine-tune one (docs/how-to/train.md)")
        return
    yield check_fit(trained, robot)
    yield check_prompt(trained, robot)
    yield from check_statistics(trained, checkpoint, robot)


def check_same(checkpoint: Checkpoint, running: str) -> Iterator[Finding]:
    """Is the specified checkpoint the one that policy_node has loaded?"""
    other = read_checkpoint(running)
    if Path(other.folder).resolve() != Path(checkpoint.folder).resolve():
        fact = f"policy_node has loaded {running}; the following checks are of {checkpoint.folder}"
        yield AREA.warn("checkpoint", fact, "omit --policy, or start policy_node with the same policy:=…")


def check_fit(trained: Trained, robot: Embodiment) -> Finding:
    """Would policy_node load it? Depends on control mode, channels, period, chunk size and camera tags."""
    wrong = [*training_misfits(trained, robot), *missing_inputs(trained.camera_tags, (), robot)]
    if wrong:
        fact = f"it does not match '{robot.name}': {'; '.join(wrong)}"
        return AREA.fail("fit", fact, "use a checkpoint for this robot, or correct the robot's YAML")
    cameras = ", ".join(trained.camera_tags)
    return AREA.ok("fit", f"{robot.control_mode}, {len(robot.channel_names)} channels, cameras {cameras}")


def check_prompt(trained: Trained, robot: Embodiment) -> Finding:
    """Is the prompt that describes the robot as in training?"""
    now = robot.prompt(PLACEHOLDER)
    if trained.prompt_template != now:
        fact = f"in training “{trained.prompt_template}”, now “{now}”"
        return AREA.warn("prompt", fact, "correct tag, rate, chunk size or arms in the robot's YAML")
    return AREA.ok("prompt", "as in training")


def check_statistics(trained: Trained, checkpoint: Checkpoint, robot: Embodiment) -> Iterator[Finding]:
    """Do the statistics that scale the model's output to motion match this robot?"""
    statistics = checkpoint.statistics.get(trained.dataset)
    if statistics is None or len(statistics.q01) != len(robot.channel_names):
        fact = f"{STATISTICS} has none for '{trained.dataset}' with {len(robot.channel_names)} channels"
        yield AREA.fail("statistics", fact, "copy the checkpoint again, or recompute them by training")
        return
    if statistics.channel_names and statistics.channel_names != robot.channel_names:
        fact = f"their channels are {' '.join(statistics.channel_names)}, the robot's {' '.join(robot.channel_names)}"
        yield AREA.fail(
            "statistics", fact, "the order of the channels determines which joint moves: use another checkpoint"
        )
        return
    outside = [
        _outside(channel, low, high, bounds)
        for channel, bounds, low, high in zip(
            robot.layout.channels, channel_bounds(robot), statistics.q01, statistics.q99, strict=True
        )
        if not _inside(low, high, bounds)
    ]
    if outside:
        remedy = "check the units of its training dataset; the gate will refuse such chunks"
        yield AREA.fail("statistics", "; ".join(outside), remedy)
        return
    still = [n for n, a, b in zip(robot.channel_names, statistics.q01, statistics.q99, strict=True) if b - a < STILL]
    note = f"; never moved in training: {', '.join(still)}" if still else ""
    yield AREA.ok("statistics", f"within the robot's limits{note}")


def channel_bounds(robot: Embodiment) -> list[tuple[float, float]]:
    """Return the plausible range of each action channel in the model, in the channel's unit; see Embodiment.layout."""
    base = robot.safety.base
    linear = base.max_linear if base else math.inf
    angular = base.max_angular if base else math.inf
    step, rotation = linear * robot.period, angular * robot.period  # in the model, waypoints are increments
    sizes = dict.fromkeys(TRANSLATION, FARTHEST) | dict.fromkeys(ROTATION, math.pi)
    sizes |= dict(zip(BASE[ControlMode.BASE_WAYPOINTS], (step, step, rotation), strict=True))
    sizes |= dict(zip(BASE[ControlMode.BASE_VELOCITY], (linear, linear, angular), strict=True))
    ends = {kind: (-size, size) for kind, size in sizes.items()} | {ChannelKind.GRIPPER: (0.0, 1.0)}
    limits = {name: (limit.lower, limit.upper) for name, limit in robot.limits.items()}
    return [limits[channel.joint] if channel.joint else ends[channel.kind] for channel in robot.layout.channels]


def _inside(low: float, high: float, bounds: tuple[float, float]) -> bool:
    span = bounds[1] - bounds[0]
    margin = LIMIT_MARGIN * span if math.isfinite(span) else 0.0
    return bool(bounds[0] - margin <= low and high <= bounds[1] + margin)


def _outside(channel: Channel, low: float, high: float, bounds: tuple[float, float]) -> str:
    text = f"{channel.name} {low:.3g}..{high:.3g}, the robot's limits {bounds[0]:.3g}..{bounds[1]:.3g}"
    is_length = channel.unit in ("m", "m/s")
    factor, guess = (1000.0, "millimeters") if is_length else (np.rad2deg(1.0), "degrees")
    likely = channel.kind is not ChannelKind.GRIPPER and _inside(low / factor, high / factor, bounds)
    return f"{text} ({guess}?)" if likely else text
