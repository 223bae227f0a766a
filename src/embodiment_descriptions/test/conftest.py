# SPDX-License-Identifier: Apache-2.0
"""Robots for the tests: the WidowX, and small ones built joint by joint."""

from collections.abc import Callable

import pytest

from embodiment_descriptions import Embodiment, Kinematics, load_robot

LIMIT = {"lower": -2.0, "upper": 2.0, "velocity": 3.0, "effort": 10.0}


def joint(name: str, parent: str, child: str, kind: str = "revolute", limit: dict | None = LIMIT, **more: str) -> str:
    """Write one joint element; extra keyword arguments become axis or mimic."""
    limit_text = "" if limit is None else "<limit " + " ".join(f'{k}="{v}"' for k, v in limit.items()) + "/>"
    mimic = f'<mimic joint="{more["mimic"]}"/>' if "mimic" in more else ""
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="0 0 0.1"/><axis xyz="{more.get("axis", "0 1 0")}"/>{limit_text}{mimic}</joint>'
    )


def robot(name: str, links: list[str], joints: list[str]) -> str:
    """Write a whole URDF."""
    return f'<robot name="{name}">' + "".join(f'<link name="{link}"/>' for link in links) + "".join(joints) + "</robot>"


def arm(prefix: str, root: str) -> tuple[list[str], list[str], dict]:
    """Return links, joints and configuration of a three-joint arm with a finger, hung on the link root."""
    links = [f"{prefix}{part}" for part in ("upper", "lower", "wrist", "finger", "tip")]
    upper, lower, wrist, finger, tip = links
    joints = [
        joint(f"{prefix}j1", root, upper, axis="0 0 1"),
        joint(f"{prefix}j2", upper, lower),
        joint(f"{prefix}j3", lower, wrist),
        joint(f"{prefix}slide", wrist, finger, "prismatic", {"lower": 0, "upper": 0.04, "velocity": 1, "effort": 5}),
        joint(f"{prefix}end", wrist, tip, "fixed", None),
    ]
    config = {
        "name": prefix.rstrip("_") or "arm",
        "joints": [f"{prefix}j{i}" for i in (1, 2, 3)],
        "base_link": root,
        "tip_link": tip,
        "gripper": {"joint": f"{prefix}slide", "closed": 0.0, "open": 0.04},
    }
    return links, joints, config


def single_arm() -> tuple[str, dict]:
    """Return URDF and YAML mapping of the smallest complete robot."""
    links, joints, config = arm("", "base")
    return robot("small", ["base", *links], joints), settings("small", [config])


def settings(name: str, arms: list[dict], **more: object) -> dict:
    """Return a minimal valid configuration."""
    camera = {"tag": "ego", "topic": "ego/image_raw", "info_topic": "ego/camera_info"}
    fixed = {"name": name, "robot_tag": name.title(), "rate_hz": 10, "chunk_size": 8}
    return fixed | {"arms": arms, "cameras": [camera]} | more


def dual_arm(waist: bool = False, base: bool = False) -> tuple[str, dict]:
    """Return URDF and YAML mapping of a two-armed robot, with torso and mobile base if asked for."""
    left, right = arm("left_", "torso"), arm("right_", "torso")
    lift = joint("torso_lift", "base", "torso", "prismatic" if waist else "fixed", LIMIT if waist else None)
    urdf = robot("twin", ["base", "torso", *left[0], *right[0]], [lift, *left[1], *right[1]])
    config = settings("twin", [left[2], right[2]])
    if waist:
        config["waist"] = ["torso_lift"]
    if base:
        config["base"] = {"kind": "differential", "link": "base"}
        config["odometry"] = {"topic": "odom"}
        limits = {"max_linear": 0.5, "max_angular": 1.0, "max_linear_acceleration": 1, "max_angular_acceleration": 2}
        config["safety"] = {"base": limits}
    return urdf, config


@pytest.fixture
def small() -> tuple[str, dict]:
    """URDF and YAML mapping of a small single arm, fresh for every test."""
    return single_arm()


@pytest.fixture
def twin() -> Callable[..., tuple[str, dict]]:
    """Builder of two-armed robots."""
    return dual_arm


@pytest.fixture(name="joint")
def joint_builder() -> Callable[..., str]:
    """Builder of joint elements."""
    return joint


@pytest.fixture(name="robot")
def robot_builder() -> Callable[..., str]:
    """Builder of URDF texts."""
    return robot


@pytest.fixture(scope="session")
def widowx() -> Embodiment:
    """The WidowX as it ships."""
    return load_robot("widowx")


@pytest.fixture(scope="session")
def kinematics(widowx: Embodiment) -> Kinematics:
    """Kinematics of the WidowX."""
    return Kinematics(widowx)
