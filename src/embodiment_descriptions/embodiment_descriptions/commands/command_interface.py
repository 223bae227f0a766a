# SPDX-License-Identifier: Apache-2.0
"""What every kind of command interface says of itself: its keys in the YAML, what it moves, where its other parts are.

A kind is one class. The parts that need ROS, recordings or a simulator belong to packages that this one must not know,
so the class names them as "module:attribute", and `make_part` imports one when it is used.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from embodiment_descriptions.schema import Name, Strict

if TYPE_CHECKING:
    Kind = Any  # each kind narrows it to the Literal of its name, which type checkers allow of Any only
else:
    Kind = str
Part = Literal["ros_side", "recorded", "simulated"]
PARTS: dict[Part, str] = {
    "ros_side": "ROS side",
    "recorded": "reader of recorded commands",
    "simulated": "stand-in in the simulator",
}


class CommandInterface(Strict):
    """One entry of `commands`: a way to command a robot.

    A kind is a subclass of TopicCommand or ActionCommand that narrows `backend` to its name, and is an entry point of
    that name in the group `qwen_vla.command_interfaces`.

    Attributes:
        message_types: types of messages or of an action, by their full names, that the kind may use.
        moves_base: it drives the base rather than joints.
        only_grippers: the joints that it moves are grippers.
        start_hint: what starts the device behind it; {controller} stands for the controller that its endpoint names.
        ros_side: makes what executor_node sends paths with, see qwen_vla_ros.executor.command_interfaces.Backend.
        recorded: makes what reads its commands from a bag, see qwen_vla.data.formats.rosbag_commands.CommandReader.
        simulated: makes what obeys it in the simulator, see qwen_vla_sim.controllers.stand_ins; empty: nothing does.
    """

    message_types: ClassVar[tuple[str, ...]] = ()
    is_action: ClassVar[bool] = False
    moves_base: ClassVar[bool] = False
    only_grippers: ClassVar[bool] = False
    start_hint: ClassVar[str] = "start the device behind this interface, or correct its name in the YAML"
    ros_side: ClassVar[str] = ""
    recorded: ClassVar[str] = ""
    simulated: ClassVar[str] = ""

    backend: Kind

    @property
    def endpoint(self) -> str:
        """Name of its topic or action, as in the YAML."""
        raise NotImplementedError

    @property
    def types(self) -> tuple[str, ...]:
        """Types of its topic or action with these settings, any of which will do."""
        return self.message_types

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that it moves, in the order of its commands; none for a base."""
        return ()

    def type_hint(self, found: str) -> str:
        """What to do where its endpoint has the type `found`, which is none of its own."""
        return "correct backend and topic of this interface in the YAML, or load the controller that they name"


class TopicCommand(CommandInterface):
    """A command interface that is published to."""

    topic: Name

    @property
    def endpoint(self) -> str:
        """The topic."""
        return self.topic


class ActionCommand(CommandInterface):
    """A command interface that takes goals of an action."""

    is_action: ClassVar[bool] = True

    action: Name

    @property
    def endpoint(self) -> str:
        """The action."""
        return self.action

    def type_hint(self, found: str) -> str:
        """As CommandInterface."""
        return "correct backend or kind of this interface in the YAML"


def make_part(command: CommandInterface, part: Part, offered: Sequence[str], *arguments: Any, **options: Any) -> Any:
    """Import a part of a command interface, and call it.

    Args:
        command: the interface.
        part: which one.
        offered: attributes that what is returned must have.
        *arguments, **options: for the call.

    Raises:
        ValueError: there is none, it cannot be imported, or it lacks something; names the kind and the part.
    """
    made = _load(command, part)(*arguments, **options)
    if lacking := [name for name in offered if not hasattr(made, name)]:
        raise ValueError(
            f"command interface {command.backend!r}: its {PARTS[part]}, {getattr(command, part)}, lacks "
            f"{', '.join(lacking)}"
        )
    return made


def _load(command: CommandInterface, part: Part) -> Callable[..., Any]:
    interface, where = f"command interface {command.backend!r}", getattr(command, part)
    if not where:
        raise ValueError(
            f"{interface} has no {PARTS[part]}; command the robot through another one here, or name the part as "
            f"`{part}` of {type(command).__name__}"
        )
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{interface}: its {PARTS[part]}, {where}, cannot be imported: {error}") from error
