#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Links a built interface package into this virtual environment, as an editable install does for Python packages.

`colcon build` leaves the generated modules and their shared libraries under install/<package>; a shell finds them
after `source install/setup.bash`. With links to both in the environment, `.venv/bin/python` finds them in any
process and without a sourced shell; the libraries' folder (<environment>/lib) is on the loader's path anyway,
because the ROS libraries lie there. There is one copy on the disk, so nothing can be out of step.

    .venv/bin/python scripts/link_messages.py install/qwen_vla_msgs
"""

import os
import sys
import sysconfig
from pathlib import Path


def link(target: Path, place: Path) -> None:
    """Makes `place` a link to `target`; replaces a link, refuses to replace anything else."""
    if place.exists() and not place.is_symlink():
        raise FileExistsError(f"{place} exists and is no link; remove it, then run this again")
    place.unlink(missing_ok=True)
    place.symlink_to(os.path.relpath(target, place.parent))


def link_package(package: Path, prefix: Path) -> None:
    """Links the Python module, the libraries and the index entry of `package` (install/<name>) into `prefix`.

    Raises FileNotFoundError when the package was not built for this interpreter.
    """
    name = package.name
    site_packages = Path(sysconfig.get_paths()["purelib"])
    module = package / site_packages.relative_to(sys.prefix) / name
    libraries = sorted((package / "lib").glob(f"lib{name}__*.so"))
    if not module.is_dir() or not libraries:
        raise FileNotFoundError(f"{module} is missing; run: colcon build --packages-select {name}")
    for library in libraries:
        link(library, prefix / "lib" / library.name)
    link(package / "share" / name, prefix / "share" / name)
    link(module, site_packages / name)  # last: importable means complete


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        link_package(Path(sys.argv[1]).resolve(), Path(sys.prefix))
    except (FileNotFoundError, FileExistsError) as error:
        print(f"link_messages: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
