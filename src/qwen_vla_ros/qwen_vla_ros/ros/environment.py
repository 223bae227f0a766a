# SPDX-License-Identifier: Apache-2.0
"""The environment variables of a process in the ROS graph: the user's graph, or one of our own.

`ros_environment()` is for processes in the user's graph: nodes of a robot, doctor, view; the user's settings are kept.
`own_environment()` is for commands that start a complete graph of their own (demo, tests, `evaluate --over-ros`,
`benchmark --runtime`): the ROS settings of this shell are ignored, and `ignored_settings()` names them.

Both return complete environments, for `subprocess.Popen(..., env=...)` and, through `os.environ`, for the running
process before `rclpy.init()`. With ROS 2 from wheels in the virtual environment, no shell has to be sourced; with a
sourced ROS installation, the search paths are kept.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from qwen_vla_ros.ros.distributions import PROFILE_VARIABLES, distribution, of_wheels
from qwen_vla_ros.ros.ros_domain import AVOIDED

# Profiles of Fast DDS; each says in its file what it is for.
PROFILES = Path("config", "dds")
LARGE_IMAGES = "fastdds_large_images.xml"
WITHOUT_SHARED_MEMORY = "fastdds_without_shared_memory.xml"
THIS_MACHINE = "fastdds_this_machine.xml"

# All settings of ROS and its middlewares, except where logs are written.
_SETTINGS = ("ROS_", "RMW_", "RCL_", "RCUTILS_", "FASTDDS_", "FASTRTPS_", "SKIP_DEFAULT_XML", "CYCLONEDDS_", "ZENOH_")
_HARMLESS = ("ROS_HOME", "ROS_LOG_DIR")
_SEARCH_PATHS = ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
_READ_AT_START = ("PYTHONPATH", "LD_LIBRARY_PATH")  # by the interpreter and the dynamic loader
_IDENTITY = ("ROS_DISTRO", "ROS_VERSION", "ROS_PYTHON_VERSION")  # of a sourced installation
_CHOSEN = {"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class RosEnvironmentError(RuntimeError):
    """The ROS environment of this process is inconsistent; the message states the remedy."""


def find_workspace() -> Path | None:
    """Return the folder with src/ and config/dds/, searched upward from this file; None when installed."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "src").is_dir() and (folder / PROFILES / LARGE_IMAGES).is_file():
            return folder
    return None


