# SPDX-License-Identifier: Apache-2.0
"""The environment of a public benchmark: a virtual environment outside the repository, with pinned packages."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qwen_vla.output_files import write_text

FOLDER = "QWEN_VLA_BENCHMARKS"  # environment variable: where the environments are
STAMP = "requirements.sha256"  # written last: an environment without it is incomplete


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        name: of its folder.
        requirements: file of exact versions, of all packages.
        script: prepares what no Python package has; called with the folder as its argument.
    """

    name: str
    requirements: Path
    script: Path | None = None

    @property
    def folder(self) -> Path:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return Path(os.environ.get(FOLDER) or cache / "qwen_vla/benchmarks").expanduser() / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def is_ready(self) -> bool:
        """Whether it was made from these requirements."""
        stamp = self.folder / STAMP
        return stamp.is_file() and stamp.read_text().strip() == self._hash

    def make(self) -> None:
        """Make it, unless it is ready; CalledProcessError when a part of it cannot be installed."""
        if self.is_ready:
            return
        print(f"installing {self.requirements} in {self.folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder], check=True)
        install = [self.python, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", self.requirements], check=True)
        if self.script:
            subprocess.run([self.script, self.folder.resolve()], check=True)
        write_text(self.folder / STAMP, self._hash + "\n")

    @property
    def _hash(self) -> str:
        made_from = self.requirements.read_bytes() + (self.script.read_bytes() if self.script else b"")
        return hashlib.sha256(made_from).hexdigest()
