"""Which topics make up an episode, and how to subscribe to them: type, definition and quality of service as offered.

The topics follow from the robot's YAML; what they are like follows from who publishes them.
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

DEPTH = 100  # messages that wait in the middleware while the node does something else
IMAGE_DEPTH = 10
SEPARATOR = "=" * 80
INFINITE = {"sec": 9223372036, "nsec": 854775807}  # how rosbag2 writes a duration without end


class Need(Enum):
    """Whether an episode makes sense without a topic."""

    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class WantedTopic:
    """A topic to be recorded, by the name that the robot's YAML calls it by; image: large messages."""

    name: str
    need: Need
    image: bool = False


class UnknownType(ValueError):
    """A message type whose package is not installed here; the message names it."""


def wanted_topics(embodiment: Embodiment, policy: str, executor: str, extra: Sequence[str] = ()) -> list[WantedTopic]:
    """All topics of an episode, each once.

    Args:
        embodiment: the robot.
        policy, executor: names of the nodes whose chunks and reports are recorded.
        extra: further topics.
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
        *(f"{policy}/{name}" for name in ("action_chunk", "embodiment", "prompt")),
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
        raise UnknownType(f"{kind} is not known here; install ros-$ROS_DISTRO-{package.replace('_', '-')}") from error


def topic_format(name: str, offers: Sequence[TopicEndpointInfo]) -> TopicFormat:
    """What to write into a bag about a topic that is published; UnknownType when its type is not installed."""
    kind = offers[0].topic_type
    message_class(kind)
    qos = yaml.safe_dump([_qos_entry(offer.qos_profile) for offer in offers], sort_keys=False)
    return TopicFormat(name, kind, definition(kind), qos, str(offers[0].topic_type_hash))


def definition(kind: str) -> str:
    """The text of a message's definition and of all those that it uses, as rosbag2 writes it into MCAP files."""
    done: dict[str, str] = {}
    _collect(kind, done)
    first, *others = done.items()
    return first[1] + "".join(f"{SEPARATOR}\nMSG: {_short(name)}\n{text}" for name, text in others)


def matching_qos(offers: Sequence[TopicEndpointInfo], image: bool) -> QoSProfile:
    """A profile that every publisher can serve, and as good as they all offer: reliable and latched if all are."""
    return matching([offer.qos_profile for offer in offers], IMAGE_DEPTH if image else DEPTH)


def one_type(offers: Iterable[TopicEndpointInfo]) -> str:
    """Why the publishers of a topic do not agree on a type; empty when they do."""
    kinds = sorted({offer.topic_type for offer in offers})
    return f"is published as {' and as '.join(kinds)}" if len(kinds) > 1 else ""


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
    """The message types in a field: itself, or that of its elements."""
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
    def word(policy: object) -> str:
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
