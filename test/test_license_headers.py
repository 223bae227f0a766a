# SPDX-License-Identifier: Apache-2.0
"""Every source file says in its first lines under which license it is, by the SPDX identifier of LICENSE."""

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
IDENTIFIER = "SPDX-License-Identifier: Apache-2.0"
SUFFIXES = {".py", ".sh", ".yaml", ".yml", ".toml", ".env", ".in", ".cfg", ".msg", ".srv", ".action", ".repos"}
SUFFIXES |= {".xacro", ".xml", ".sdf", ".Dockerfile"}
NAMES = {"CMakeLists.txt", "Makefile", ".ci/run"}
NO_SOURCE = ("checkpoints/", "docs/")  # data and prose


def sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    names = [name for name in listed.stdout.splitlines() if not name.startswith(NO_SOURCE)]
    chosen = [name for name in names if Path(name).suffix in SUFFIXES or Path(name).name in NAMES or name in NAMES]
    return [path for name in chosen if (path := REPOSITORY / name).is_file() and not path.is_symlink()]


def test_the_license_is_the_one_that_they_name() -> None:
    license = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in license and "Version 2.0" in license


def test_every_source_file_names_its_license() -> None:
    found = sources()
    assert len(found) > 500
    heads = {path: path.read_text(encoding="utf-8").splitlines()[:4] for path in found}
    bare = [str(path.relative_to(REPOSITORY)) for path, head in heads.items() if head and IDENTIFIER not in str(head)]
    assert bare == [], f"put {IDENTIFIER!r} into a comment at their top"
