# SPDX-License-Identifier: Apache-2.0
"""How a robot is commanded and where it says where it is: the topics, actions and joints of its YAML.

One entry of `commands` is one command interface; its `backend` says of which kind. Names of joints are those of the
URDF throughout.
"""

from embodiment_descriptions.commands.base_commands import (
    BaseVelocityCommand,
    Nav2FollowPathCommand,
    Nav2PoseCommand,
)
from embodiment_descriptions.commands.command_interface import (
    ActionCommand,
    CommandInterface,
    TopicCommand,
    make_part,
)
from embodiment_descriptions.commands.consistency import check_commands
from embodiment_descriptions.commands.installed import Command, find_kind, installed_kinds
from embodiment_descriptions.commands.joint_commands import (
    ForwardCommand,
    GripperActionCommand,
    GripperCalibration,
    JointTrajectoryCommand,
    XsGroupCommand,
    XsSingleCommand,
)
from embodiment_descriptions.commands.state_topics import JointStates, Odometry

# Those that come with the suite.
KINDS: tuple[type[CommandInterface], ...] = (
    *(JointTrajectoryCommand, ForwardCommand, GripperActionCommand, XsGroupCommand, XsSingleCommand),
    *(BaseVelocityCommand, Nav2FollowPathCommand, Nav2PoseCommand),
)

__all__ = [
    "KINDS",
    "ActionCommand",
    "BaseVelocityCommand",
    "Command",
    "CommandInterface",
    "ForwardCommand",
    "GripperActionCommand",
    "GripperCalibration",
    "JointStates",
    "JointTrajectoryCommand",
    "Nav2FollowPathCommand",
    "Nav2PoseCommand",
    "Odometry",
    "TopicCommand",
    "XsGroupCommand",
    "XsSingleCommand",
    "check_commands",
    "find_kind",
    "installed_kinds",
    "make_part",
]
