# SPDX-License-Identifier: Apache-2.0
"""Finds the files that ship with the suite, in the source tree or installed under share/."""

import os
import sys
from pathlib import Path

from embodiment_descriptions.errors import ResourceError

PACKAGE = "embodiment_descriptions"
# config/ and launch/ are installed by the node package, urdf/ by this one.
SHARES = (PACKAGE, "qwen_vla_ros")


def resource_path(relative: str | Path) -> Path:
    """Find a file of the suite by its path relative to the repository root, or to this package.

    The source tree takes precedence over installed files, so that an edit takes effect at once. Installed files are
    searched under the prefixes of AMENT_PREFIX_PATH in order, then under the prefix of the Python environment.

    Args:
        relative: for example "config/embodiments/widowx.yaml" or "urdf/widowx/widowx.urdf.xacro".

    Raises:
        ResourceError: not found; names every place searched.
    """
    relative = Path(relative)
    if relative.is_absolute() or ".." in relative.parts:
        raise ResourceError(f"{relative} is not a path inside the suite; give one relative to the repository root")
    searched = [root / relative for root in search_roots()]
    for path in searched:
        if path.exists():
            return path
    places = "\n  ".join(str(path) for path in searched)
    raise ResourceError(
        f"{relative} was found in none of these places:\n  {places}\n"
        "Source the workspace (install/setup.bash) or run from a complete clone."
    )


def search_roots() -> list[Path]:
    """List the folders that resource_path searches, in order."""
    roots: list[Path] = []
    for folder in Path(__file__).resolve().parents:
        if (folder / "src" / PACKAGE / "package.xml").is_file():
            roots += [folder, folder / "src" / PACKAGE]
            break
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    for prefix in [*prefixes, sys.prefix]:
        roots += [Path(prefix) / "share" / share for share in SHARES]
    return list(dict.fromkeys(roots))


def known_robots() -> list[str]:
    """List the robots that have a top-level xacro, by name."""
    return sorted({path.parent.name for root in search_roots() for path in root.glob("urdf/*/*.urdf.xacro")})
