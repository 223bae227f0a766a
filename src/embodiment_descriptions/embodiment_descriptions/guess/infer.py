# SPDX-License-Identifier: Apache-2.0
"""A best guess at the configuration of a URDF that comes without one, and what was guessed."""

import re
from typing import Any

from embodiment_descriptions.actions import ControlMode
from embodiment_descriptions.commands import BaseVelocityCommand, JointTrajectoryCommand, Odometry
from embodiment_descriptions.config import Arm, Base, BaseLimits, Camera, EmbodimentConfig, Safety
from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.guess.body_parts import Part, part_of, words
from embodiment_descriptions.guess.end_effectors import end_effector, grasp_point
from embodiment_descriptions.guess.finger_joints import finger_joints
from embodiment_descriptions.urdf import UrdfJoint, UrdfTree

_SIDES = {"left": {"l", "larm"}, "right": {"r", "rarm"}}
RATE_HZ, CHUNK_SIZE = 5.0, 16
BASE_RATE_HZ, BASE_CHUNK_SIZE = 2.0, 8
BASE_LIMITS = BaseLimits(max_linear=0.3, max_angular=1.0, max_linear_acceleration=0.5, max_angular_acceleration=1.0)
Chain = list[UrdfJoint]
Guess = tuple[EmbodimentConfig, tuple[str, ...]]
WIDEST = 30.0  # [rad] of a joint's limits; cables do not allow more turns, and few limits in degrees are less
MOST_NAMES = 20  # of joints that one line lists
LEAST_ARM = 3  # joints that an arm has at least, where another one shares its first joints


def infer_config(tree: UrdfTree, urdf: str) -> Guess:
    """Guess one or two arms with their grippers or, where there is no arm, a base on wheels.

    An arm is the longest serial chain of revolute joints that is neither a leg, a wheel nor a head, and a second one
    like it; its gripper is the finger joint behind it.

    Args:
        tree: the URDF.
        urdf: its text.

    Returns:
        The configuration, and one line per guess for the user to check.

    Raises:
        EmbodimentError: the URDF has neither.
    """
    chains = _chains(tree)
    arms = [chain for chain in chains if part_of(chain) is None]
    of_arms = {joint.name for chain in arms for joint in chain}
    others: dict[Part, list[Chain]] = {part: [] for part in Part}
    for chain in chains:
        part, own = part_of(chain), [joint for joint in chain if joint.name not in of_arms]  # without a shared torso
        if part is not None and own:
            others[part].append(own)
    if arms:
        return _arms(tree, urdf, _without_torso(arms), others)
    if others[Part.WHEELS]:
        return _base(tree, others)
    names = finger_joints(tree)
    fingers = [joint for name, joint in tree.joints.items() if name in names]
    seen = "".join(f" ({line})" for line in [*_left_out(others), *([f"fingers: {_names(fingers)}"] if fingers else [])])
    raise EmbodimentError(f"the URDF of {tree.name!r} has no revolute joint for an arm{seen}; give a YAML")


def _arms(tree: UrdfTree, urdf: str, chains: list[Chain], others: dict[Part, list[Chain]]) -> Guess:
    """One arm, or two that are alike and share no joint."""
    alike = [chain for chain in chains if len(chain) == len(chains[0])]
    second = next((chain for chain in alike if not set(chain) & set(chains[0])), None)
    both = [chains[0]] if second is None else sorted((chains[0], second), key=lambda chain: _side(chain) or "")
    names = ["arm"] if second is None else [_side(chain) or f"arm_{n}" for n, chain in enumerate(both, 1)]
    if len(set(names)) < len(names):
        names = [f"arm_{number}" for number in range(1, len(both) + 1)]
    found = [_guessed_arm(tree, urdf, name, chain) for name, chain in zip(names, both, strict=True)]
    arms = tuple(arm for arm, _ in found)
    notes = [
        *(note for _, lines in found for note in lines),
        *_left_out(others),
        *_not_commanded(tree, arms, others),
        *_in_degrees(tree, arms),
        f"commands: {', '.join(_controllers(arms))}, with the topics of joint_trajectory_controller",
        "home: zero, or the allowed position nearest to it",
    ]
    mode = ControlMode.JOINT_POSITION if any(arm.hand for arm in arms) else ControlMode.EEF_DELTA
    return _config(
        tree, notes, control_mode=mode, rate_hz=RATE_HZ, chunk_size=CHUNK_SIZE, arms=arms, commands=_commands(arms)
    )


