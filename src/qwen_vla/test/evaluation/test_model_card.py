# SPDX-License-Identifier: Apache-2.0
"""The model card states what the folder records, and what it does not record."""

import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from embodiment_descriptions import resource_path
from qwen_vla.evaluation.model_card import write_model_card
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.seeds import FIRST_TEST_SEED

SHIPPED = ("libero", "metaworld", "simpler_widowx", "tiny")
RECIPE = {"name": "joint_actions", "steps": 4000, "seed": 7, "backbone": None, "init_from": "out/grounding/model"}


@pytest.fixture
def folder(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "model")


def record_training(folder, step, **recipe):
    data = [{"suite": "widowx_pick", "total_frames": 41605, "seeds": [1, 2], "refusals": {"a": 1}, "kept": [1]}]
    (folder / "training.json").write_text(json.dumps({"recipe": RECIPE | recipe, "step": step, "data": data}))


def evaluation(path, successes, first=7000, **conditions):
    rows = [EpisodeRow(i, "pick", "red", i < successes, 3, 0, 5.0, 0.1, "done", 40.0) for i in range(10)]
    path.write_text(json.dumps(summarize("widowx_pick", first, rows, **conditions)))
    return path


def test_card_of_a_bare_checkpoint_claims_nothing(folder):
    text = write_model_card(folder).read_text()
    assert "## Evaluation\n\nNone is recorded." in text and "## Training\n\nNot recorded." in text
    assert "Its performance is not recorded" in text


def test_card_is_readable_by_the_hub(folder):
    text = write_model_card(folder).read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "apache-2.0" and "widowx" in yaml.safe_load(front)["tags"]
    assert body.strip().startswith("# model")


def test_the_hub_is_told_the_results_of_test_scenes_only(folder, tmp_path):
    seen, unseen = (evaluation(tmp_path / f"{first}.json", 9, first=first) for first in (7000, FIRST_TEST_SEED))
    _, front, _ = write_model_card(folder, [seen, unseen]).read_text().split("---\n", 2)
    (model,) = yaml.safe_load(front)["model-index"]
    (result,) = model["results"]
    assert model["name"] == "model"
    assert (result["dataset"]["split"], result["dataset"]["config"]) == ("test", "seeds 20000 to 20009")
    assert result["metrics"] == [
        {"type": "success_rate", "value": 0.9, "name": "success rate (95 % interval 0.60 to 0.98)"}
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_lines_of_a_shipped_card_run(name, capsys, monkeypatch):
    card = resource_path(f"checkpoints/{name}/README.md")
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(card.parents[1])
    exec(code, {})
    assert capsys.readouterr().out.startswith("('x', 'y', 'z', ")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_has_the_metadata_of_a_hub(name):
    card = ModelCard.load(resource_path(f"checkpoints/{name}/README.md"))
    assert card.data.pipeline_tag == "robotics" and card.data.library_name == "qwen_vla"
    assert {(r.dataset_split, r.metric_type) for r in card.data.eval_results} == {("test", "success_rate")}
    for result in card.data.eval_results:
        assert f"({100 * result.metric_value:.0f} %, " in card.content.split("## Evaluation")[1].split("## Training")[0]


def test_robot_and_statistics_are_in_it(folder):
    text = write_model_card(folder).read_text()
    assert "| control | eef_delta, 5 Hz |" in text and "| cameras | ego, cam_wrist |" in text
    assert "| gripper | -7 | 7 |" in text and "Please do: {instruction}" in text


def test_its_python_example_runs_for_the_robot_at_hand(folder, capsys, monkeypatch):
    """As a reader would run it, beside the folder; with the state that this policy needs."""
    shutil.copytree(resource_path("checkpoints/tiny"), folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder.parent)
    text = write_model_card(folder).read_text()
    assert 'embodiment="widowx"' in text and "It also knows aloha, mobile_base." in text
    for robot in ("widowx", "aloha"):
        code = text.split("```python\n")[1].split("```")[0].replace('"widowx"', f'"{robot}"')
        names = {}
        exec(code, names)
        assert names["chunk"].embodiment == robot and (names["state"] is not None) == (robot == "aloha")
    assert "gripper" in capsys.readouterr().out


def test_parameters_are_those_of_the_files(folder, micro):
    count = sum(p.numel() for p in micro[0].parameters())
    assert f"| parameters | {count / 1e6:,.1f} M |" in write_model_card(folder).read_text()


def test_training_and_its_early_end_are_told(folder):
    record_training(folder, 2001)
    text = write_model_card(folder).read_text()
    assert "# joint_actions" in text and "2,001 of 4,000 steps, seed 7" in text and "total_frames 41605" in text
    assert "stopped before the end of its schedule (2001 of 4000 steps)" in text
    recipe = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe) == RECIPE
    record_training(folder, 4000)
    assert "stopped before" not in write_model_card(folder).read_text()


def test_backbone_brings_its_license(folder):
    record_training(folder, 4000, backbone="Qwen/Qwen3.5-4B")
    text = write_model_card(folder).read_text()
    assert "initialized from `Qwen/Qwen3.5-4B`, whose license applies" in text


def test_evaluations_with_their_intervals_and_conditions(folder, tmp_path):
    paths = [evaluation(tmp_path / "a.json", 9), evaluation(tmp_path / "b.json", 0, blind=True)]
    text = write_model_card(folder, paths).read_text()
    assert "| widowx_pick | – | 7000–7009 (validation) | 9 of 10 (90 %, 60–98 %) |" in text
    assert "| widowx_pick | blind | 7000–7009 (validation) | 0 of 10 (0 %, 0–28 %) |" in text
    assert "performance is not recorded" not in text


def test_a_file_that_is_no_evaluation_is_named(folder, tmp_path):
    (tmp_path / "x.json").write_text('{"suite": "s"}')
    with pytest.raises(ValueError, match="x.json: episodes: missing.*give a result of"):
        write_model_card(folder, [tmp_path / "x.json"])
    assert not (folder / "README.md").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        write_model_card(tmp_path)
