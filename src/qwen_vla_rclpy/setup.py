# SPDX-License-Identifier: Apache-2.0
"""Build and install the qwen_vla_rclpy package (the common base of the nodes of the suite)."""

from setuptools import find_packages, setup

PACKAGE = "qwen_vla_rclpy"

setup(
    name=PACKAGE,
    version="0.2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "scipy"],
    python_requires=">=3.11",
    zip_safe=True,
    maintainer="Qwen-VLA ROS developers",
    maintainer_email="maintainers@qwen-vla-ros.org",
    description="The common base of the nodes of the Qwen-VLA suite: it survives any input.",
    license="Apache-2.0",
    tests_require=["pytest"],
)
