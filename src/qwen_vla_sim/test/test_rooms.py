# SPDX-License-Identifier: Apache-2.0
"""Which room may import what: the simulated robots, their controllers and tasks work without ROS."""

import ast
from pathlib import Path

import pytest

import qwen_vla_sim

ROOT = Path(qwen_vla_sim.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
OF_NODES = [path for path in MODULES if path.parts[0] == "node" or path.name in ("node.py", "misbehavior.py")]
ROS = {"rclpy", "rcl_interfaces", "builtin_interfaces", "std_srvs"}
HIGHER = {"qwen_vla", "qwen_vla_ros"}


def imported(path: Path) -> set[str]:
    """First names of everything that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def ros_packages(path: Path) -> set[str]:
    return {name for name in imported(path) if name in ROS or name.endswith("_msgs")}


@pytest.mark.parametrize("path", [path for path in MODULES if path not in OF_NODES], ids=str)
def test_only_nodes_import_ros(path):
    assert not ros_packages(path)


def test_the_nodes_are_those_of_the_robots_and_what_they_share():
    with_nodes = {"node/sim_node.py", "node/controller_manager.py", "node/misbehavior.py"}
    with_nodes |= {"mobile_base/misbehavior.py"}
    assert {str(path) for path in OF_NODES if "rclpy" in imported(path)} == with_nodes
    assert {path.parts[0] for path in OF_NODES} == {"node", "widowx", "aloha", "mobile_base"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_imports_a_higher_package(path):
    assert not imported(path) & HIGHER
