# SPDX-License-Identifier: Apache-2.0
"""The exact text that tells the model which robot it controls (Qwen-VLA, sections 2.3 and 3.2.1)."""

import re

TAG_PATTERN = re.compile(r"[a-z][a-z0-9_]*")
# Opens every special token of the model; inside an instruction it could open or close an image.
_SPECIAL_TOKEN = "<|"


def build_prompt(
    *,
    robot_tag: str,
    arm_count: int,
    has_waist: bool,
    has_base: bool,
    rate_hz: float,
    chunk_size: int,
    instruction: str,
    waypoints: bool = False,
) -> str:
    """Fill the template of the paper, without image markers.

    The paper gives the wording for arms only. For navigation it states that the prompt gives the convention and the
    horizon likewise; the wording for that, and for a robot without arms, is chosen here.

    Args:
        robot_tag: the model's name for the robot, such as "WidowX".
        arm_count: 1 or 2, or 0 for a base alone.
        has_waist: the robot moves its torso.
        has_base: the robot drives on a mobile base.
        rate_hz: control frequency of the actions [Hz], written without trailing zeros.
        chunk_size: number of actions in one chunk.
        instruction: the user's text, unchanged.
        waypoints: the actions are waypoints of the base, not control actions of arms.

    Raises:
        ValueError: the instruction is empty or contains a special token of the model, or the robot has neither one or
            two arms nor only a base.
    """
    if not instruction.strip():
        raise ValueError("the instruction is empty; give a task for the robot")
    if _SPECIAL_TOKEN in instruction:
        raise ValueError(f"the instruction {instruction!r} contains {_SPECIAL_TOKEN!r}, which opens a special token")
    actions = "navigation waypoints (dx, dy, dtheta)" if waypoints else "control actions"
    return (
        f"The robot is {robot_tag} with {_body(arm_count, has_waist, has_base)}. "
        f"The control frequency is {rate_hz:g} Hz. "
        f"Please predict the next {chunk_size} {actions} to execute the following task: {instruction}."
    )


def _body(arm_count: int, has_waist: bool, has_base: bool) -> str:
    if arm_count == 0 and has_base and not has_waist:
        return "mobile base"
    if arm_count not in (1, 2):
        raise ValueError(f"the prompt supports one arm, two arms, or a mobile base without arms, not {arm_count} arms")
    arms = "single arm" if arm_count == 1 else "dual arms"
    return arms + (", waist" if has_waist else "") + (", and mobile base" if has_base else "")


def image_marker(tag: str) -> tuple[str, str]:
    """Return the special tokens that open and close the image of the camera with this tag."""
    if not TAG_PATTERN.fullmatch(tag):
        raise ValueError(f"camera tag {tag!r} must be lower case letters, digits and underscores, such as 'cam_wrist'")
    return f"<|{tag}_start|>", f"<|{tag}_end|>"
