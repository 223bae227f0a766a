"""What colcon wants beside pyproject.toml: the files of qwen_vla_control under share/."""

from setuptools import setup

PACKAGE = "qwen_vla_control"
SHARE = f"share/{PACKAGE}"


setup(
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
    ]
)
