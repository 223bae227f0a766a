# SPDX-License-Identifier: Apache-2.0
"""Descriptions and embodiment YAMLs that are damaged in every way end in an EmbodimentError, soon."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from fuzzing import damaged_bytes, damaged_tree, fuzz

from embodiment_descriptions import Embodiment, EmbodimentError, describe, embodiment_file, load_robot, resource_path
from embodiment_descriptions.config import load_config
from embodiment_descriptions.description import expand_xacro, read_description

NASTY_ATTRIBUTES = (b"", b"nan", b"1e999", b"-1", b"0 0", b"x", b"9" * 400, b"${1/0}", b"${a}", b"$(find x)")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def in_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def damaged_xml(data: bytes, chance: random.Random) -> bytes:
    """Bytes, or attributes and whole elements."""
    if chance.random() < 0.3:
        return damaged_bytes(data, chance)
    parts = data.split(b'"')
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(1, len(parts), 2)
        other = parts[chance.randrange(1, len(parts), 2)]
        parts[place] = chance.choice((other, other, *NASTY_ATTRIBUTES))
    return b'"'.join(parts)


def test_urdf(tmp_path) -> None:
    robots = [load_robot(name) for name in ("widowx", "aloha", "examples/ur5e_2f85/ur5e_2f85.yaml")]
    texts = [robot.urdf.encode() for robot in robots]

    def read(data: bytes) -> None:
        text = read_description(in_file(tmp_path / "robot.urdf", data))
        describe(Embodiment.from_urdf(text))

    fuzz("URDF", read, (EmbodimentError,), lambda chance: damaged_xml(chance.choice(texts), chance))


def test_xacro(tmp_path) -> None:
    source = resource_path("examples/so101/so101.urdf.xacro").read_bytes()

    def read(data: bytes) -> None:
        expand_xacro(in_file(tmp_path / "robot.urdf.xacro", data))

    fuzz("xacro", read, (EmbodimentError,), lambda chance: damaged_xml(source, chance))


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "a: &a\n- &b [1, *a]", "2026-13-45", "{[]: 1}", "[" * 5000, "a: 1\na: 2"]
)
def test_what_yaml_allows_and_nobody_means(text) -> None:
    with pytest.raises(EmbodimentError, match="is not valid YAML|must be a mapping"):
        load_config(text + "\n")


def test_aliases_do_not_multiply_without_end() -> None:
    """A billion laughs: nine lines of nine aliases each."""
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(EmbodimentError, match="more than 100000 values"):
        load_config("\n".join(lines) + "\n")


def test_embodiment_yaml(tmp_path) -> None:
    files = [embodiment_file(name) for name in ("widowx", "aloha", "mobile_base")]
    texts, contents = [file.read_bytes() for file in files], [yaml.safe_load(file.read_text()) for file in files]

    def make(chance: random.Random) -> bytes:
        if chance.random() < 1 / 3:
            return damaged_bytes(chance.choice(texts), chance)
        content = damaged_tree(chance.choice(contents), chance)
        return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")

    def read(data: bytes) -> None:
        load_config(in_file(tmp_path / "robot.yaml", data))

    fuzz("embodiment YAML", read, (EmbodimentError,), make)
