# SPDX-License-Identifier: Apache-2.0
"""Environments of their own for programs of others, which are tested against as they are installed.

They are made on the first run, outside the repository, and kept: in $QWEN_VLA_CACHE, or ~/.cache/qwen_vla.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def foreign_python(*requirements: str, minimum: tuple[int, int] = (3, 11)) -> Path:
    """The interpreter of an environment with these requirements and at least this version of Python.

    Skips the test if this machine has no such Python, or, with pip's reason, if pip fails.
    """
    base = _interpreter(minimum)
    cache = Path(os.environ.get("QWEN_VLA_CACHE") or Path.home() / ".cache" / "qwen_vla")
    label = hashlib.sha256(" ".join((_version(base), *requirements)).encode()).hexdigest()[:8]
    folder = cache / "environments" / f"{requirements[0].replace('==', '-')}-{label}"
    python, made = folder / "bin" / "python", folder / "made"
    if not made.is_file():
        subprocess.run([base, "-m", "venv", "--clear", folder], check=True, env=_environment())
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        installed = subprocess.run(install, env=_environment(), capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"{' '.join(requirements)} cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
        made.touch()
    return python


def _interpreter(minimum: tuple[int, int]) -> str:
    """This Python, or a newer one of the machine."""
    if sys.version_info >= minimum:
        return sys.executable
    found = [shutil.which(f"python3.{minor}") for minor in range(minimum[1], minimum[1] + 3)]
    found += sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python")))
    for python in filter(None, found):
        version = _version(python).split(".")
        if len(version) > 1 and tuple(map(int, version[:2])) >= minimum:
            return python
    pytest.skip(f"no Python {'.'.join(map(str, minimum))} on this machine")


def _version(python: str) -> str:
    """Its version; empty if it does not run."""
    command = [python, "-c", "import sys; print(sys.version)"]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run(python: Path, *arguments: str | Path | int, seconds: float = 120) -> str:
    """What a program of such an environment prints; its error output is part of the failure."""
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