def _guessed_arm(tree: UrdfTree, urdf: str, name: str, chain: Chain) -> tuple[Arm, list[str]]:
    base, last = chain[0].parent, chain[-1].child
    tip = grasp_point(tree, last)
    end, joints = end_effector(tree, urdf, last, tip), tuple(joint.name for joint in chain)
    arm = Arm(name=name, joints=joints, base_link=base, tip_link=tip, gripper=end.gripper, hand=end.hand)
    what = "arm: the longest" if name == "arm" else f"arm {name}: a"
    return arm, [f"{what} chain of revolute joints, {base} to {tip}", end.note]


def _side(chain: Chain) -> str | None:
    """`left` or `right`, as the names of a chain's joints and links have it; None where they do not."""
    found = {word for joint in chain for name in (joint.name, joint.child) for word in words(name)}
    sides = {side for side, short in _SIDES.items() if short & found or any(word.startswith(side) for word in found)}
    return sides.pop() if len(sides) == 1 else None


def _base(tree: UrdfTree, others: dict[Part, list[Chain]]) -> Guess:
    link = next((name for name in ("base_footprint", "base_link") if name in tree.links), tree.root)
    wheels = ", ".join(_names(chain) for chain in others[Part.WHEELS])
    notes = [
        f"base: {link} on wheels ({wheels}), no arm; taken as differential (omnidirectional: one that drives sideways)",
        *_left_out(others | {Part.WHEELS: []}),
        f"limits: {BASE_LIMITS.max_linear:g} m/s and {BASE_LIMITS.max_angular:g} rad/s, chosen with "
        "caution; a URDF has no limits of a base",
        "odometry: on the topic odom",
        "commands: a velocity on cmd_vel_nav, the input of Nav2's velocity smoother",
    ]
    return _config(
        tree,
        notes,
        control_mode=ControlMode.BASE_WAYPOINTS,
        rate_hz=BASE_RATE_HZ,
        chunk_size=BASE_CHUNK_SIZE,
        base=Base(kind="differential", link=link),
        odometry=Odometry(topic="odom"),
        commands=(BaseVelocityCommand(backend="base_velocity"),),
        safety=Safety(base=BASE_LIMITS),
    )


def _config(tree: UrdfTree, notes: list[str], **guesses: Any) -> Guess:
    config = EmbodimentConfig(
        name=_identifier(tree.name),
        robot_tag=tree.name,
        cameras=(Camera(tag="ego", topic="ego/image_raw", info_topic="ego/camera_info"),),
        **guesses,
    )
    return config, (
        *notes,
        f"robot_tag: the name of the URDF, {tree.name}",
        f"control: {config.control_mode} at {config.rate_hz:g} Hz in chunks of {config.chunk_size}",
        "cameras: one called ego; a URDF describes no cameras",
    )


def _left_out(others: dict[Part, list[Chain]]) -> list[str]:
    """One line for each part that is no arm."""
    return [
        f"{part}: {'; '.join(_names(chain) for chain in chains)}: no arm" for part, chains in others.items() if chains
    ]


def _not_commanded(tree: UrdfTree, arms: tuple[Arm, ...], others: dict[Part, list[Chain]]) -> list[str]:
    """One line with the joints that move by themselves and of which no other line speaks: a lift, another arm."""
    told = {joint.name for chains in others.values() for chain in chains for joint in chain}
    told |= {name for names in _controllers(arms).values() for name in names}
    left = [joint.name for joint in tree.joints.values() if joint.movable and joint.name not in told]
    more = f" and {len(left) - MOST_NAMES} more" if len(left) > MOST_NAMES else ""
    remedy = "what is to move belongs to an arm (there are at most two), its hand or the waist"
    return [f"not commanded: {', '.join(left[:MOST_NAMES])}{more}; {remedy}"] if left else []


