# SPDX-License-Identifier: Apache-2.0
"""The walls between the packages hold: who may import whom, no circles, small rooms, a light executor."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from embodiment_descriptions.commands import KINDS

SOURCE = Path(__file__).resolve().parents[1] / "src"
# Each package may import those named, and nothing else of this repository.
MAY_IMPORT = {
    "embodiment_descriptions": set(),
    "qwen_vla_control": {"embodiment_descriptions"},
    "qwen_vla": {"embodiment_descriptions", "qwen_vla_control"},
    "qwen_vla_msgs": set(),
    "qwen_vla_rclpy": set(),
    "qwen_vla_sim": {"embodiment_descriptions", "qwen_vla_control", "qwen_vla_msgs", "qwen_vla_rclpy"},
    "qwen_vla_ros": {"embodiment_descriptions", "qwen_vla_control", "qwen_vla", "qwen_vla_msgs", "qwen_vla_rclpy"},
}
FOREIGN = {  # what a package must not even know
    "embodiment_descriptions": {"rclpy", "torch", "mujoco"},
    "qwen_vla_control": {"rclpy", "torch", "mujoco"},
    "qwen_vla": {"rclpy", "mujoco"},
    "qwen_vla_rclpy": {"torch", "mujoco"},
    "qwen_vla_sim": {"torch"},
    "qwen_vla_ros": {"mujoco"},
}
# Rooms of qwen_vla: each may import those named, what lies beside the rooms, and no other room.
ROOMS = {
    "model": set(),
    "policies": {"model"},
    "data": {"model", "policies", "evaluation"},
    "evaluation": {"model", "policies", "training"},
    "training": {"model", "policies", "data", "evaluation"},
}
LARGEST_ROOM = 16  # modules in a folder
LONGEST_MODULE = 560  # lines


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found = {}
    for package in MAY_IMPORT:
        for path in (SOURCE / package / package).rglob("*.py"):
            parts = path.relative_to(SOURCE / package).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path, package: str = "") -> Iterator[str]:
    """Names that a file imports anywhere: at the top, inside functions, for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Module -> the modules of this repository that it imports."""
    arrows = {}
    for name, path in MODULES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        arrows[name] = {other for other in imported(path, package) if other in MODULES} - {name}
    return arrows


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, directly or through others."""

    def reachable(start: str) -> set[str]:
        seen, open_ends = set(), [start]
        while open_ends:
            for other in arrows[open_ends.pop()] - seen:
                seen.add(other)
                open_ends.append(other)
        return seen

    reach = {name: reachable(name) for name in arrows}
    return sorted({tuple(sorted(o for o in reach[n] if n in reach[o])) for n in arrows if n in reach[n]})


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_no_higher_one_not_even_in_its_tests(package: str) -> None:
    files = [*(SOURCE / package / package).rglob("*.py"), *(SOURCE / package / "test").rglob("*.py")]
    if package == "qwen_vla_msgs":
        files = list((SOURCE / package).rglob("*.py"))
    allowed = MAY_IMPORT[package] | {package}
    broken = {
        (str(path.relative_to(SOURCE)), top)
        for path in files
        for top in {name.split(".")[0] for name in imported(path)}
        if top in MAY_IMPORT and top not in allowed
    }
    assert not broken


@pytest.mark.parametrize("package", sorted(FOREIGN))
def test_a_package_does_not_know_the_libraries_of_other_rooms(package: str) -> None:
    ros_rooms = ("node", "messages")  # of the simulator: what stands behind real topics
    broken = {
        (str(path.relative_to(SOURCE)), top)
        for path in (SOURCE / package / package).rglob("*.py")
        for top in {name.split(".")[0] for name in imported(path)} & FOREIGN[package]
    }
    assert not broken, ros_rooms


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_of_the_library_imports_no_higher_one(room: str) -> None:
    def room_of(name: str) -> str:
        parts = name.split(".")
        return parts[1] if parts[0] == "qwen_vla" and len(parts) > 1 and parts[1] in ROOMS else ""

    inside = {name: others for name, others in graph().items() if room_of(name) == room}
    assert inside
    allowed = ROOMS[room] | {room, ""}
    assert {(name, other) for name in inside for other in inside[name] if room_of(other) not in allowed} == set()


def test_no_module_imports_itself_through_others() -> None:
    assert circles(graph()) == []


def test_the_check_for_circles_finds_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b", "c")]


def test_a_room_can_be_taken_in_at_a_glance() -> None:
    rooms = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert {str(room.relative_to(SOURCE)): n for room, n in rooms.items() if n > LARGEST_ROOM} == {}


def test_a_module_can_be_read_in_one_go() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > LONGEST_MODULE} == {}


def test_every_module_says_what_it_owns() -> None:
    assert [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize("unwanted", ["torch", "mujoco", "transformers"])
def test_the_executor_loads_none_of_the_heavy_libraries(unwanted: str) -> None:
    loaded = ["qwen_vla_ros.executor.executor_node", *{kind.ros_side.partition(":")[0] for kind in KINDS}]
    program = f"import sys, {', '.join(loaded)}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
