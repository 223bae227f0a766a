# SPDX-License-Identifier: Apache-2.0
"""The environment of a benchmark is complete or counts as absent, and is made again from other requirements."""

import subprocess

import pytest

from benchmarks.public.protocol.environment import FOLDER, Environment


def write_script(path, line):
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_its_script_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path / "made"))
    requirements, script = tmp_path / "requirements.txt", tmp_path / "driver.sh"
    requirements.write_text("# nothing\n")
    environment = Environment("small", requirements, script)

    write_script(script, "exit 3")
    with pytest.raises(subprocess.CalledProcessError):
        environment.make()
    assert not environment.is_ready, "what failed is not taken for complete"

    write_script(script, 'echo here > "$1"/driver')
    environment.make()
    assert environment.is_ready and (environment.folder / "driver").read_text() == "here\n"

    write_script(script, 'echo newer > "$1"/driver')
    assert not environment.is_ready
