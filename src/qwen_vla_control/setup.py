"""Build and install the qwen_vla_control package (observations, safety gate and motion, without ROS or torch)."""

from setuptools import find_packages, setup

PACKAGE = "qwen_vla_control"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=[
        "setuptools",
        "embodiment_descriptions",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "pin",
        "rosbags-image",
    ],
    python_requires=">=3.11",
    zip_safe=True,
    maintainer="Qwen-VLA ROS developers",
    maintainer_email="maintainers@qwen-vla-ros.org",
    description="The robot-side core: observations, the safety gate, and motion in time. No ROS, no torch, no MuJoCo.",
    license="Apache-2.0",
)
