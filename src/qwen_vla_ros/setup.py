# SPDX-License-Identifier: Apache-2.0
"""Build and install the qwen_vla_ros package (the nodes), with the launch files and configuration of the repository."""

import os
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "qwen_vla_ros"
SHARE = f"share/{PACKAGE}"
# colcon --symlink-install runs a link to this file from the build folder; the real one lies in the repository.
REPOSITORY = Path(__file__).resolve().parents[2]
# What the nodes look up at run time, with the same paths under share/ as in the repository.
SHARED_FOLDERS = ("launch", "config", "checkpoints")


def shared_files() -> list[tuple[str, list[str]]]:
    """List one data_files entry per installed folder of the repository, so that a new file is found by itself."""
    files = [p for top in SHARED_FOLDERS for p in (REPOSITORY / top).rglob("*") if _is_content(p)]
    folders = sorted({p.parent for p in files})
    return [
        (
            f"{SHARE}/{folder.relative_to(REPOSITORY).as_posix()}",
            sorted(os.path.relpath(p) for p in files if p.parent == folder),
        )
        for folder in folders
    ]


def _is_content(path: Path) -> bool:
    hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(REPOSITORY).parts)
    return path.is_file() and not hidden and path.suffix not in (".pyc", ".tmp", ".part")


setup(
    name=PACKAGE,
    version="0.2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        *shared_files(),
    ],
    install_requires=[
        "setuptools",
        "embodiment_descriptions",
        "matplotlib",
        "mcap",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "psutil",
        "pydantic>=2",
        "PyYAML",
        "qwen_vla",
        "qwen_vla_control",
        "qwen_vla_rclpy",
        "rich",
        "rosbags",
        "scipy",
        "torch",
        "tqdm",
        "tyro",
    ],
    extras_require={"view": ["rerun-sdk>=0.41,<0.42"]},  # 170 MB; `qwen-vla view --png` does without
    python_requires=">=3.11",
    zip_safe=True,
    author="Qwen-VLA ROS developers",
    author_email="maintainers@qwen-vla-ros.org",
    maintainer="Qwen-VLA ROS developers",
    maintainer_email="maintainers@qwen-vla-ros.org",
    description="ROS 2 nodes of the Qwen-VLA suite: policy, safety gate and executor, visualization.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"episode_recorder = {PACKAGE}.recording.episode_recorder:main",
            f"policy_node = {PACKAGE}.policy.policy_node:main",
            f"executor_node = {PACKAGE}.executor.executor_node:main",
            f"trajectory_visualizer = {PACKAGE}.drawing.trajectory_visualizer:main",
        ],
        # What `qwen-vla` offers where ROS is installed.
        "qwen_vla.commands": [
            f"demo = {PACKAGE}.simulation.demo.command:Demo",
            f"sim = {PACKAGE}.simulation.sim:Sim",
            f"say = {PACKAGE}.simulation.say:Say",
            f"doctor = {PACKAGE}.doctor.command:Doctor",
            f"view = {PACKAGE}.drawing.view.command:View",
        ],
        "qwen_vla.evaluators": [f"ros = {PACKAGE}.simulation.evaluator:evaluate"],
        "qwen_vla.benchmarks": [f"runtime = {PACKAGE}.simulation.runtime_benchmark:measure_and_print"],
    },
)