def _in_degrees(tree: UrdfTree, arms: tuple[Arm, ...]) -> list[str]:
    """One line with the joints of which the limits are no angles in rad."""
    joints = [tree.joints[name] for arm in arms for name in (*arm.joints, *arm.hand)]
    wide = [joint for joint in joints if _turns(joint) and joint.range and max(map(abs, joint.range)) > WIDEST]
    asked = f"limits: {_names(wide)} reach beyond {WIDEST:g} rad; a URDF has radians, are these degrees?"
    return [asked] if wide else []


def _names(chain: Chain) -> str:
    return ", ".join(joint.name for joint in chain)


def _controllers(arms: tuple[Arm, ...]) -> dict[str, tuple[str, ...]]:
    """Joints by controller; of two arms, each controller is named after its arm."""
    found = {}
    for arm in arms:
        prefix = f"{arm.name}_" if len(arms) > 1 else ""
        found[f"{prefix}arm_controller"] = arm.joints
        if arm.gripper:
            found[f"{prefix}gripper_controller"] = (arm.gripper.joint,)
        if arm.hand:
            found[f"{prefix}hand_controller"] = arm.hand
    return found


def _commands(arms: tuple[Arm, ...]) -> tuple[JointTrajectoryCommand, ...]:
    return tuple(
        JointTrajectoryCommand(backend="joint_trajectory", topic=f"{controller}/joint_trajectory", joints=names)
        for controller, names in _controllers(arms).items()
    )


def _chains(tree: UrdfTree) -> list[Chain]:
    """List the distinct chains of joints that turn, with the slides between them, longest first.

    Each is the first unbroken run of them from the root to a leaf; fixed joints do not break a run, fingers do.
    """
    found: dict[tuple[str, ...], Chain] = {}
    fingers = finger_joints(tree)
    open_ends: list[tuple[str, Chain]] = [(tree.root, [])]
    while open_ends:
        link, run = open_ends.pop()
        below = tree.below(link)
        ways = [(joint, _is_of_arm(tree, joint, run, fingers)) for joint in below]
        if run and (not below or any(not of_arm and not _is_passed(joint, run) for joint, of_arm in ways)):
            found[tuple(joint.name for joint in run)] = run
        for joint, of_arm in reversed(ways):
            if of_arm:
                open_ends.append((joint.child, [*run, joint]))
            elif not run or _is_passed(joint, run):
                open_ends.append((joint.child, run))
    return sorted(found.values(), key=len, reverse=True)


def _is_of_arm(tree: UrdfTree, joint: UrdfJoint, run: Chain, fingers: frozenset[str]) -> bool:
    """Whether a joint continues a chain: it turns, or slides between two that turn, as in a SCARA arm."""
    if not joint.movable or joint.name in fingers:
        return False
    return _turns(joint) or (bool(run) and _turns_behind(tree, joint, fingers))


def _turns(joint: UrdfJoint) -> bool:
    return joint.type in ("revolute", "continuous")


def _turns_behind(tree: UrdfTree, joint: UrdfJoint, fingers: frozenset[str]) -> bool:
    behind = tree.behind(joint.child)
    return any(other.movable and _turns(other) and other.name not in fingers for other in behind)


def _is_passed(joint: UrdfJoint, run: Chain) -> bool:
    """Whether a chain goes on behind this joint: it is fixed, or mimics one of the chain (a parallel linkage)."""
    return joint.type == "fixed" or (joint.mimic is not None and joint.mimic.joint in {before.name for before in run})


def _without_torso(arms: list[Chain]) -> list[Chain]:
    """Leave out of the longest arm, and of those like it, the joints that another arm shares: they move both."""
    shared = max((_shared(arms[0], other) for other in arms[1:]), default=0) if arms else 0
    return [arm[shared:] if arm[:shared] == arms[0][:shared] else arm for arm in arms]


def _shared(arm: Chain, other: Chain) -> int:
    """How many joints from the base on move two arms; 0 where one of the two is no arm of its own behind them."""
    pairs = zip(arm, other, strict=False)
    shared = next((n for n, (one, two) in enumerate(pairs) if one is not two), min(len(arm), len(other)))
    return shared if min(len(arm), len(other)) - shared >= LEAST_ARM else 0


def _identifier(name: str) -> str:
    cleaned = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"robot_{cleaned}"
