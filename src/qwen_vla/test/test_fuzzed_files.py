# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints, results and recipes end in one line that names the file, soon and without torch."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml
from fuzzing import damaged_bytes, damaged_tree, fuzz, json_maker

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.evaluation.summary import read_summary
from qwen_vla.evaluation.tables import as_markdown_page
from qwen_vla.model.checkpoint.files import read_training, read_weight_headers
from qwen_vla.policies import open_policy
from qwen_vla.policies.checkpoint import check_fits
from qwen_vla.training.recipe import RecipeError
from qwen_vla.training.recipe_files import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
JSON_FILES = ("config.json", "preprocessor_config.json", "embodiments.json", "normalization.json", "training.json")
OPENED = 300  # complete openings, with torch, which take longer


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copytree(resource_path("checkpoints/tiny"), tmp_path / "tiny")
    return tmp_path / "tiny"


def one_of(folder: Path):
    """Makes (name of a file, 0 byte, its damaged content) of a random one of the folder's JSON files."""
    makers = {name: json_maker(folder / name) for name in JSON_FILES}

    def make(chance: random.Random) -> bytes:
        name = chance.choice(JSON_FILES)
        return name.encode() + b"\0" + makers[name](chance)

    return make


def with_damage(folder: Path, use):
    """Reads such inputs: damages the file, uses the folder, restores it."""

    def read(data: bytes) -> None:
        name, _, content = data.partition(b"\0")
        file = folder / name.decode()
        whole = file.read_bytes()
        file.write_bytes(content)
        try:
            use(folder)
        finally:
            file.write_bytes(whole)

    return read


def test_checkpoint_files(copy) -> None:
    robots = [load_robot(name) for name in ("widowx", "aloha", "mobile_base")]

    def use(folder: Path) -> None:
        check_fits(folder, robots[0])
        read_training(folder)

    fuzz("checkpoint JSON", with_damage(copy, use), (ValueError, OSError), one_of(copy))


def test_checkpoints_that_are_opened(copy) -> None:
    robot = load_robot("widowx")
    read = with_damage(copy, lambda folder: open_policy(str(folder), robot))
    fuzz("opened checkpoints", read, (ValueError, OSError), one_of(copy), OPENED)


def test_weight_headers(copy) -> None:
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    first = sorted((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    some = {name: header[name] for name in first[:20]}
    tensors = whole[8 + length :][: some[first[19]]["data_offsets"][1]]
    text = json.dumps(some).encode()
    valid = len(text).to_bytes(8, "little") + text + tensors

    def make(chance: random.Random) -> bytes:
        if chance.random() < 1 / 3:
            return damaged_bytes(valid, chance)
        text = json.dumps(damaged_tree(some, chance)).encode("utf-8", "surrogatepass")
        stated = chance.choice((len(text), len(text), len(text), 0, 2**63, len(text) + 1))
        return stated.to_bytes(8, "little") + text + chance.choice((tensors, tensors, tensors[:-1], b""))

    def read(data: bytes) -> None:
        file.write_bytes(data)
        read_weight_headers(copy)

    fuzz("weights' headers", read, (ValueError, OSError), make)


def test_results(tmp_path) -> None:
    from test_report import EVALUATIONS

    file = tmp_path / "result.json"
    file.write_text(json.dumps(EVALUATIONS["joint"]))
    make = json_maker(file)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        as_markdown_page({"one": read_summary(file)})

    fuzz("results", read, (ValueError, OSError), make)


def test_recipes(tmp_path) -> None:
    files = sorted(resource_path("config/training").glob("*.yaml"))
    texts, contents = [file.read_bytes() for file in files], [yaml.safe_load(file.read_text()) for file in files]
    path = tmp_path / "recipe.yaml"

    def make(chance: random.Random) -> bytes:
        if chance.random() < 1 / 3:
            return damaged_bytes(chance.choice(texts), chance)
        content = damaged_tree(chance.choice(contents), chance)
        return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_recipe(path)

    fuzz("recipes", read, (RecipeError,), make)
