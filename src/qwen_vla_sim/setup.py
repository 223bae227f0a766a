"""Build and install the qwen_vla_sim package (MuJoCo robots behind the topics of the real ones)."""

from setuptools import find_packages, setup

PACKAGE = "qwen_vla_sim"

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
        "gymnasium",
        "mujoco<4",
        "numpy",
        "opencv-python-headless",
        "PyYAML",
        "scipy",
    ],
    python_requires=">=3.11",
    zip_safe=True,
    maintainer="Qwen-VLA ROS developers",
    maintainer_email="maintainers@qwen-vla-ros.org",
    description="MuJoCo robots that offer the same topics as the real stack, scripted experts and task suites.",
    license="Apache-2.0",
    tests_require=["pytest"],
    entry_points={
        "console_scripts": [
            "widowx_sim = qwen_vla_sim.widowx.node:main",
            "aloha_sim = qwen_vla_sim.aloha.node:main",
            "mobile_base_sim = qwen_vla_sim.mobile_base.node:main",
        ],
        "qwen_vla.suites": [
            "widowx = qwen_vla_sim.widowx.suite:WidowXSuite",
            "widowx_pick = qwen_vla_sim.widowx.suite:WidowXPickSuite",
            "aloha = qwen_vla_sim.aloha.suite:AlohaSuite",
            "mobile_base = qwen_vla_sim.mobile_base.suite:MobileBaseSuite",
        ],
    },
)
