"""What each package says about itself is complete and true, so that rosdep, colcon and ros2 run can rely on it."""

import ast
import importlib.metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ament_index_python.packages import get_packages_with_prefixes
from catkin_pkg.package import Package, parse_package

from qwen_vla_ros.environment import ros_environment

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGES = [parse_package(path) for path in sorted(SOURCE.glob("*/package.xml"))]
PYTHON_PACKAGES = [package for package in PACKAGES if package.get_build_type() == "ament_python"]


def folder(package: Package) -> Path:
    return Path(package.filename).parent


def by_name(package: Package) -> str:
    return package.name


@pytest.fixture(scope="module")
def ros_packages() -> set[str]:
    """Names of all ROS packages that are installed here, ours included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENT_PREFIX_PATH", ros_environment()["AMENT_PREFIX_PATH"])
        return set(get_packages_with_prefixes())


def imported_modules(path: Path) -> set[str]:
    """Top-level names of everything that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_all_are_found() -> None:
    names = {package.name for package in PACKAGES}
    ros = {"qwen_vla_msgs", "qwen_vla_rclpy", "qwen_vla_ros", "qwen_vla_sim"}
    assert names == {"embodiment_descriptions", "qwen_vla", *ros}


@pytest.mark.parametrize("package", PACKAGES, ids=by_name)
def test_description_is_complete(package: Package) -> None:
    package.validate()
    assert package.package_format == 3
    assert package.name == folder(package).name
    assert package.licenses == ["Apache-2.0"]
    assert [person.email for person in package.maintainers] == ["maintainers@qwen-vla-ros.org"]
    assert len({other.version for other in PACKAGES}) == 1
    root = ElementTree.parse(package.filename).getroot()
    dependencies = [element.text for element in root if element.tag.endswith("depend")]
    assert len(dependencies) == len(set(dependencies)), "a dependency is listed twice"


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=by_name)
def test_python_package_is_installed_as_described(package: Package) -> None:
    distribution = importlib.metadata.distribution(package.name)
    assert distribution.version == package.version
    assert (folder(package) / "resource" / package.name).is_file()
    scripts = f"$base/lib/{package.name}"
    assert f"install_scripts={scripts}" in (folder(package) / "setup.cfg").read_text(encoding="utf-8").replace(" ", "")
    for entry_point in distribution.entry_points:
        assert callable(entry_point.load()), entry_point


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=by_name)
def test_every_imported_ros_package_is_a_dependency(package: Package, ros_packages: set[str]) -> None:
    declared = {d.name for d in package.exec_depends}
    needed: dict[str, str] = {}
    files = sorted((folder(package) / package.name).rglob("*.py"))
    if package.name == "qwen_vla_ros":  # installs the launch files
        files += sorted((SOURCE.parent / "launch").glob("*.py"))
    for file in files:
        for name in imported_modules(file) & (ros_packages | {"launch", "launch_ros"}):
            needed.setdefault(name, str(file.relative_to(SOURCE.parent)))
    missing = {name: file for name, file in needed.items() if name not in declared | {package.name}}
    assert missing == {}, f"{package.name}/package.xml lacks <exec_depend>"


FORBIDDEN = {
    "embodiment_descriptions": {"rclpy", "torch", "mujoco"},
    "qwen_vla": {"rclpy", "mujoco"},
    "qwen_vla_ros": {"mujoco"},
}


@pytest.mark.parametrize("name, forbidden", FORBIDDEN.items())
def test_rooms_keep_their_walls(name: str, forbidden: set[str]) -> None:
    for file in (SOURCE / name / name).rglob("*.py"):
        assert imported_modules(file) & forbidden == set(), file
