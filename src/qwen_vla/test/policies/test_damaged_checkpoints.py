# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is judged when it is loaded: what is damaged, hostile or of another robot is named in one line."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from embodiment_descriptions import load_robot
from qwen_vla import Policy, QwenVLAConfig
from qwen_vla.policies import open_policy

VERY_DEEP = "[" * 100_000


@pytest.fixture
def copy(fitting_checkpoint, tmp_path):
    """A checkpoint of the WidowX to damage: `change` edits a JSON file, `opened` opens it for the robot."""
    folder = tmp_path / "a folder"
    shutil.copytree(fitting_checkpoint, folder)

    def change(name, edit):
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    def weights(edit):
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    robot = load_robot("widowx")
    return SimpleNamespace(
        folder=folder, change=change, weights=weights, opened=lambda: open_policy(str(folder), robot)
    )


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def set_in(*path_and_value):
    """An edit of nested JSON."""

    def edit(content):
        *path, last, value = path_and_value
        for key in path:
            content = content[key]
        content[last] = value

    return edit


@pytest.mark.parametrize(
    ("name", "edit", "text"),
    [
        ("config.json", set_in("expert_config", "num_layers", 10**6), r"config.json: expert_config.num_layers: .*1000"),
        ("config.json", set_in("expert_config", "num_layers", 900), "config.json has .* layers, but the weights only"),
        ("config.json", set_in("expert_config", "num_layers", 3), "they lack action_expert.blocks.2"),
        ("config.json", set_in("expert_config", "intermediate_size", 10**6), "of another shape action_expert"),
        ("config.json", set_in("expert_config", "num_layers", "2"), "num_layers: .* valid integer, got '2'"),
        ("config.json", set_in("vlm_config", "text_config", 7), "vlm_config.text_config: "),
        (
            "config.json",
            set_in("image_size", 64),
            "config.json does not fit the model: image_size 32 there",
        ),
        ("config.json", set_in("history_rate", float("nan")), "config.json: not JSON|history_rate"),
        ("preprocessor_config.json", set_in("image_transform", "patch_size", 0), "patch_size: .* got 0"),
        ("preprocessor_config.json", set_in("camera_tags", "ego"), "camera_tags: .* got 'ego'"),
        ("preprocessor_config.json", set_in("camera_tags", ["ego"]), "no tokens for cameras .*cam_wrist"),
        ("embodiments.json", set_in("widowx", "period", "fast"), "embodiments.json: widowx.period: "),
        ("embodiments.json", set_in("widowx", "joint_limits", {"waist": [1, -1]}), "joint_limits of waist"),
        ("embodiments.json", set_in("widowx", "camera_tags", []), "would act blindly"),
        ("normalization.json", set_in("widowx", "q01", [0.0]), r"normalization.json: widowx: q01 and q99"),
        ("normalization.json", set_in("widowx", "q99", [1e300] * 7), r"normalization.json: widowx: .* within ±1e\+06"),
        ("normalization.json", set_in("widowx", "q99", [90.0] * 7), r"outside the robot's limits: x .*rx -0.5..90"),
        (
            "normalization.json",
            set_in("widowx", "channel_names", ["gripper", "x", "y", "z", "rx", "ry", "rz"]),
            "their channels are gripper x y .* the order determines which joint moves",
        ),
    ],
)
def test_a_field_at_fault_is_named(copy, name, edit, text):
    copy.change(name, edit)
    began = time.monotonic()
    with pytest.raises(ValueError, match=text) as error:
        copy.opened()
    one_line(error)
    assert time.monotonic() - began < 2.0, "nothing is built before the files fit each other"


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "embodiments.json", "normalization.json", "tokenizer.json"]
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b"null", VERY_DEEP.encode(), b'{"a": 1e999}'])
def test_what_is_no_such_file_is_named(copy, name, content):
    (copy.folder / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=name) as error:
        copy.opened()
    assert len(one_line(error)) < 1000


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "auto_map", "quantization_config"])
@pytest.mark.parametrize("part", [(), ("vlm_config",), ("vlm_config", "text_config"), ("expert_config",)])
def test_no_key_of_a_configuration_reaches_a_loader_of_code(copy, key, part):
    """transformers would fetch a kernel, a module or a quantizer by these names."""
    copy.change("config.json", set_in(*part, key, "evil/kernel"))
    config = QwenVLAConfig.from_pretrained(copy.folder)
    assert "evil" not in json.dumps(config.to_dict())
    assert copy.opened().model.config._attn_implementation == "sdpa"


def test_an_adapter_does_not_lead_to_the_weights_of_others(copy):
    (copy.folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model", "peft_type": "LORA"}')
    with pytest.raises(ValueError, match=r"adapter_config.json: .* merge them into its base"):
        copy.opened()


@pytest.mark.parametrize("name", ["../weights.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_of_weights_names_only_files_beside_it(copy, name):
    (copy.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match=r"index.json: weight_map.a: "):
        copy.opened()


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_weights_that_no_training_leaves_behind_are_refused(copy, value):
    copy.weights(lambda tensors: [tensor.fill_(value) for tensor in tensors.values()])
    with pytest.raises(ValueError, match="not those of a trained model: .* (all zero|not finite)"):
        copy.opened()


def test_a_zeroed_part_of_the_weights_is_named(copy):
    """As a download leaves it that reserved the file's size and was cut."""
    name = "vlm.model.language_model.layers.1.mlp.up_proj.weight"
    copy.weights(lambda tensors: tensors[name].zero_())
    with pytest.raises(ValueError, match=f"{name} is all zero"):
        copy.opened()


def test_weights_of_another_shape_or_name_are_named(copy):
    name = "action_expert.action_in.0.weight"
    tensors = load_file(copy.folder / "model.safetensors")
    name = next(name for name in tensors if name.startswith("action_expert") and tensors[name].ndim == 2)
    copy.weights(lambda tensors: tensors.update({name: torch.ones(3, 3), "spare": torch.ones(2)}))
    with pytest.raises(ValueError, match=rf"unknown spare; of another shape {name} \[3, 3\], not "):
        copy.opened()


@pytest.mark.parametrize("shift", [8, 16, 4096])
def test_weights_whose_header_contradicts_the_file_are_refused(copy, shift):
    file = copy.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-shift])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or truncated \(\d+ bytes\); copy it again"):
        Policy.from_pretrained(copy.folder)
