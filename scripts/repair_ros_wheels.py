#!/usr/bin/env python3
"""Makes the CMake files of the ROS 2 wheels fit this virtual environment.

The wheels export the include paths of the machine that built them (`/opt/python/cpXY-cpXY/...`); CMake stops at
such a path because it does not exist. Each path is replaced by the same path of the interpreter that runs this
script. Idempotent: a repaired file holds none of the old paths.

    .venv/bin/python scripts/repair_ros_wheels.py [PREFIX]     PREFIX: the environment (default: this interpreter's)
"""

import os
import re
import sys
import sysconfig
from pathlib import Path

_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python\d+\.\d+")
_SITE_PACKAGES = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python\d+\.\d+/site-packages")


def repaired(text: str, include: str, site_packages: str) -> str:
    """Returns `text` with the build machine's include and site-packages directories replaced."""
    return _SITE_PACKAGES.sub(lambda _: site_packages, _INCLUDE.sub(lambda _: include, text))


def repair(prefix: Path) -> int:
    """Rewrites the exported CMake files under `prefix`/share in place; returns how many changed."""
    paths = sysconfig.get_paths()
    changed = 0
    for path in sorted(prefix.glob("share/*/cmake/*.cmake")):
        text = path.read_text(encoding="utf-8")
        fixed = repaired(text, paths["include"], paths["purelib"])
        if fixed != text:
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_text(fixed, encoding="utf-8")
            os.replace(temporary, path)
            changed += 1
    return changed


def main() -> int:
    prefix = Path(sys.argv[1] if len(sys.argv) > 1 else sys.prefix)
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
    print(f"repaired {repair(prefix)} CMake files under {prefix}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
