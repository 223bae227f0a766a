# SPDX-License-Identifier: Apache-2.0
"""Whether the `commands` of a YAML suit its robot: every joint is moved by one interface, a base by at most one."""

from collections.abc import Sequence

from embodiment_descriptions.commands.command_interface import CommandInterface
from embodiment_descriptions.schema import require_unique


def check_commands(
    commands: Sequence[CommandInterface], joints: list[str], grippers: list[str], has_base: bool
) -> None:
    """Check that every joint is commanded by one interface, and a base by at most one.

    No commands at all are allowed: such a robot can be described and learned from, but not driven.

    Args:
        commands: the interfaces.
        joints: all joints that are to be commanded.
        grippers: those of them that are grippers.
        has_base: the robot has a base.

    Raises:
        ValueError: names the joint or the interface.
    """
    arms = [command for command in commands if not command.moves_base]
    bases = [command for command in commands if command.moves_base]
    _check_joints(arms, joints, grippers, bool(commands))
    if bases and not has_base:
        raise ValueError(f"commands drive a base ({bases[0].backend}), but `base` describes none")
    if len(bases) > 1:
        raise ValueError(f"the base is commanded more than once: {', '.join(command.backend for command in bases)}")
    if commands and has_base and not bases:
        raise ValueError("no entry of commands drives the base; add one with the backend base_velocity")


def _check_joints(arms: Sequence[CommandInterface], joints: list[str], grippers: list[str], driven: bool) -> None:
    named = [joint for command in arms for joint in command.commanded]
    require_unique("commanded joint", named)
    strange = [joint for joint in named if joint not in joints]
    if strange:
        raise ValueError(f"commands name {', '.join(strange)}, which neither arms, hands nor waist list")
    left_out = [joint for joint in joints if joint not in named]
    if driven and left_out:
        raise ValueError(f"no entry of commands moves {', '.join(left_out)}")
    for command in arms:
        if not command.commanded:
            raise ValueError(
                f"{command.backend} moves neither joints nor the base; its class {type(command).__name__} has to say "
                "so by `commanded` or `moves_base`"
            )
        for joint in command.commanded:
            if command.only_grippers and joint not in grippers:
                raise ValueError(f"{command.backend} moves grippers, and {joint!r} is not one of an arm")
