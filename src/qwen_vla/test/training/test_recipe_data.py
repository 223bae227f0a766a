# SPDX-License-Identifier: Apache-2.0
"""The data of a recipe: missing datasets are recorded, and no others."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from qwen_vla import cli
from qwen_vla.data.collect import is_complete
from qwen_vla.data.collection import Collection
from qwen_vla.data.formats.lerobot import shard_path
from qwen_vla.training.recipe import RecipeError
from qwen_vla.training.recipe_data import collect_data
from qwen_vla.training.recipe_files import load_collections

THERE = {
    "suite": "widowx_pick",
    "out": "data/there",
    "episodes": 6,
    "seed": 2_000_000,
    "kind": "snapshots",
    "episodes_per_shard": 2,
}  # as the session's `recordings`
MISSING = {"suite": "widowx_pick", "out": "data/missing", "episodes": 1, "seed": 2_000_100, "kind": "snapshots"}
OF_ANOTHER_RECIPE = MISSING | {"out": "data/other"}
RECIPE = {
    "stage": "sft",
    "name": "mine",
    "output": "out",
    "collect": "data.yaml",
    "data": [
        {"kind": "robot", "path": "data/there"},
        {"kind": "robot", "path": "data/missing"},
        {"kind": "questions", "path": "data/missing"},
        {"kind": "motions", "robots": ["widowx"], "count": 10},
    ],
    "steps": 1,
    "optimizer": {"backbone_lr": 1e-3, "expert_lr": 1e-3},
}


@pytest.fixture
def folder(monkeypatch, recordings, tmp_path):
    """A working folder with one data set of two, a list of three, and a recipe."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recordings / "snapshots", "data/there", ignore=shutil.ignore_patterns("cache"))
    write("data.yaml", [THERE, MISSING, OF_ANOTHER_RECIPE])
    write("recipe.yaml", RECIPE)
    return tmp_path


def write(name, content):
    Path(name).write_text(yaml.safe_dump(content))


def collected(**changes):
    """What collecting the recipe with these changes reports to have recorded."""
    write("recipe.yaml", RECIPE | changes)
    return collect_data(Path("recipe.yaml"), workers=1)["collected"]


def times(place):
    return {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")}


def test_exactly_what_is_missing_is_recorded(folder, capsys):
    before = times("data/there")
    summaries = collected()
    assert [(summary["out"], summary["episodes"]) for summary in summaries] == [("data/missing", 1)]
    assert sorted(path.name for path in Path("data").iterdir()) == ["missing", "there"]
    assert times("data/there") == before
    capsys.readouterr()
    assert collected() == []
    assert capsys.readouterr().err == "nothing left to collect, complete: data/there, data/missing\n"


def test_an_interrupted_data_set_is_completed(folder):
    shutil.copytree("data/there", "data/missing")
    collection = replace(Collection(**THERE), out=Path("data/missing"))
    shard_path(collection.out, 1).unlink()
    write("data.yaml", [THERE, THERE | {"out": "data/missing"}])
    assert [one["out"] for one in collected()] == [str(collection.out)]
    assert is_complete(collection)


def test_the_command_says_how_far_it_is_and_what_it_made(folder, monkeypatch, capsys):
    command = cli.parse(["collect", "recipe.yaml", "--workers", "1"])
    assert command.run() == 0
    said = capsys.readouterr()
    assert "dataset 1 of 1: data/missing" in said.err
    made = yaml.safe_load(said.out)
    assert made["recipe"] == "mine" and [one["out"] for one in made["collected"]] == ["data/missing"]


def test_data_that_nothing_makes_are_named_before_anything_is_recorded(folder):
    data = [*RECIPE["data"], {"kind": "robot", "path": "data/mine"}]
    with pytest.raises(
        RecipeError,
        match=r"mine: there is no data in data/mine .*, and data\.yaml does not list it; put your",
    ):
        collected(data=data)
    with pytest.raises(RecipeError, match="there is no data in data/missing .*no `collect` says how to record it"):
        collected(collect=None)
    assert [path.name for path in Path("data").iterdir()] == ["there"]


REINFORCEMENT = {"stage": "rl", "name": "rl", "output": "out", "init_from": "x", "suite": "widowx", "steps": 1}


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (REINFORCEMENT, "stage rl trains on its own episodes"),
        (RECIPE | {"data": RECIPE["data"][3:], "collect": "nowhere.yaml"}, r"its data \(motions\) are generated or"),
        (
            RECIPE | {"data": RECIPE["data"][:1], "collect": None},
            r"its data are there \(data/there\), and no `collect`",
        ),
        (
            RECIPE | {"data": RECIPE["data"][:1], "collect": "other.yaml"},
            r"its data are there \(data/there\), and other\.yaml lists none",
        ),
    ],
)
def test_a_recipe_without_anything_to_collect_is_refused_with_the_next_step(folder, recipe, why):
    write("other.yaml", [OF_ANOTHER_RECIPE])
    write("recipe.yaml", recipe)
    command = cli.parse(["collect", "recipe.yaml", "--workers", "1"])
    with pytest.raises(
        RecipeError, match=rf"^recipe\.yaml: nothing to collect: {why}.*; .*: qwen-vla train recipe\.yaml$"
    ):
        command.run()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{**MISSING, "workers": 2}], "0.workers: unknown field"),
        ([{**MISSING, "kind": "films"}], "0.kind: .*'demonstrations' or 'snapshots', got 'films'"),
        ([{"suite": "widowx"}], "0.out: missing"),
        ([THERE, {**MISSING, "seed": 9000}], "data/missing: collect needs training seeds, got validation seeds"),
        ([MISSING, MISSING], "data/missing: listed more than once"),
        ({"suite": "widowx"}, "list of datasets: .*list"),
    ],
)
def test_what_is_wrong_in_the_list_is_named(folder, content, message):
    write("data.yaml", content)
    with pytest.raises(RecipeError, match=f"^data.yaml: {message}"):
        load_collections(Path("data.yaml"))


def test_a_missing_list_is_named(folder):
    with pytest.raises(RecipeError, match="nowhere.yaml: no such file"):
        collected(collect="nowhere.yaml")