def ros_environment(workspace: Path | None = None, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a complete environment for a process in the user's ROS graph.

    Settings of the user are never overridden: search paths are extended; RMW_IMPLEMENTATION and the Fast DDS profile
    are set only where unset.

    Args:
        workspace: the folder with src/ and install/; by default found from this file.
        base: the environment to start from; by default this process's.

    Raises:
        RosEnvironmentError: another ROS installation hides the one in the virtual environment.
    """
    if _uses_wheels():
        _refuse_another_rclpy()
    return _completed(dict(os.environ if base is None else base), workspace or find_workspace(), LARGE_IMAGES)


def without_shared_memory(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process without images: UDP only, so that no process that is killed can hold it up.

    It still communicates with processes that use shared memory. A profile of the user is kept, and so is LOCALHOST with
    static peers, for which there is no profile.
    """
    environment = dict(os.environ if base is None else base)
    local = _stays_here(environment)
    users = any(Path(environment.get(name, LARGE_IMAGES)).name != LARGE_IMAGES for name in PROFILE_VARIABLES)
    if users or (local and environment.get("ROS_STATIC_PEERS")):
        return environment
    environment = {name: value for name, value in environment.items() if name not in PROFILE_VARIABLES}
    if local and "ROS_LOCALHOST_ONLY" in environment:
        environment["ROS_LOCALHOST_ONLY"] = "0"  # adds shared memory, as LOCALHOST does
    return _with_profile(environment, find_workspace(), THIS_MACHINE if local else WITHOUT_SHARED_MEMORY)


def _stays_here(environment: Mapping[str, str]) -> bool:
    """Whether a graph is limited to this machine."""
    older = environment.get("ROS_LOCALHOST_ONLY", "0") not in ("", "0")
    return older or environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"


def own_environment(workspace: Path | None = None, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a complete environment for a graph of our own: Fast DDS on this machine; the caller sets the ROS domain.

    Arguments as in `ros_environment`, but the ROS settings of `base` are ignored. Its domain, which the user's robot
    may be using, is stored as one to avoid.
    """
    base = os.environ if base is None else base
    workspace = workspace or find_workspace()
    kept = {name: value for name, value in base.items() if name in _HARMLESS or not name.startswith(_SETTINGS)}
    if _uses_wheels():
        kept |= _without_another_ros(base, workspace)
    else:
        kept |= {name: base[name] for name in _IDENTITY if name in base}
    if base.get("ROS_DOMAIN_ID"):
        kept[AVOIDED] = base["ROS_DOMAIN_ID"]
    return _completed(kept | _CHOSEN, workspace, THIS_MACHINE)


def ignored_settings(base: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the settings in `base` (by default this process's) that `own_environment` ignores."""
    base = os.environ if base is None else base
    own = own_environment(base=base)
    settings = [name for name in base if name.startswith(_SETTINGS) and base[name] and base[name] != own.get(name)]
    return sorted(settings) + [name for name in _SEARCH_PATHS if not _entries(base, name) <= _entries(own, name)]


def describe_ignored() -> str:
    """Return a line that names the ignored settings of this shell; empty where there are none."""
    names, why = ignored_settings(), "this command runs a ROS graph of its own: Fast DDS, this machine, a free domain"
    return f"ROS settings of this shell are ignored: {', '.join(names)} ({why})" if names else ""


def say_what_is_ignored() -> None:
    """Print that line to standard error."""
    if text := describe_ignored():
        print(text, file=sys.stderr, flush=True)


def has_another_ros() -> bool:
    """Whether this process may have loaded modules or libraries of another ROS installation."""
    own = own_environment()
    return not all(_entries(os.environ, name) <= _entries(own, name) for name in _READ_AT_START)


def adopt(environment: Mapping[str, str]) -> None:
    """Make `environment` that of this process; the middleware reads it when a context is created."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@contextmanager
def adopted(environment: Mapping[str, str]) -> Iterator[None]:
    """Adopt an environment, and restore the previous one at the end."""
    before = dict(os.environ)
    adopt(environment)
    try:
        yield
    finally:
        adopt(before)


@contextmanager
def in_own_environment() -> Iterator[None]:
    """For the entry points of commands with a graph of their own: inside, this process has `own_environment`.

    Prints what is ignored. Where modules or libraries of another ROS installation may have been loaded already, the
    whole program is restarted, so nothing may have been done before.
    """
    say_what_is_ignored()
    if has_another_ros():
        os.execve(sys.executable, sys.orig_argv, own_environment())
    with adopted(own_environment()):
        yield


def _uses_wheels() -> bool:
    """Whether ROS 2 was installed from wheels into this interpreter's environment."""
    return Path(sys.prefix, "share", "ament_index", "resource_index", "packages", "rclpy").is_file()


def _refuse_another_rclpy() -> None:
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(sys.prefix):
        raise RosEnvironmentError(
            f"rclpy was found at {spec.origin if spec else None}, not in the virtual environment {sys.prefix}: another "
            "ROS installation is sourced in this shell. Open a new shell, or run: unset PYTHONPATH AMENT_PREFIX_PATH "
            "LD_LIBRARY_PATH"
        )


def _completed(environment: dict[str, str], workspace: Path | None, profile: str) -> dict[str, str]:
    """Add what is missing: search paths, a middleware, the Fast DDS profile of that name."""
    if _uses_wheels():
        environment.update(_wheel_settings(workspace, environment))
        environment.setdefault("RMW_IMPLEMENTATION", _CHOSEN["RMW_IMPLEMENTATION"])
    return _with_profile(environment, workspace, profile)


def _with_profile(environment: dict[str, str], workspace: Path | None, name: str) -> dict[str, str]:
    """Add a Fast DDS profile where none is set, and where its file is found."""
    path = _profile(workspace, environment.get("AMENT_PREFIX_PATH", ""), name)
    if path is not None and not any(variable in environment for variable in PROFILE_VARIABLES):
        environment[distribution(environment.get("ROS_DISTRO", "")).profile_variable] = str(path)
        environment["RMW_FASTRTPS_USE_QOS_FROM_XML"] = "1"  # for the memory settings of its readers
        if name == THIS_MACHINE:
            environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"  # leaves it to the profile
    return environment


def _wheel_settings(workspace: Path | None, base: Mapping[str, str]) -> dict[str, str]:
    """Return what a sourced setup.bash would set, for ROS 2 from wheels."""
    prefix = Path(sys.prefix)
    packages = sorted(path.parents[2] for path in workspace.glob("install/*/share/*/package.xml")) if workspace else []
    libraries = [prefix / "lib", *sorted(Path(sysconfig.get_path("purelib")).glob("ros_*.libs"))]
    return {
        "AMENT_PREFIX_PATH": _joined([*packages, prefix], base.get("AMENT_PREFIX_PATH", "")),
        "LD_LIBRARY_PATH": _joined(libraries, base.get("LD_LIBRARY_PATH", "")),
        "PATH": _joined([prefix / "bin"], base.get("PATH", os.defpath)),
        "ROS_DISTRO": of_wheels() or "",
        # The wheels' start hook would restart the interpreter to set LD_LIBRARY_PATH; it is set here.
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    }


def _joined(new: list[Path], old: str) -> str:
    """Return a path list with `new` in front of `old`, without duplicates."""
    entries = [str(path) for path in new] + [entry for entry in old.split(os.pathsep) if entry]
    return os.pathsep.join(dict.fromkeys(entries))


def _profile(workspace: Path | None, ament_prefix_path: str, name: str) -> Path | None:
    """Return a Fast DDS profile of the source tree or of an installed share/qwen_vla_ros; None when in neither."""
    places = [workspace / PROFILES] if workspace else []
    places += [Path(p, "share", "qwen_vla_ros", PROFILES) for p in ament_prefix_path.split(os.pathsep) if p]
    return next((place / name for place in places if (place / name).is_file()), None)


def _without_another_ros(base: Mapping[str, str], workspace: Path | None) -> dict[str, str]:
    """Return the search paths of `base` without entries of another ROS installation."""
    ours = [Path(sys.prefix), *([workspace] if workspace else [])]
    prefixes = {Path(entry) for name in _SEARCH_PATHS[:3] for entry in _entries(base, name)} | {Path("/opt/ros")}
    theirs = [prefix for prefix in prefixes if not _is_below(prefix, ours)]

    def is_theirs(entry: str) -> bool:
        return _is_below(Path(entry), theirs) or (Path(entry, "rclpy").is_dir() and not _is_below(Path(entry), ours))

    return {
        name: os.pathsep.join(entry for entry in base[name].split(os.pathsep) if entry and not is_theirs(entry))
        for name in _SEARCH_PATHS
        if name in base
    }


def _is_below(path: Path, folders: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _entries(environment: Mapping[str, str], name: str) -> set[str]:
    return {entry for entry in environment.get(name, "").split(os.pathsep) if entry}
