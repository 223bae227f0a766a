"""Environments of their own for programs of others, which are tested against as they are installed.

They are made on the first run, outside the repository, and kept: in $QWEN_VLA_CACHE, or ~/.cache/qwen_vla.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest


def foreign_python(*requirements: str) -> Path:
    """The interpreter of an environment with these requirements; skips the test, with pip's reason, if pip fails."""
    cache = Path(os.environ.get("QWEN_VLA_CACHE") or Path.home() / ".cache" / "qwen_vla")
    label = hashlib.sha256(" ".join((sys.version, *requirements)).encode()).hexdigest()[:8]
    folder = cache / "environments" / f"{requirements[0].replace('==', '-')}-{label}"
    python, made = folder / "bin" / "python", folder / "made"
    if not made.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, env=_environment())
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        installed = subprocess.run(install, env=_environment(), capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"{' '.join(requirements)} cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
        made.touch()
    return python


def run(python: Path, *arguments: str | Path | int, seconds: float = 120) -> str:
    """What a program of such an environment prints; its error output is part of the failure."""
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
