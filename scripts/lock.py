#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Resolves the direct dependencies and writes the lock files (`make lock`).

    python3 scripts/lock.py [PYTHON ...]        default: python3.11 python3.12

requirements.in is resolved together with requirements-<distribution>.in of each distribution of ROS 2. Its wheels
(`ros-…`) go into requirements-<distribution>.lock, all else into requirements.lock.

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
DISTRIBUTIONS = ("jazzy", "kilted")
COMMON = ROOT / "requirements.lock"
CUDA_ONLY = re.compile(r"nvidia-.*|cuda-.*|triton")
HEADER = "# Made by `make lock` from {}; do not edit.\n"


def lock_of(distribution: str) -> Path:
    return ROOT / f"requirements-{distribution}.lock"


def resolve(python: str, distribution: str) -> tuple[str, dict[str, str]]:
    """Returns the version of `python` ("3.11") and what pip would install there: name -> version."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        command = [f"{folder}/bin/python", "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        command += ["--report", f"{folder}/report.json", "-r", str(ROOT / "requirements.in")]
        command += ["-r", str(ROOT / f"requirements-{distribution}.in")]
        if "--upgrade" not in sys.argv:
            command += [
                word for lock in (COMMON, lock_of(distribution)) if lock.is_file() for word in ("-c", str(lock))
            ]
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


def write(path: Path, sources: str, resolved: dict[str, dict[str, str]]) -> None:
    path.write_text(HEADER.format(sources) + "\n".join(merge(resolved)) + "\n", encoding="utf-8")
    print(f"{path.name}: " + ", ".join(f"{len(p)} packages for Python {v}" for v, p in resolved.items()))


def main() -> int:
    pythons = [a for a in sys.argv[1:] if not a.startswith("--")] or ["python3.11", "python3.12"]
    common: list[dict[str, dict[str, str]]] = []
    for distribution in DISTRIBUTIONS:
        resolved = dict(resolve(python, distribution) for python in pythons)
        ros, others = ({p: {n: v for n, v in found.items() if n.startswith("ros-") == of_ros}
                        for p, found in resolved.items()} for of_ros in (True, False))  # fmt: skip
        write(lock_of(distribution), f"requirements.in and requirements-{distribution}.in", ros)
        common.append(others)
    if common[0] != common[-1]:
        print(f"lock: {' and '.join(DISTRIBUTIONS)} need different versions of the same packages", file=sys.stderr)
        return 1
    write(COMMON, "requirements.in", common[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
