"""Build and install the qwen_vla_rclpy package (what every node of the suite has in common)."""

from setuptools import find_packages, setup

PACKAGE = "qwen_vla_rclpy"

setup(
    name=PACKAGE,
    version="0.1.0",
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
    description="What every node of the Qwen-VLA suite has in common: whatever arrives, it goes on.",
    license="Apache-2.0",
    tests_require=["pytest"],
)
