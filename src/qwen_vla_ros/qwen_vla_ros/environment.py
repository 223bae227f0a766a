"""The environment variables that a process needs to take part in the ROS graph.

`ros_environment()` is for processes that this package starts (`subprocess.Popen(..., env=ros_environment())`) and,
through `os.environ.update`, for the running process before `rclpy.init()`. No sourced shell is needed where ROS 2
comes from the wheels in the virtual environment; on a sourced ROS installation the paths stay as they are.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

_PROFILE = Path("config", "dds", "fastdds_large_images.xml")
# Fast DDS 3 warns about the old name, Fast DDS 2 does not know the new one.
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_FAST_DDS_2 = ("humble", "iron", "jazzy")


class RosEnvironmentError(RuntimeError):
    """The ROS environment of this process is contradictory; the message says what to do."""


def find_workspace() -> Path | None:
    """Returns the folder that holds both src/ and config/dds/, seen from this file upwards; None when installed."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "src").is_dir() and (folder / _PROFILE).is_file():
            return folder
    return None


def _uses_wheels() -> bool:
    """True where ROS 2 was installed from wheels into the environment of this interpreter."""
    return Path(sys.prefix, "share", "ament_index", "resource_index", "packages", "rclpy").is_file()


def _joined(new: list[Path], old: str) -> str:
    """Returns a path list with `new` in front of `old`, each entry once."""
    entries = [str(path) for path in new] + [entry for entry in old.split(os.pathsep) if entry]
    return os.pathsep.join(dict.fromkeys(entries))


def _wheel_paths(workspace: Path | None, base: Mapping[str, str]) -> dict[str, str]:
    """The search paths that a sourced setup.bash would set, for ROS 2 from wheels."""
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(sys.prefix):
        raise RosEnvironmentError(
            f"rclpy is found at {spec.origin if spec else None}, not in the virtual environment {sys.prefix}: another "
            "ROS installation is sourced in this shell. Open a new shell, or run: unset PYTHONPATH AMENT_PREFIX_PATH "
            "LD_LIBRARY_PATH"
        )
    prefix = Path(sys.prefix)
    packages = sorted(path.parents[2] for path in workspace.glob("install/*/share/*/package.xml")) if workspace else []
    libraries = [prefix / "lib", *sorted(Path(spec.origin).parents[1].glob("ros_*.libs"))]
    return {
        "AMENT_PREFIX_PATH": _joined([*packages, prefix], base.get("AMENT_PREFIX_PATH", "")),
        "LD_LIBRARY_PATH": _joined(libraries, base.get("LD_LIBRARY_PATH", "")),
        "PATH": _joined([prefix / "bin"], base.get("PATH", os.defpath)),
        # The wheels' start hook would execute the interpreter a second time to set LD_LIBRARY_PATH; it is set here.
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    }


def _profile(workspace: Path | None, ament_prefix_path: str) -> Path | None:
    """The Fast DDS profile in the source tree or in an installed share/qwen_vla_ros; None when it is in neither."""
    places = [workspace / _PROFILE] if workspace else []
    places += [Path(p, "share", "qwen_vla_ros", _PROFILE) for p in ament_prefix_path.split(os.pathsep) if p]
    return next((place for place in places if place.is_file()), None)


def ros_environment(workspace: Path | None = None, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns a whole environment for a process of the ROS graph.

    `workspace`: the folder with src/ and install/; found from this file when None.
    `base`: the environment to start from; this process's when None. Nothing that the user has set is overridden:
    search paths are extended, RMW_IMPLEMENTATION and the Fast DDS profile are set only where they are unset.
    Raises RosEnvironmentError where another ROS installation hides the one in the virtual environment.
    """
    environment = dict(os.environ if base is None else base)
    workspace = workspace or find_workspace()
    if _uses_wheels():
        environment.update(_wheel_paths(workspace, environment))
        environment.setdefault("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    profile = _profile(workspace, environment.get("AMENT_PREFIX_PATH", ""))
    if profile is not None and not any(name in environment for name in _PROFILE_VARIABLES):
        old = not _uses_wheels() and environment.get("ROS_DISTRO") in _FAST_DDS_2
        environment[_PROFILE_VARIABLES[old]] = str(profile)
        environment["RMW_FASTRTPS_USE_QOS_FROM_XML"] = "1"  # for the memory of the readers that it names
    return environment
