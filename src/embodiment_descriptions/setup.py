# SPDX-License-Identifier: Apache-2.0
"""What colcon wants beside pyproject.toml: the files of embodiment_descriptions under share/."""

from pathlib import Path

from setuptools import setup

PACKAGE = "embodiment_descriptions"
SHARE = f"share/{PACKAGE}"


def shared_folders() -> list[tuple[str, list[str]]]:
    """List one data_files entry per folder of robots, so that a new robot is installed by being there."""
    files = [*Path("urdf").rglob("*.xacro"), *Path("config/embodiments").glob("*.yaml")]
    folders = sorted({path.parent for path in files})
    return [(f"{SHARE}/{f.as_posix()}", sorted(str(p) for p in files if p.parent == f)) for f in folders]


setup(
    python_requires=">=3.11",
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml", "pyproject.toml", "README.md"]),  # where colcon builds is only what is listed here
        *shared_folders(),
    ],
)
