# SPDX-License-Identifier: Apache-2.0
"""What the topics of a bag are used for, and the messages of one stretch of it, sorted by use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from embodiment_descriptions import Camera, Embodiment
from embodiment_descriptions.commands import CommandInterface
from qwen_vla.data.formats.bags.bag import Bag, Recorded
from qwen_vla.data.formats.bags.conflicts import Conflict
from qwen_vla.data.formats.bags.replay import Joints, Measured, Reference
from qwen_vla.data.formats.bags.timeline import Heard, Stretch
from qwen_vla.data.formats.episodes import SourceOptions
from qwen_vla.data.formats.rosbag_commands import CommandReader, Trajectory
from qwen_vla_control.observation.streams import Alignment
from qwen_vla_control.stamps import stamp_of

COMPRESSED = "/compressed"
Commands = tuple[CommandInterface, CommandReader]
STRING, BOOL = "std_msgs/msg/String", "std_msgs/msg/Bool"
# Message types by what a topic is for.
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
JOINT_STATES, ODOMETRIES = ("sensor_msgs/msg/JointState",), ("nav_msgs/msg/Odometry",)


class BagOptions(SourceOptions):
    """What a bag does not define itself: from the user, or from the episode of episode_recorder.

    remapped: topics whose names differ from the robot's YAML, as (YAML, bag) pairs. alignment: rules for images that
    belong together, as in policy_node.
    """

    remapped: tuple[tuple[str, str], ...] = ()
    alignment: Alignment = Alignment.DROP

    def topic(self, name: str) -> str:
        """The bag's name of a topic of the robot."""
        if name in dict(self.remapped):
            return dict(self.remapped)[name]
        if name.startswith("/"):
            return name
        return "/" + "/".join(part.strip("/") for part in (self.namespace, name) if part.strip("/"))


class TopicUse(NamedTuple):
    """What a topic is used for.

    types: allowed ones. sensed: whether it has measurements. keep: turns a message into what is kept of it. add: sorts
    that into a part of the bag, with the time when it was there [ns].
    """

    types: tuple[str, ...]
    sensed: bool
    keep: Callable[[Recorded], Any]
    add: Callable[[Part, int, Any], None]


class Part:
    """The messages of one stretch of a bag, by use; times [ns] are in the clock of the message stamps."""

    def __init__(self, ended: str, damaged: bool) -> None:
        """Create an empty one; as a Stretch."""
        self.ended, self.damaged = ended, damaged
        self.measured = Measured()
        self.twists: list[tuple[int, np.ndarray]] = []
        self.trajectories: list[Trajectory] = []
        self.texts: list[tuple[int, str]] = []
        self.marks: list[tuple[int, Any]] = []
        self.conflicts: list[Conflict] = []


def topic_uses(
    embodiment: Embodiment, options: BagOptions, readers: Sequence[Commands], found: Collection[str]
) -> dict[str, list[TopicUse]]:
    """What the topics of a bag with these topics are used for, by topic."""
    uses: dict[str, list[TopicUse]] = {}

    def use(name: str, *what: Any) -> None:
        uses.setdefault(name, []).append(TopicUse(*what))

    for camera in embodiment.cameras:
        use(image_topic(camera, options, found), IMAGES, True, _images(camera.tag), _add_image)
    for index, source in enumerate(embodiment.joint_states):
        use(options.topic(source.topic), JOINT_STATES, True, _joints(index), _add_joints)
    if embodiment.odometry:
        use(options.topic(embodiment.odometry.topic), ODOMETRIES, True, _itself, _add_odometry)
    for command, reader in readers:
        if reader.read is not None:
            adds = _add_twist if command.moves_base else _add_trajectory
            use(options.topic(command.endpoint), command.message_types, False, _itself, partial(adds, reader.read))
    if options.instruction_topic:
        use(options.topic(options.instruction_topic), (STRING,), False, _itself, _add_text)
    if options.marker_topic:
        use(options.topic(options.marker_topic), (STRING, BOOL), False, _itself, _add_mark)
    return uses


def _itself(recorded: Recorded) -> Any:
    return recorded.message


def _images(tag: str) -> Callable[[Recorded], Reference]:
    """Makes references to images, and numbers these by their content."""
    latest, number = None, 0

    def keep(recorded: Recorded) -> Reference:
        nonlocal latest, number
        message = recorded.message
        number += latest is None or not np.array_equal(latest, message.data)
        latest = message.data
        return Reference(message.header, tag, recorded.topic, recorded.log_ns, recorded.place, number)

    return keep


def _joints(source: int) -> Callable[[Recorded], Joints]:
    names: dict[tuple[str, ...], tuple[str, ...]] = {}  # kept once

    def keep(recorded: Recorded) -> Joints:
        message = recorded.message
        own = tuple(message.name)
        return Joints(source, stamp_of(message), names.setdefault(own, own), message.position, message.velocity)

    return keep


def _add_image(part: Part, time: int, image: Reference) -> None:
    part.measured.images.append((time, image))


def _add_joints(part: Part, time: int, joints: Joints) -> None:
    part.measured.joints.append((time, joints))


def _add_odometry(part: Part, time: int, message: Any) -> None:
    part.measured.odometry.append((time, message))


def _add_trajectory(read: Callable[[Any, int], Trajectory], part: Part, time: int, message: Any) -> None:
    part.trajectories.append(read(message, time))


def _add_twist(read: Callable[[Any, int], tuple[int, np.ndarray]], part: Part, time: int, message: Any) -> None:
    part.twists.append(read(message, time))


def _add_text(part: Part, time: int, message: Any) -> None:
    if message.data.strip():
        part.texts.append((time, message.data.strip()))


def _add_mark(part: Part, time: int, message: Any) -> None:
    part.marks.append((time, message.data))


def heard_of(uses: Sequence[TopicUse], recorded: Recorded) -> Heard:
    sensed = any(use.sensed for use in uses)
    kept = [use.keep(recorded) for use in uses]
    stamp = stamp_of(recorded.message) if sensed else 0
    return Heard(recorded.topic, recorded.type, recorded.log_ns, stamp, sensed, kept)


def part_of(bag: Bag, stretch: Stretch, uses: Mapping[str, Sequence[TopicUse]]) -> Part:
    part = Part(stretch.ended, stretch.damaged)
    for time, heard in stretch.arrivals:
        for use, kept in zip(uses[heard.topic], heard.content, strict=True):
            try:
                use.add(part, time, kept)
            except ValueError as error:
                raise bag.error(heard.topic, heard.type, heard.log_ns, str(error)) from error
    return part


def image_topic(camera: Camera, options: BagOptions, found: Collection[str]) -> str:
    """The topic of a camera in a bag: that of its transport, else of the other one if that was recorded."""
    own, raw = options.topic(camera.image_topic), options.topic(camera.topic.removesuffix(COMPRESSED))
    return next((topic for topic in (own, raw, raw + COMPRESSED) if topic in found), own)
