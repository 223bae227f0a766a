# SPDX-License-Identifier: Apache-2.0
"""The average of two checkpoints is a checkpoint between them, and what does not fit is refused."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_vla import QwenVLAModel

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "checkpoints/tiny"
WEIGHTS = "model.safetensors"

sys.path.insert(0, str(ROOT / "scripts"))
from average_weights import Options, average  # noqa: E402


def changed(folder, change):
    """A copy of the shipped checkpoint with other weights."""
    model = QwenVLAModel.from_pretrained(TINY)
    model.save_pretrained(folder)
    parts = {name: change(part) for name, part in load_file(folder / WEIGHTS).items()}
    save_file(parts, folder / WEIGHTS, {"format": "pt"})
    return folder


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_average_is_a_model_between_the_two(tmp_path, share):
    start = changed(tmp_path / "start", lambda part: part)
    tuned = changed(tmp_path / "tuned", lambda part: part + 1)
    average(Options(tuned, start, tmp_path / "out", share))
    first, mixed = load_file(start / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    for name, part in first.items():
        torch.testing.assert_close(mixed[name], part + share)
    QwenVLAModel.from_pretrained(tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in tuned.iterdir()}


def test_other_shapes_and_a_folder_that_exists_are_refused(tmp_path):
    start = changed(tmp_path / "start", lambda part: part)
    with pytest.raises(ValueError, match=r"start exists; choose another folder"):
        average(Options(TINY, start, start))
    other = changed(tmp_path / "other", lambda part: part[:1])
    with pytest.raises(ValueError, match="have other tensors"):
        average(Options(TINY, other, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
