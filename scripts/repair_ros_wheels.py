#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the ROS 2 wheels in this virtual environment a ROS installation that colcon and CMake can use.

- The wheels' CMake files export the include paths of the machine that built them (`/opt/python/cpXY-cpXY/...`), and
  CMake stops at such a path because it does not exist. Each is replaced by the same path of this interpreter.
- A ROS installation has setup scripts, the wheels have none. They are written, so that `source .venv/setup.bash`
  does what `source /opt/ros/<distribution>/setup.bash` does, and a workspace built on top of it sources it as well.

    .venv/bin/python scripts/repair_ros_wheels.py [PREFIX]     PREFIX: the environment (default: this interpreter's)

Idempotent: repaired files are unchanged.
"""

import os
import re
import shlex
import sys
import sysconfig
from pathlib import Path

_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python\d+\.\d+")
_SITE_PACKAGES = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python\d+\.\d+/site-packages")

_SETUP_SH = """\
# Adds the ROS 2 wheels of this virtual environment to the search paths (POSIX shell).
_prepend() {{
  eval "_old=\\${{$1:-}}"
  case ":$_old:" in
    *":$2:"*) ;;
    *) eval "export $1=\\"\\$2\\${{_old:+:\\$_old}}\\"" ;;
  esac
}}
_prepend AMENT_PREFIX_PATH {prefix}
_prepend CMAKE_PREFIX_PATH {prefix}
_prepend LD_LIBRARY_PATH {prefix}/lib
_prepend PATH {prefix}/bin
unset -f _prepend
unset _old
"""


def replace(path: Path, text: str) -> bool:
    """Writes `text` to `path` atomically, unless it is there already; returns whether it was written.

    Like `qwen_vla.output_files`, which is not installed yet.
    """
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return True


def repaired(text: str, include: str, site_packages: str) -> str:
    """Returns `text` with the build machine's include and site-packages directories replaced."""
    return _SITE_PACKAGES.sub(lambda _: site_packages, _INCLUDE.sub(lambda _: include, text))


def repair_cmake_files(prefix: Path) -> int:
    """Rewrites the exported CMake files under `prefix`/share in place; returns how many changed."""
    paths = sysconfig.get_paths()
    files = sorted(prefix.glob("share/*/cmake/*.cmake"))
    return sum(
        replace(file, repaired(file.read_text(encoding="utf-8"), paths["include"], paths["purelib"])) for file in files
    )


def write_setup_scripts(prefix: Path) -> None:
    """Writes setup.{sh,bash,zsh}, which colcon chains to, and local_setup.*, by which it recognizes a prefix."""
    for name in ("setup", "local_setup"):
        for shell in ("sh", "bash", "zsh"):
            replace(prefix / f"{name}.{shell}", _SETUP_SH.format(prefix=shlex.quote(str(prefix))))


def main() -> int:
    prefix = Path(sys.argv[1] if len(sys.argv) > 1 else sys.prefix).resolve()
    if not (prefix / "share" / "ament_cmake_core").is_dir():
        print(
            f"repair_ros_wheels: no ROS 2 wheels under {prefix} (share/ament_cmake_core is missing); install "
            "requirements.lock first, or name the environment's folder",
            file=sys.stderr,
        )
        return 1
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        print(
            f"repair_ros_wheels: {header} does not exist; install the headers of this Python "
            f"(Debian: apt install python{sys.version_info.major}.{sys.version_info.minor}-dev)",
            file=sys.stderr,
        )
        return 1
    print(f"repaired {repair_cmake_files(prefix)} CMake files under {prefix}")
    write_setup_scripts(prefix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
