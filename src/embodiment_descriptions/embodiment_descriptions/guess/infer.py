# SPDX-License-Identifier: Apache-2.0
"""A best guess at the configuration of a URDF that comes without one, and what was guessed."""

import re
from typing import Any

from embodiment_descriptions.actions import ControlMode
from embodiment_descriptions.commands import BaseVelocityCommand, JointTrajectoryCommand, Odometry
from embodiment_descriptions.config import Arm, Base, BaseLimits, Camera, EmbodimentConfig, Gripper, Safety
from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.guess.body_parts import Part, part_of
from embodiment_descriptions.guess.fingers import open_and_closed
from embodiment_descriptions.urdf import UrdfJoint, UrdfTree

_FINGER = re.compile(r"finger|gripper|knuckle|jaw|claw|thumb|hand", re.IGNORECASE)
_TIP = re.compile(r"tcp|tool|ee_|_ee|eef|grasp|gripper|hand|tip|flange", re.IGNORECASE)
_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])")
_CAMERA = re.compile(r"cam|optical|lens|sensor", re.IGNORECASE)
RATE_HZ, CHUNK_SIZE = 5.0, 16
BASE_RATE_HZ, BASE_CHUNK_SIZE = 2.0, 8
BASE_LIMITS = BaseLimits(max_linear=0.3, max_angular=1.0, max_linear_acceleration=0.5, max_angular_acceleration=1.0)
Chain = list[UrdfJoint]
Guess = tuple[EmbodimentConfig, tuple[str, ...]]
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
    others = {part: [chain for chain in chains if part_of(chain) is part] for part in Part}
    arms = _without_torso([chain for chain in chains if part_of(chain) is None])
    if not arms and others[Part.WHEELS]:
        return _base(tree, others)
    if not arms:
        seen = "".join(f" ({line})" for line in _left_out(others))
        raise EmbodimentError(f"the URDF of {tree.name!r} has no revolute joint for an arm{seen}; give a YAML")
    return _arms(tree, urdf, arms, others)


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
    ignored = [chain for chain in alike if not any(set(chain) & set(used) for used in both)]
    notes = [
        *(note for _, lines in found for note in lines),
        *(f"another chain, {_names(chain)}, was ignored: at most two arms are commanded" for chain in ignored),
        *_left_out(others),
        f"commands: {', '.join(_controllers(arms))}, with the topics of joint_trajectory_controller",
        "home: zero, or the allowed position nearest to it",
    ]
    return _config(tree, notes, rate_hz=RATE_HZ, chunk_size=CHUNK_SIZE, arms=arms, commands=_commands(arms))


def _guessed_arm(tree: UrdfTree, urdf: str, name: str, chain: Chain) -> tuple[Arm, list[str]]:
    base, tip = chain[0].parent, _tip(tree, chain[-1].child)
    gripper, how = _gripper(tree, urdf, chain[-1].child, tip)
    notes = [
        f"{'arm: the longest' if name == 'arm' else f'arm {name}: a'} chain of revolute joints, {base} to {tip}",
        "gripper: none found behind the arm"
        if gripper is None
        else f"gripper: {gripper.joint}, closed at {gripper.closed:g}, open at {gripper.open:g}; {how}",
    ]
    joints = tuple(joint.name for joint in chain)
    return Arm(name=name, joints=joints, base_link=base, tip_link=tip, gripper=gripper), notes


def _side(chain: Chain) -> str | None:
    """`left` or `right`, as the names of a chain's joints and links have it; None where they do not."""
    words = {word for joint in chain for name in (joint.name, joint.child) for word in _SIDE.findall(name.lower())}
    sides = {"left" if word.startswith("l") else "right" for word in words}
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
    return found


def _commands(arms: tuple[Arm, ...]) -> tuple[JointTrajectoryCommand, ...]:
    return tuple(
        JointTrajectoryCommand(backend="joint_trajectory", topic=f"{controller}/joint_trajectory", joints=names)
        for controller, names in _controllers(arms).items()
    )


def _chains(tree: UrdfTree) -> list[Chain]:
    """List the distinct chains of revolute joints, longest first.

    Each is the first unbroken run of them from the root to a leaf; fixed joints do not break a run, fingers do.
    """
    found: dict[tuple[str, ...], Chain] = {}
    open_ends: list[tuple[str, Chain]] = [(tree.root, [])]
    while open_ends:
        link, run = open_ends.pop()
        below = tree.below(link)
        ways = [(joint, _is_of_arm(joint)) for joint in below]
        if run and (not below or any(not of_arm and not _is_passed(joint, run) for joint, of_arm in ways)):
            found[tuple(joint.name for joint in run)] = run
        for joint, of_arm in reversed(ways):
            if of_arm:
                open_ends.append((joint.child, [*run, joint]))
            elif not run or _is_passed(joint, run):
                open_ends.append((joint.child, run))
    return sorted(found.values(), key=len, reverse=True)


def _is_of_arm(joint: UrdfJoint) -> bool:
    return joint.type in ("revolute", "continuous") and joint.movable and not _FINGER.search(joint.name)


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


def _tip(tree: UrdfTree, link: str) -> str:
    """Choose the end of the fixed links behind the last arm joint that is most likely the grasp point."""
    best, best_rank, stack = link, (0, 0), [(link, 0)]
    while stack:
        here, depth = stack.pop()
        rank = (1 if _TIP.search(here) else 0, depth)
        if not _CAMERA.search(here) and rank > best_rank:
            best, best_rank = here, rank
        stack += [(joint.child, depth + 1) for joint in tree.below(here) if joint.type == "fixed"]
    return best


def _gripper(tree: UrdfTree, urdf: str, link: str, tip: str) -> tuple[Gripper | None, str]:
    """Find the first joint behind the arm that could be a finger, prismatic first; and what tells its ends apart."""
    behind: list[UrdfJoint] = []
    links = [link]
    while links:
        joints = tree.below(links.pop(0))
        behind += [joint for joint in joints if joint.movable]
        links += [joint.child for joint in joints]
    limited = [(joint, joint.range) for joint in behind if joint.range is not None]
    if not limited:
        return None, ""
    joint, ends = min(limited, key=lambda found: found[0].type != "prismatic")
    known = open_and_closed(urdf, tree, joint, tip)
    if known:
        return Gripper(joint=joint.name, open=known[0], closed=known[1]), "judged by the positions of its finger tips"
    # Fingers close towards the middle, which is where a prismatic finger joint is nearest to zero.
    closed, opened = sorted(ends, key=abs)
    return Gripper(joint=joint.name, closed=closed, open=opened), "the URDF does not say which is which; check it"


def _identifier(name: str) -> str:
    cleaned = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"robot_{cleaned}"
