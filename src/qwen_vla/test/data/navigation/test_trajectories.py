# SPDX-License-Identifier: Apache-2.0
"""Trajectories of agents and objects: the named entity's points, unknown ones masked."""

import json

import numpy as np
import pytest
from PIL import Image

from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.navigation.trajectories import TrajectoryData
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.action_space import pack

CONFIG = QwenVLAConfig.preset("tiny")


def moment(space="ground", points=((1, 0), None, (3, 1)), **more):
    return {"space": space, "rate_hz": 2, "entities": [{"name": "the van", "points": list(points)}], **more}


def open_source(folder, *moments, held_out=0.0, steps=None, images=True, **more):
    path = folder / "moments.jsonl"
    path.write_text("\n".join(map(json.dumps, moments)))
    context = SourceContext(CONFIG, held_out, images=images, trajectory_steps=steps)
    return TrajectoryData(kind="trajectories", path=path, **more).open(context)


def sample(source, index=0):
    return source.sample(index, np.random.default_rng(0))


def test_the_points_come_back_and_unknown_ones_are_masked(tmp_path):
    source = open_source(tmp_path, moment(), moment(points=[(-5, -5), (5, 5)] * 8))
    found = sample(source)
    assert found.actions.shape == (16, 2) and found.valid.tolist() == [True, False, True] + [False] * 13
    points = source.statistics["trajectories_ground"].unnormalize(found.actions)
    np.testing.assert_allclose(points[found.valid], [[1, 0], [3, 1]], atol=1e-5)
    packed, mask = pack(found.actions, 16, 64, found.valid)
    assert mask.sum() == 4 and (packed[~mask] == 0).all()


@pytest.mark.parametrize(
    ("space", "point", "words"),
    [
        ("image", (500, 250), "as u right and v down in thousandths of the image"),
        ("ground", (1.0, -2.0), "as x forward and y left [m] on the ground, seen from here"),
        ("space", (1.0, -2.0, 0.5), "as x forward, y left and z up [m], seen from here"),
    ],
)
def test_the_prompt_names_entity_horizon_rate_and_axes(tmp_path, space, point, words):
    source = open_source(tmp_path, moment(space, [point], instruction="overtake"), steps=None)
    text = f"The control frequency is 2 Hz. Please predict the next 16 positions of the van, {words}"
    assert sample(source).text == f"{text}, while the task is: overtake."
    assert sample(source).text in source.texts()
    assert (
        source.statistics[f"trajectories_{space}"].channel_names
        == (("u", "v"), ("x", "y"), ("x", "y", "z"))[("image", "ground", "space").index(space)]
    )


def test_every_entity_of_a_moment_is_a_sample_and_stays_on_its_side_of_the_split(tmp_path):
    both = moment()
    both["entities"].append({"name": "the robot", "points": [[0.5, 0]]})
    source = open_source(tmp_path, *[both] * 5, held_out=0.2)
    assert (len(source.training), len(source.held_out)) == (8, 2)
    assert "the robot" in sample(source, 1).text and "the van" in sample(source, 8).text


def test_whole_trajectories_have_their_own_length_and_no_images(tmp_path):
    source = open_source(tmp_path, moment(points=[(i, 0) for i in range(30)]), moment(), steps=20, images=False)
    assert len(sample(source, 0).actions) == 20 and "the next 20 positions" in sample(source, 0).text
    assert len(sample(source, 1).actions) == 3 and "the next 3 positions" in sample(source, 1).text


def test_what_is_shown_is_a_history(tmp_path):
    for i in range(2):
        Image.new("RGB", (9, 9), (100 * i, 0, 0)).save(tmp_path / f"{i}.png")
    source = open_source(tmp_path, {**moment(frames=["0.png", "1.png"]), "frames_rate_hz": 4}, moment())
    assert (sample(source).frame_rate, sample(source, 1).frame_rate) == (4.0, 2.0)
    assert sample(source).images["ego"][:, 0, 0, 0].tolist() == [0, 100] and sample(source, 1).images == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (moment(points=[None, None]), "'the van' has no known point"),
        (moment(points=[(1, 2, 3)]), "points of space 'ground' have 2 numbers"),
        (moment("image", [(1001, 5)]), "image points are 0…1000"),
        (moment(points=[(1, float("inf"))]), "finite number"),
        (moment("moon"), "space: Input should be"),
        (moment(rate_hz=-1), "rate_hz"),
        (moment(frames=["gone.png"]), "no such image"),
    ],
)
def test_bad_moments_are_named(tmp_path, wrong, message):
    with pytest.raises(DataError, match=rf"moments\.jsonl:2: .*{message}"):
        open_source(tmp_path, moment(), wrong)
    assert open_source(tmp_path, moment(), wrong, on_bad_rows="skip").provenance()["bad_rows"] == 1


def test_chunks_longer_than_the_model_are_refused(tmp_path):
    spec = TrajectoryData(kind="trajectories", path=tmp_path / "moments.jsonl", steps=17)
    with pytest.raises(DataError, match="chunks of 17 steps do not fit the model's horizon of 16"):
        spec.open(SourceContext(CONFIG))
