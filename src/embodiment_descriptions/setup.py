"""Build and install the embodiment_descriptions package (robot descriptions and what is derived from them)."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "embodiment_descriptions"
SHARE = f"share/{PACKAGE}"


def robot_folders() -> list[tuple[str, list[str]]]:
    """List one data_files entry per folder under urdf/, so that a new robot is installed by being there."""
    folders = sorted({path.parent for path in Path("urdf").rglob("*.xacro")})
    return [(f"{SHARE}/{folder.as_posix()}", sorted(str(p) for p in folder.glob("*.xacro"))) for folder in folders]


setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        *robot_folders(),
    ],
    install_requires=["setuptools", "numpy", "scipy", "pin", "pydantic>=2", "PyYAML", "xacro"],
    python_requires=">=3.11",
    zip_safe=True,
    maintainer="Qwen-VLA ROS developers",
    maintainer_email="maintainers@qwen-vla-ros.org",
    description="Robots with ros2_control blocks, and the embodiment, kinematics and prompt derived from them.",
    license="Apache-2.0",
    entry_points={
        "qwen_vla.command_interfaces": [  # by their `backend`
            f"joint_trajectory = {PACKAGE}.commands.joint_commands:JointTrajectoryCommand",
            f"forward_command = {PACKAGE}.commands.joint_commands:ForwardCommand",
            f"gripper_action = {PACKAGE}.commands.joint_commands:GripperActionCommand",
            f"xs_group = {PACKAGE}.commands.joint_commands:XsGroupCommand",
            f"xs_single = {PACKAGE}.commands.joint_commands:XsSingleCommand",
            f"base_velocity = {PACKAGE}.commands.base_commands:BaseVelocityCommand",
            f"nav2_follow_path = {PACKAGE}.commands.base_commands:Nav2FollowPathCommand",
            f"nav2_pose = {PACKAGE}.commands.base_commands:Nav2PoseCommand",
        ],
    },
)
