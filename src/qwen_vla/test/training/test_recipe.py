# SPDX-License-Identifier: Apache-2.0
"""Recipes: those of the suite are valid, and errors are reported with file and field."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from embodiment_descriptions import resource_path
from qwen_vla import QwenVLAConfig, QwenVLAModel
from qwen_vla.model.flow_matching import sample_tau
from qwen_vla.training.recipe import RecipeError, Tau
from qwen_vla.training.recipe_files import check_inputs, load_collections, load_data, load_recipe
from qwen_vla.training.start import freeze, set_types

SHIPPED = sorted(resource_path("config/training").glob("*.yaml"))
ROOT = SHIPPED[0].parents[2]  # from where the paths in them are seen
OWN = [path for path in SHIPPED if "4b" not in path.stem]  # their data come from the suite
BENCHMARKS = {  # recorded by `python -m benchmarks.public.NAME record`
    Path("out/data", path.parent.name + kind)
    for path in ROOT.glob("benchmarks/public/*/benchmark.py")
    for kind in ("", "_snapshots")
}
GOOD = {
    "stage": "sft",
    "name": "mine",
    "output": "out/train/mine",
    "data": [{"kind": "robot", "path": "out/data/mine"}],
    "steps": 10,
    "optimizer": {"backbone_lr": 1e-3, "expert_lr": 1e-3},
}
T2A = {**GOOD, "stage": "t2a", "horizon": 32, "optimizer": {"expert_lr": 1e-3}}


def write(folder, **changes) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_recipes_of_the_suite_are_valid(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem and recipe.output == Path("out/train") / path.stem


def test_every_stage_has_a_recipe_in_both_sizes():
    stages = {path.stem.removesuffix("_tiny"): load_recipe(path).stage for path in OWN if path.stem.endswith("_tiny")}
    assert stages == {stage: stage for stage in ("t2a", "cpt", "sft", "rl")}
    large = {load_recipe(path).stage for path in SHIPPED if path.stem.endswith("_4b")}
    assert large == {"t2a", "cpt", "sft", "rl"}


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_every_data_set_and_model_that_a_recipe_needs_is_made_by_the_suite(monkeypatch, path):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path)
    recorded = set(recipe.data_paths) - BENCHMARKS
    if recorded:
        assert recorded <= {collection.out for collection in load_collections(recipe.collect)}
    outputs = {load_recipe(other).output / "model" for other in OWN}
    assert recipe.init_from is None or recipe.init_from in {*outputs, Path("checkpoints/tiny")}


def test_every_model_that_plays_before_an_expert_is_one_of_the_suite(monkeypatch):
    monkeypatch.chdir(ROOT)
    outputs = {load_recipe(other).output / "model" for other in OWN}
    for path in Path("config/data").glob("*.yaml"):
        assert {c.takeover_from for c in load_collections(path)} <= {*outputs, None}


def test_the_mixture_of_the_paper_is_exact():
    recipe = load_recipe(resource_path("config/training/cpt_4b.yaml"))
    shares: dict[str, float] = {}
    for source in recipe.data:
        shares[source.kind] = shares.get(source.kind, 0) + source.weight
    # Table 1 of arXiv 2605.30280, in per cent; language: general 3.4, grounding 2.5, driving 2.4, captions 0.2.
    expected = {
        "robot": 74.2,
        "hands": 6.0,
        "navigation": 4.3 + 2.3 + 1.0,
        "motions": 3.7,
        "chat": 3.4 + 2.5 + 2.4 + 0.2,
    }
    assert shares == pytest.approx(expected) and sum(shares.values()) == pytest.approx(100)


@pytest.mark.parametrize("name", ["t2a_4b", "cpt_4b", "sft_4b"])
def test_the_large_recipes_train_what_their_stage_says(name):
    """On the meta device: the published geometry, no weights."""
    recipe = load_recipe(resource_path(f"config/training/{name}.yaml"))
    config = QwenVLAConfig.preset(recipe.preset, **recipe.tau.in_config(), **recipe.model)
    with torch.device("meta"):
        model = QwenVLAModel(config)
    freeze(model, recipe)
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == ({"action_expert"} if recipe.stage == "t2a" else {"vlm", "action_expert"})
    assert config.tau_distribution == ("logit_normal" if recipe.stage == "t2a" else "beta")


def test_text_to_action_is_of_whole_trajectories_and_pretraining_keeps_the_scale_of_its_motions():
    t2a, cpt = (load_recipe(resource_path(f"config/training/{stage}_4b.yaml")) for stage in ("t2a", "cpt"))
    robots = [{robot for source in r.data if source.kind == "motions" for robot in source.robots} for r in (t2a, cpt)]
    assert robots[0] == robots[1] and all(cpt.keeps(f"{robot}_motions") for robot in robots[1])
    assert not cpt.keeps("widowx") and t2a.horizon > 200


def test_a_fine_tune_holds_what_it_freezes_in_half_precision_unless_told():
    """On the meta device: 4.5 billion frozen weights are 8.5 GiB, not 17."""
    recipe = load_recipe(resource_path("config/training/finetune_4b_one_gpu.yaml"))
    with torch.device("meta"):
        model = QwenVLAModel(QwenVLAConfig.preset("4b"))
    freeze(model, recipe)
    for precision, size in ((None, 2), ("fp32", 4)):
        set_types(model, recipe.model_copy(update={"precision": precision}))
        assert {p.element_size() for p in model.parameters() if not p.requires_grad} == {size}
        assert {p.element_size() for p in model.parameters() if p.requires_grad} == {4}


def test_defaults_fill_what_is_not_said(tmp_path):
    recipe = load_recipe(write(tmp_path))
    assert (recipe.preset, recipe.batch_size, recipe.seed, recipe.autocast) == ("tiny", 32, 0, "no")
    assert (recipe.losses.action, recipe.losses.language, recipe.tau.distribution) == (1.0, 0.1, "beta")


def test_text_to_action_has_defaults_of_its_own(tmp_path):
    recipe = load_recipe(write(tmp_path, **{**T2A, "losses": {"action": 2.0}}))
    assert recipe.tau.distribution == "logit_normal" and recipe.frozen == {"backbone"} and not recipe.trains_backbone
    assert (recipe.losses.action, recipe.losses.language, recipe.losses.grounding) == (2.0, 0.0, 0.0)
    assert load_recipe(write(tmp_path, **T2A, tau={"distribution": "beta"})).tau.distribution == "beta"


def test_a_recipe_survives_being_written_down(tmp_path):
    for fields in (GOOD, T2A, {**GOOD, "lora": {"rank": 4}, "tau": {"direction": "noise"}}):
        recipe = load_recipe(write(tmp_path, **fields))
        path = tmp_path / "again.yaml"
        path.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
        assert load_recipe(path) == recipe


def test_learning_rates_may_be_written_in_any_notation(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("backbone_lr: 0.001", "backbone_lr: 6e-4"))  # a string in YAML 1.1
    assert load_recipe(path).optimizer.backbone_lr == 6e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stesp": 10}, "stesp: unknown field"),
        ({"optimizer": {**GOOD["optimizer"], "momentum": 0.9}}, "optimizer.momentum: unknown field"),
        ({"data": [{"kind": "robot", "path": "a", "weight": 0}]}, r"data.0.robot.weight: .*greater than 0, got 0"),
        ({"data": [{"kind": "dreams"}]}, r"data.0: .*'robot'.*got"),
        ({"data": [{"path": "a"}]}, r"data.0: .*kind"),
        ({"stage": "pretraining"}, "stage: .*'t2a', 'cpt' or 'sft', got 'pretraining'"),
        ({"data": []}, "data: .*at least 1"),
        ({"steps": -3}, "steps: .*greater than 0, got -3"),
        ({"steps": "many"}, "steps: .*integer.*got 'many'"),
        ({"preset": "huge"}, "preset: .*'tiny' or '4b', got 'huge'"),
        ({"held_out_share": 1}, "held_out_share: .*less than 1, got 1"),
        ({"seed": -1}, "seed: .*greater than or equal to 0, got -1"),
        ({"optimizer": {"backbone_lr": 1e-3}}, "optimizer.expert_lr: missing"),
        ({"optimizer": {"expert_lr": 1e-3}}, "optimizer.backbone_lr: missing"),
        ({"horizon": 32}, "horizon is for stage t2a; in stage sft every robot has its own"),
        ({"backbone": "Qwen/Qwen3.5-4B", "init_from": "x"}, "backbone and init_from are alternatives"),
        ({"freeze": ["backbone", "expert"]}, "freeze: nothing is left to train"),
        ({"freeze": ["hands"]}, "freeze.0: .*got 'hands'"),
        ({"freeze": ["backbone"], "lora": {}}, "lora adapts the backbone, which freeze excludes"),
        ({"lora": {"targets": []}}, "lora.targets: .*at least 1"),
        ({"precision": "bf16"}, "precision bf16 with trained weights in fp32 needs autocast: bf16"),
        ({"batch_size": 2, "accumulate": 3}, "accumulate: a batch of 2 rows cannot be split into 3 parts"),
        ({"losses": {"language": 0, "balance": "gradient_magnitude"}}, "losses.balance gradient_magnitude needs"),
        ({"model": {"horzion": 8}}, r"model.horzion: unknown field in QwenVLAConfig; did you mean horizon\?"),
        ({"model": {"vlm_config": {}}}, "model.vlm_config: unknown field in QwenVLAConfig"),
        ({"model": {"prefix_steps": "lots"}}, "model.prefix_steps: .*valid integer.*, got 'lots'"),
        ({"model": {"prefix_steps": -5}}, "model.prefix_steps: .*greater than or equal to 0, got -5"),
        ({"model": {"proprioception": "on"}}, "model.proprioception: .*, got 'on'"),
        ({"stepz": 5}, r"stepz: unknown field; did you mean steps\?"),
        ({"tau": {"direction": "back"}}, "tau.direction: .*'clean' or 'noise', got 'back'"),
        ({**T2A, "horizon": 16}, "horizon: stage t2a trains on whole trajectories, longer than 16 steps, got 16"),
        ({**T2A, "freeze": []}, "freeze: stage t2a trains only the expert"),
        (
            {**T2A, "losses": {"grounding": 1}},
            "losses.language and losses.grounding have nothing to train",
        ),
    ],
)
def test_a_wrong_value_is_named_with_file_and_field(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_all_problems_are_named_at_once(tmp_path):
    with pytest.raises(RecipeError, match="steps: .*; .*color: unknown field"):
        load_recipe(write(tmp_path, steps=0, color="red"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match="no_such.yaml: no such recipe; see config/training/"):
        load_recipe(tmp_path / "no_such.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not YAML: it is empty"),
        (b"- a\n- b\n", "recipe: "),
        (b"name: [unclosed\n", "is not YAML: line 2"),
        (b"name: caf\xe9\n", "is not YAML: .*; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, content, message):
    path = tmp_path / "other.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=f"other.yaml:? {message}") as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [load_recipe, load_data, load_collections])
def test_a_folder_is_not_called_missing(tmp_path, load):
    with pytest.raises(RecipeError, match=f"{tmp_path} is a folder; name a file in it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({}, "put your data there"), ({"collect": "data.yaml"}, "qwen-vla collect, given the recipe")],
)
def test_missing_data_point_to_the_command_that_makes_them(tmp_path, changes, remedy):
    data = [{"kind": "robot", "path": str(tmp_path / "nothing")}]
    with pytest.raises(RecipeError, match=f"mine: there is no data in .*nothing .*{remedy}"):
        check_inputs(load_recipe(write(tmp_path, data=data, **changes)))


def test_a_missing_model_to_start_from_is_named(tmp_path):
    data = [{"kind": "robot", "path": str(tmp_path)}]
    for field in ("init_from", "expert_from"):
        recipe = load_recipe(write(tmp_path, data=data, **{field: str(tmp_path / "nothing/model")}))
        with pytest.raises(RecipeError, match=f"mine: {field}: there is no model in .*nothing/model .*first train the"):
            check_inputs(recipe)


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "motions", "robots": ["widowx", "robbie"], "count": 5},
        {"kind": "robot", "path": ".", "robot": "robbie"},
    ],
)
def test_an_unknown_robot_is_named_before_anything_begins(tmp_path, entry):
    recipe = load_recipe(write(tmp_path, data=[{"kind": "motions", "robots": ["widowx"], "count": 5}, entry]))
    with pytest.raises(RecipeError, match="^recipe mine: data.1: unknown robot 'robbie'; known robots: .*widowx"):
        check_inputs(recipe)


def test_a_damaged_model_to_start_from_is_named_before_anything_begins(tmp_path):
    (tmp_path / "config.json").write_text("{")
    data = [{"kind": "motions", "robots": ["widowx"], "count": 5}]
    with pytest.raises(ValueError, match=r"config\.json: not JSON .*; is the checkpoint complete"):
        check_inputs(load_recipe(write(tmp_path, data=data, init_from=str(tmp_path))))


def test_the_named_density_of_flow_times_is_beta_1_3():
    """P(τ < t) = 1 − (1 − t)³, toward the clean end."""
    fields = Tau(distribution="beta_1_3").in_config()
    generator = torch.Generator().manual_seed(0)
    tau = sample_tau(200_000, "beta", "clean", fields["beta_alpha"], fields["beta_beta"], 1.0, generator=generator)
    for t in (0.1, 0.3, 0.7):
        assert float((tau < t).float().mean()) == pytest.approx(1 - (1 - t) ** 3, abs=0.005)
