"""A best guess at the configuration of a URDF that comes without one, and what was guessed."""

import re

from embodiment_descriptions.commands import JointTrajectoryCommand
from embodiment_descriptions.config import Arm, Camera, EmbodimentConfig, Gripper
from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.urdf import UrdfJoint, UrdfTree

_FINGER = re.compile(r"finger|gripper|knuckle|jaw|claw|thumb|hand", re.IGNORECASE)
_TIP = re.compile(r"tcp|tool|ee_|_ee|eef|grasp|gripper|hand|tip|flange", re.IGNORECASE)
_CAMERA = re.compile(r"cam|optical|lens|sensor", re.IGNORECASE)
RATE_HZ, CHUNK_SIZE = 5.0, 16


def infer_config(tree: UrdfTree) -> tuple[EmbodimentConfig, tuple[str, ...]]:
    """Guess a single arm: the longest serial chain of revolute joints, and the finger joint behind it as its gripper.

    Returns:
        The configuration, and one line per guess for the user to check.

    Raises:
        EmbodimentError: the URDF has no revolute joint to make an arm of.
    """
    chains = _chains(tree)
    chain = chains[0]
    base, tip = chain[0].parent, _tip(tree, chain[-1].child)
    gripper = _gripper(tree, chain[-1].child)
    notes = [
        f"arm: the longest chain of revolute joints, {base} to {tip}",
        *(
            f"another chain, {', '.join(j.name for j in other)}, was left out; name both arms in a YAML"
            for other in chains[1:]
            if len(other) == len(chain) and not set(other) & set(chain)
        ),
        "gripper: none found behind the arm"
        if gripper is None
        else f"gripper: {gripper.joint}, closed at {gripper.closed:g}, open at {gripper.open:g}; check which is which",
        f"robot_tag: the name of the URDF, {tree.name}",
        f"control: eef_delta at {RATE_HZ:g} Hz in chunks of {CHUNK_SIZE}",
        "commands: arm_controller and gripper_controller, with the topics of joint_trajectory_controller",
        "cameras: one called ego; no camera is described by a URDF",
        "home: zero, or the allowed position nearest to it",
    ]
    joints = tuple(j.name for j in chain)
    config = EmbodimentConfig(
        name=_identifier(tree.name),
        robot_tag=tree.name,
        rate_hz=RATE_HZ,
        chunk_size=CHUNK_SIZE,
        arms=(Arm(name="arm", joints=joints, base_link=base, tip_link=tip, gripper=gripper),),
        cameras=(Camera(tag="ego", topic="ego/image_raw", info_topic="ego/camera_info"),),
        commands=_commands(joints, gripper),
    )
    return config, tuple(notes)


def _commands(joints: tuple[str, ...], gripper: Gripper | None) -> tuple[JointTrajectoryCommand, ...]:
    parts = {"arm_controller": joints} | ({"gripper_controller": (gripper.joint,)} if gripper else {})
    return tuple(
        JointTrajectoryCommand(backend="joint_trajectory", topic=f"{controller}/joint_trajectory", joints=names)
        for controller, names in parts.items()
    )


def _chains(tree: UrdfTree) -> list[list[UrdfJoint]]:
    """List the distinct chains of revolute joints from the root to each leaf, longest first."""
    parents = {joint.parent for joint in tree.joints.values()}
    found: dict[tuple[str, ...], list[UrdfJoint]] = {}
    for leaf in (link for link in tree.links if link not in parents):
        arm = _arm_part(tree.chain(tree.root, leaf))
        if arm:
            found[tuple(joint.name for joint in arm)] = arm
    if not found:
        raise EmbodimentError(f"the URDF of {tree.name!r} has no revolute joint to make an arm of; give a YAML")
    return sorted(found.values(), key=len, reverse=True)


def _arm_part(chain: list[UrdfJoint]) -> list[UrdfJoint]:
    """Return the first unbroken run of revolute joints before the fingers; fixed joints do not break it."""
    run: list[UrdfJoint] = []
    for joint in chain:
        if joint.type == "fixed":
            continue
        if joint.type in ("revolute", "continuous") and joint.movable and not _FINGER.search(joint.name):
            run.append(joint)
        elif run:
            break
    return run


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


def _gripper(tree: UrdfTree, link: str) -> Gripper | None:
    """Find the first joint behind the arm that could be a finger, prismatic ones first."""
    behind: list[UrdfJoint] = []
    links = [link]
    while links:
        joints = tree.below(links.pop(0))
        behind += [joint for joint in joints if joint.movable]
        links += [joint.child for joint in joints]
    limited = [joint for joint in behind if joint.lower is not None and joint.upper is not None]
    limited = [joint for joint in limited if joint.lower < joint.upper]
    if not limited:
        return None
    joint = min(limited, key=lambda joint: joint.type != "prismatic")
    # Fingers close towards the middle, which is where a prismatic finger joint is nearest to zero.
    closed, opened = sorted((joint.lower, joint.upper), key=abs)
    return Gripper(joint=joint.name, closed=closed, open=opened)


def _identifier(name: str) -> str:
    cleaned = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"robot_{cleaned}"
