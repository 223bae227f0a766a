# SPDX-License-Identifier: Apache-2.0
"""Build and install the qwen_vla_sim package (MuJoCo robots behind the topics of the real ones)."""

from setuptools import find_packages, setup

PACKAGE = "qwen_vla_sim"

setup(
    name=PACKAGE,
    version="0.2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=[
        "setuptools",
        "embodiment_descriptions",
        "qwen_vla_control",
        "gymnasium",
        "mujoco<4",
        "numpy",
        "opencv-python-headless",
        "PyYAML",
        "qwen_vla_rclpy",
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
        "qwen_vla.tasks": [  # <suite>.<task>
            "widowx.spoon_on_towel = qwen_vla_sim.widowx.tasks.spoon_on_towel:SpoonOnTowel",
            "widowx.carrot_on_plate = qwen_vla_sim.widowx.tasks.carrot_on_plate:CarrotOnPlate",
            "widowx.stack_cube = qwen_vla_sim.widowx.tasks.stack_cube:StackCube",
            "widowx.eggplant_in_basket = qwen_vla_sim.widowx.tasks.eggplant_in_basket:EggplantInBasket",
            "widowx.pick_cube = qwen_vla_sim.widowx.tasks.pick_cube:PickCube",
            "widowx_pick.pick_cube = qwen_vla_sim.widowx.tasks.pick_cube_of_three:PickCubeOfThree",
            "aloha.cube_transfer = qwen_vla_sim.aloha.tasks.cube_transfer:CubeTransfer",
            "aloha.insertion = qwen_vla_sim.aloha.tasks.insertion:Insertion",
            "aloha.tray_lift = qwen_vla_sim.aloha.tasks.tray_lift:TrayLift",
            "mobile_base.go_to_object = qwen_vla_sim.mobile_base.tasks.go_to_object:GoToObject",
            "mobile_base.leave_room = qwen_vla_sim.mobile_base.tasks.leave_room:LeaveRoom",
            "mobile_base.two_legs = qwen_vla_sim.mobile_base.tasks.two_legs:TwoLegs",
        ],
    },
)
