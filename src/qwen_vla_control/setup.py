# SPDX-License-Identifier: Apache-2.0
"""What colcon wants beside pyproject.toml: the files of qwen_vla_control under share/."""

from setuptools import setup

PACKAGE = "qwen_vla_control"
SHARE = f"share/{PACKAGE}"


setup(
    python_requires=">=3.11",
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml", "pyproject.toml", "README.md"]),  # where colcon builds is only what is listed here
    ],
)
