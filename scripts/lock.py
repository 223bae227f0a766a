#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Resolves requirements.in for several Python versions and writes requirements.lock (`make lock`).

    python3 scripts/lock.py [PYTHON ...]        default: python3.11 python3.12

Each interpreter gets a throw-away environment and is asked what pip would install; nothing else is installed.
Where the answers differ, the line carries an environment marker. Packages that only the CUDA build of torch
brings are left out: pip adds them itself where that build is chosen.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
CUDA_ONLY = re.compile(r"nvidia-.*|cuda-.*|triton")
HEADER = "# Made by `make lock` from requirements.in; do not edit.\n"


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Returns the version of `python` ("3.11") and what pip would install there: name -> version."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        command = [f"{folder}/bin/python", "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        command += ["--report", f"{folder}/report.json", "-r", str(ROOT / "requirements.in")]
        if LOCK.is_file() and "--upgrade" not in sys.argv:
            command += ["-c", str(LOCK)]
        subprocess.run(command, check=True)
        report = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
    version = ".".join(report["environment"]["python_full_version"].split(".")[:2])
    packages = {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in report["install"]
    }
    # "+cpu" and the like name the build, not the version: which build is wanted depends on the machine.
    return version, {n: v.split("+")[0] for n, v in sorted(packages.items()) if not CUDA_ONLY.fullmatch(n)}


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Returns the lines of the lock file for {python version: {name: package version}}."""
    lines = []
    for name in sorted({name for packages in resolved.values() for name in packages}):
        versions = {python: packages.get(name) for python, packages in resolved.items()}
        if len(set(versions.values())) == 1:
            lines.append(f"{name}=={next(iter(versions.values()))}")
        else:
            lines += [f'{name}=={v} ; python_version == "{python}"' for python, v in versions.items() if v]
    return lines


def main() -> int:
    pythons = [a for a in sys.argv[1:] if not a.startswith("--")] or ["python3.11", "python3.12"]
    resolved = dict(resolve(python) for python in pythons)
    LOCK.write_text(HEADER + "\n".join(merge(resolved)) + "\n", encoding="utf-8")
    print(f"{LOCK.name}: " + ", ".join(f"{len(p)} packages for Python {v}" for v, p in resolved.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
