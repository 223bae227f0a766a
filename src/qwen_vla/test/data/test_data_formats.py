# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/reference/data_formats.md are accepted by the code that they explain."""

import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter

from embodiment_descriptions import resource_path
from qwen_vla import QwenVLAConfig
from qwen_vla.data.samples import SourceContext
from qwen_vla.data.sources import AnyData

KINDS = ("chat", "navigation", "trajectories", "hands")


@pytest.fixture(scope="module")
def sections():
    text = resource_path("docs/reference/data_formats.md").read_text()
    return {part.split("\n", 1)[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}


def blocks(section, language):
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def test_every_kind_has_a_section_with_a_recipe_that_is_valid(sections):
    specs = {kind: TypeAdapter(list[AnyData]).validate_python(yaml.safe_load(blocks(text, "yaml")[0]))
             for kind, text in sections.items()}  # fmt: skip
    assert all(spec.kind == kind for kind, entries in specs.items() for spec in entries)
    assert set(specs) == {"robot", "questions", "motions", *KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_lines_become_samples(sections, kind, tmp_path):
    (spec,) = TypeAdapter(list[AnyData]).validate_python(yaml.safe_load(blocks(sections[kind], "yaml")[0]))
    lines = blocks(sections[kind], "json")[0].strip().split("\n")
    for name in re.findall(r'"([\w/]+\.(?:jpg|png))"', "\n".join(lines)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    if kind == "hands":
        arrays = {"left_translation": np.eye(2, 3), "left_rotation": np.eye(2, 3), "left_pca": np.ones((2, 10))}
        np.savez(tmp_path / json.loads(lines[0])["hands"], **arrays)
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    spec = spec.model_copy(update={"path": tmp_path / "train.jsonl", "on_bad_rows": "refuse"})
    source = spec.open(SourceContext(QwenVLAConfig.preset("tiny"), held_out_share=0))
    pixel = "data:image/png;base64,iVBORw0KGgo="  # the page shows how it begins, not a whole picture
    for index in source.training:
        if kind == "chat" and pixel in str(source.turns[index].images):
            continue
        sample = source.sample(int(index), np.random.default_rng(0))
        assert (sample.images or sample.chat.images) and (sample.answer or np.isfinite(sample.actions).all())
        if f"    {sample.text}\n" in sections[kind] or kind in ("chat", "hands"):
            break
    else:
        pytest.fail(f"no sample has the prompt that the page shows for {kind}")
