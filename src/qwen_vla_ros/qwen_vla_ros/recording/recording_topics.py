# SPDX-License-Identifier: Apache-2.0
"""The topics of an episode, and how to subscribe to them: type, definition and quality of service as offered.

The topics follow from the robot's YAML; their properties from their publishers.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import yaml
from rclpy.qos import HistoryPolicy, LivelinessPolicy, QoSProfile
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosbags.interfaces import Nodetype
from rosbags.typesys import TypesysError, get_types_from_msg

from embodiment_descriptions import Embodiment
from qwen_vla_rclpy.qos import matching
from qwen_vla_ros.recording.recording_file import TopicFormat

DEPTH = 100  # messages queued in the middleware while the node is busy
IMAGE_DEPTH = 10
SEPARATOR = "=" * 80
INFINITE = {"sec": 9223372036, "nsec": 854775807}  # rosbag2's representation of an infinite duration


class Need(Enum):
    """Whether an episode is useless without a topic."""

    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class WantedTopic:
    """A topic to be recorded, by its name in the robot's YAML; image: large messages."""

    name: str
    need: Need
    image: bool = False


class UnknownType(ValueError):
    """A message type whose package is not installed; the error names it."""


def wanted_topics(embodiment: Embodiment, policy: str, executor: str, extra: Sequence[str] = ()) -> list[WantedTopic]:
    """All topics of an episode, without duplicates.

    Args:
        embodiment: the robot.
        policy, executor: names of the nodes whose chunks and reports are recorded.
        extra: additional topics.
    """
    e = embodiment
    cameras = [WantedTopic(camera.image_topic, Need.REQUIRED, image=True) for camera in e.cameras]
    joints = Need.REQUIRED if e.joint_names else Need.OPTIONAL
    streams = [WantedTopic(stream.topic, joints) for stream in e.joint_states]
    streams += [WantedTopic(e.odometry.topic, Need.REQUIRED)] if e.odometry else []
    optional = [
        *(camera.info_topic for camera in e.cameras),
        *(command.endpoint for command in e.commands if not command.is_action),
        "robot_description",
        *(f"{policy}/{name}" for name in ("action_chunk", "embodiment", "identity", "prompt")),
        *(f"{executor}/{name}" for name in ("accepted_chunk", "chunk_report")),
        *extra,
    ]
    found = [*cameras, *streams, *(WantedTopic(name, Need.OPTIONAL) for name in optional)]
    return list({topic.name: topic for topic in reversed(found)}.values())[::-1]


def message_class(kind: str) -> type:
    """The class of `package/msg/Name`; UnknownType names the package to install."""
    package, _, name = kind.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise UnknownType(f"{kind} is not installed; install ros-$ROS_DISTRO-{package.replace('_', '-')}") from error


def topic_format(name: str, offers: Sequence[TopicEndpointInfo]) -> TopicFormat:
    """The bag's entry of a published topic; UnknownType when its type is not installed."""
    kind = offers[0].topic_type
    message_class(kind)
    qos = yaml.safe_dump([_qos_entry(offer.qos_profile) for offer in offers], sort_keys=False)
    return TopicFormat(name, kind, definition(kind), qos, str(offers[0].topic_type_hash))


def definition(kind: str) -> str:
    """The definition of a message type and of all types it uses, in rosbag2's format for MCAP files."""
    done: dict[str, str] = {}
    _collect(kind, done)
    first, *others = done.items()
    return first[1] + "".join(f"{SEPARATOR}\nMSG: {_short(name)}\n{text}" for name, text in others)


def matching_qos(offers: Sequence[TopicEndpointInfo], image: bool) -> QoSProfile:
    """The strongest profile that all publishers satisfy: reliable and latched if all are."""
    return matching([offer.qos_profile for offer in offers], IMAGE_DEPTH if image else DEPTH)


def one_type(offers: Iterable[TopicEndpointInfo]) -> str:
    """Why the publishers of a topic disagree on a type; empty when they agree."""
    kinds = sorted({offer.topic_type for offer in offers})
    return f"is published as {' and '.join(kinds)}" if len(kinds) > 1 else ""


def _collect(kind: str, done: dict[str, str]) -> None:
    text = _definition_file(kind).read_text(encoding="utf-8")
    done[kind] = text if text.endswith("\n") else text + "\n"
    try:
        _, fields = get_types_from_msg(text, kind)[kind]
    except TypesysError as error:
        raise UnknownType(f"the definition of {kind} cannot be read: {error}") from error
    for _, field in fields:
        for used in _used(field):
            if used not in done:
                _collect(used, done)


def _used(field: tuple) -> list[str]:
    """The message types in a field: its own, or that of its elements."""
    node, value = field
    if node == Nodetype.NAME:
        return [value]
    return [] if node == Nodetype.BASE else _used(value[0])


def _definition_file(kind: str) -> Path:
    package, _, name = kind.split("/")
    prefixes = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    places = [Path(prefix, "share", package, "msg", f"{name}.msg") for prefix in prefixes]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UnknownType(f"{kind}: no {package}/msg/{name}.msg in {', '.join(prefixes)}")
    return found


def _short(kind: str) -> str:
    package, _, name = kind.split("/")
    return f"{package}/{name}"


def _qos_entry(profile: QoSProfile) -> dict:
    def word(policy: Enum) -> str:
        return policy.name.lower()

    history = profile.history if profile.history in (HistoryPolicy.KEEP_LAST, HistoryPolicy.KEEP_ALL) else None
    liveliness = profile.liveliness if profile.liveliness != LivelinessPolicy.UNKNOWN else LivelinessPolicy.AUTOMATIC
    return {
        "history": word(history) if history else "unknown",
        "depth": profile.depth,
        "reliability": word(profile.reliability),
        "durability": word(profile.durability),
        "deadline": INFINITE,
        "lifespan": INFINITE,
        "liveliness": word(liveliness),
        "liveliness_lease_duration": INFINITE,
        "avoid_ros_namespace_conventions": False,
    }
