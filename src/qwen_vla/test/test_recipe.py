"""Recipes: those of the suite are right, and what is wrong in one is named with file and field."""

from pathlib import Path

import pytest
import yaml

from embodiment_descriptions import resource_path
from qwen_vla.training.recipe import RecipeError, check_inputs, load_recipe

SHIPPED = sorted(resource_path("config/training").glob("*.yaml"))
GOOD = {
    "name": "mine",
    "output": "out/train/mine",
    "robot": "widowx",
    "data": [{"path": "out/data/mine"}],
    "steps": 10,
    "optimizer": {"backbone_lr": 1e-3, "expert_lr": 1e-3},
}


def write(folder, **changes) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_recipes_of_the_suite_are_valid(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem and recipe.output == Path("out/train") / path.stem
    own = path.read_text().partition("\nname:")[0]
    made = [line for line in own.splitlines() if line.startswith("# Data: qwen-vla collect ")]
    assert made and any(str(source.path) in line for source in recipe.data for line in made)


def test_every_data_set_and_model_that_a_recipe_needs_is_made_by_one_of_the_suite():
    recipes = [load_recipe(path) for path in SHIPPED]
    comments = "\n".join(path.read_text() for path in SHIPPED)
    assert len(recipes) >= 2
    for recipe in recipes:
        for source in recipe.data:
            assert f"--out {source.path}\n" in comments
        assert recipe.init_from is None or recipe.init_from in {other.output / "model" for other in recipes}


def test_defaults_fill_what_is_not_said(tmp_path):
    recipe = load_recipe(write(tmp_path))
    assert (recipe.preset, recipe.batch_size, recipe.seed, recipe.autocast) == ("tiny", 32, 0, "no")


def test_learning_rates_may_be_written_in_any_notation(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("backbone_lr: 0.001", "backbone_lr: 6e-4"))  # a string in YAML 1.1
    assert load_recipe(path).optimizer.backbone_lr == 6e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stesp": 10}, "stesp: there is no such field"),
        ({"optimizer": {**GOOD["optimizer"], "momentum": 0.9}}, "optimizer.momentum: there is no such field"),
        ({"data": [{"path": "a"}, {"path": "b", "weight": 0}]}, r"data.1.weight: .*greater than 0, got 0"),
        ({"data": []}, "data: .*at least 1"),
        ({"steps": -3}, "steps: .*greater than 0, got -3"),
        ({"steps": "many"}, "steps: .*integer.*got 'many'"),
        ({"preset": "huge"}, "preset: .*'tiny' or '4b', got 'huge'"),
        ({"held_out_share": 1}, "held_out_share: .*less than 1, got 1"),
        ({"seed": -1}, "seed: .*greater than or equal to 0, got -1"),
        ({"optimizer": {"backbone_lr": 1e-3}}, "optimizer.expert_lr: missing"),
        ({"question_share": 0.5, "losses": {"language": 0, "grounding": 0}}, "question_share is above 0, but"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_field(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_all_problems_are_named_at_once(tmp_path):
    with pytest.raises(RecipeError, match="steps: .*; .*colour: there is no such field"):
        load_recipe(write(tmp_path, steps=0, colour="red"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match="no_such.yaml: no such recipe; see config/training/"):
        load_recipe(tmp_path / "no_such.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [unclosed\n"])
def test_a_file_that_is_no_recipe_is_named(tmp_path, text):
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match="other.yaml") as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


def test_missing_data_point_to_the_command_that_makes_them(tmp_path):
    recipe = load_recipe(write(tmp_path, data=[{"path": str(tmp_path / "nothing")}]))
    with pytest.raises(RecipeError, match=r"mine: there is no data set in .*nothing .*comment.*`qwen-vla collect`"):
        check_inputs(recipe)


def test_a_missing_model_to_start_from_is_named(tmp_path):
    recipe = load_recipe(write(tmp_path, data=[{"path": str(tmp_path)}], init_from=str(tmp_path / "nothing/model")))
    with pytest.raises(RecipeError, match="mine: there is no model in .*nothing/model .*first train the recipe"):
        check_inputs(recipe)
