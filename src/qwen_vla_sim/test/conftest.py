# SPDX-License-Identifier: Apache-2.0
"""Packages from outside the tree that offer tasks."""

from collections.abc import Callable, Mapping

import pytest


@pytest.fixture
def install_tasks(tmp_path, monkeypatch) -> Callable[[str, str, Mapping[str, str]], None]:
    """Installs a package of one module that offers tasks: its name, its text, entry point → class of the module."""

    def install(package: str, module: str, tasks: Mapping[str, str]) -> None:
        folder = tmp_path / package
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{package}.py").write_text(module)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {package}:{value}" for name, value in tasks.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[qwen_vla.tasks]", *lines]))
        monkeypatch.syspath_prepend(folder)

    return install
