# SPDX-License-Identifier: Apache-2.0
"""Questions as a source of samples: the question's image, its answer, and labels that agree with the answer."""

import re

import numpy as np
import pytest

from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.lerobot import DatasetError, LeRobotReader
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.language.questions import QuestionData
from qwen_vla.data.samples import SourceContext

CONFIG = QwenVLAConfig.preset("tiny")


@pytest.fixture(scope="module")
def source(recordings):
    return QuestionData(kind="questions", path=recordings / "snapshots").open(SourceContext(CONFIG, 0.2))


def test_whole_episodes_are_held_out(source, recordings):
    reader = LeRobotReader(recordings / "snapshots")
    assert len(source.held_out) == 1 and len(source.training) == len(reader) - 1
    assert set(source.held_out).isdisjoint(source.training)


def test_a_sample_shows_the_camera_that_its_labels_are_about(source):
    pointed = 0
    for seed in range(60):
        index = int(source.training[seed % len(source.training)])
        sample = source.sample(index, np.random.default_rng(seed))
        ((tag, image),) = sample.images.items()
        np.testing.assert_array_equal(image, source.images[tag][index])
        assert image.shape == (CONFIG.image_size, CONFIG.image_size, 3) and sample.actions is None
        assert sample.labels.points.shape == (1, 4, 3) and sample.labels.visible.shape == (1, 4)
        match = re.fullmatch(r"\[(\d+), (\d+)\]", sample.answer)
        if match and "gripper" not in sample.text:
            assert sample.labels.visible[0, 0]
            np.testing.assert_allclose(
                sample.labels.points[0, 0, :2] * 1000, [int(n) for n in match.groups()], atol=0.51
            )
            pointed += 1
    assert pointed > 10


def test_the_same_seed_gives_the_same_sample(source):
    one, other = (source.sample(2, np.random.default_rng(7)) for _ in range(2))
    assert (one.text, one.answer, list(one.images)) == (other.text, other.answer, list(other.images))


def test_the_tokenizer_sees_every_word(source):
    words = {word for text in source.texts() for word in re.findall(r"[a-zA-Z]+|\d", text)}
    for seed in range(100):
        sample = source.sample(int(source.training[seed % len(source.training)]), np.random.default_rng(seed))
        assert set(re.findall(r"[a-zA-Z]+|\d", f"{sample.text} {sample.answer}")) <= words


def test_holding_everything_out_is_refused(recordings):
    spec = QuestionData(kind="questions", path=recordings / "snapshots")
    with pytest.raises(DataError, match="6 in all, 6 held out, none left"):
        spec.open(SourceContext(CONFIG, 1.0))


def test_a_folder_that_is_no_recording_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="not a finished LeRobotDataset"):
        QuestionData(kind="questions", path=tmp_path).open(SourceContext(CONFIG))
