# SPDX-License-Identifier: Apache-2.0
"""Questions about labeled frames: every answer is correct, and no question is about invisible objects."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.language.vision_language import (
    APART,
    NEARER,
    ask,
    coordinates,
    grounding_answer,
    pixel_point,
    scaled_box,
    text_corpus,
)
from qwen_vla.data.robot.annotations import Annotations

NAMES = ("red cube", "green cube", "blue chair", "spoon", "yellow towel", "door")
TIPS = ("left tip", "right tip")
seeds = st.integers(0, 2**32 - 1)
NAME = "|".join(NAMES)
PLACE = r"\[(\d+), (\d+)\]"


def labels(seed, frames=4):
    """Random frames of two cameras, with up to five objects; some share a name, some points are not in the image."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.4, 1.4, (frames, 2, 7, 3)).astype(np.float32)
    objects = rng.integers(-1, len(NAMES), (frames, 5))
    wanted = rng.integers(-1, 5, (2, frames))
    return Annotations(points, objects, *wanted, NAMES, ("ego", "cam_wrist"), TIPS)


class Truth:
    """The content of an image, derived from the labels without the code under test."""

    def __init__(self, annotations, frame, camera):
        self.names = [NAMES[index] if index >= 0 else None for index in annotations.objects[frame]]
        self.points = dict(
            zip([*self.names, "left gripper", "right gripper"], annotations.points[frame, camera], strict=True)
        )
        self.seen = [name for name in self.points if name and self.names.count(name) < 2 and in_view(self.points[name])]

    def number(self, name):
        return self.names.index(name)


def in_view(point):
    u, v, depth = point
    return depth > 0 and 0.01 < u < 0.99 and 0.01 < v < 0.99


def out_of_view(point):
    u, v, depth = point
    return depth <= 0 or min(u, v) < -0.15 or max(u, v) > 1.15


def check_place(found, point):
    np.testing.assert_allclose([int(value) for value in found], 1000 * point[:2], atol=0.51)


def check_answer(annotations, frame, camera, question):
    """Work the answer out again from the question's words."""
    truth = Truth(annotations, frame, camera)
    text, answer, points = question.text, question.answer, truth.points
    if match := re.fullmatch(rf"Is the ({NAME}) in view\?", text):
        name = match[1]
        if answer == "yes":
            assert name in truth.seen and question.object == truth.number(name)
        elif question.object == -1:
            assert name not in truth.names and answer == "no"
        else:
            assert out_of_view(points[name]) and question.object == truth.number(name) and answer == "no"
        return
    assert all(name in truth.seen for name in re.findall(rf"{NAME}|\w+ gripper", text)), "asked about what is not seen"
    if text == "What is in view?":
        assert answer == (", ".join(sorted(set(truth.seen) & set(truth.names))) or "nothing")
        assert question.object == -1
    elif match := re.fullmatch(rf"What is at {PLACE}\?", text):
        assert answer in truth.seen and question.object == truth.number(answer)
        check_place(match.groups(), points[answer])
    elif match := re.fullmatch(rf"Which colour is at {PLACE}\?", text):
        name = truth.names[question.object]
        assert answer == name.split()[0] and len(name.split()) == 2
        check_place(match.groups(), points[name])
    elif match := re.fullmatch(rf"Is the ({NAME}) (left of|above) the ({NAME})\?", text):
        one, other = points[match[1]], points[match[3]]
        axis = {"left of": 0, "above": 1}[match[2]]
        assert abs(one[axis] - other[axis]) > APART and question.object == truth.number(match[1])
        assert answer == ("yes" if one[axis] < other[axis] else "no")
    elif match := re.fullmatch(rf"Which is nearer, the ({NAME}) or the ({NAME})\?", text):
        near, far = sorted((match[1], match[2]), key=lambda name: points[name][2])
        assert points[near][2] < NEARER * points[far][2]
        assert answer == near and question.object == truth.number(near)
    else:
        match = re.fullmatch(rf"(?:Where is|Point to|Locate) the ({NAME}|(?:left|right) gripper)[?.]", text)
        assert question.object == (-1 if match[1].endswith("gripper") else truth.number(match[1]))
        check_place(re.fullmatch(PLACE, answer).groups(), points[match[1]])


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_every_answer_is_right(seed):
    annotations, rng = labels(seed), np.random.default_rng(seed)
    for frame in range(4):
        for camera in range(2):
            for _ in range(3):
                check_answer(annotations, frame, camera, ask(annotations, frame, camera, rng))


def test_all_kinds_of_questions_are_asked_and_all_answers_given():
    annotations, rng = labels(1, frames=50), np.random.default_rng(0)
    questions = [ask(annotations, i % 50, i % 2, rng) for i in range(1000)]
    kinds = {re.sub(rf"{NAME}|left gripper|right gripper|{PLACE}", "…", question.text) for question in questions}
    assert kinds == {
        "Where is the …?",
        "Point to the ….",
        "Locate the ….",
        "What is at …?",
        "Which colour is at …?",
        "What is in view?",
        "Is the … in view?",
        "Is the … left of the …?",
        "Is the … above the …?",
        "Which is nearer, the … or the …?",
    }
    answers = {question.answer for question in questions}
    assert answers >= {"yes", "no", "nothing", "red", "green", "blue", "yellow", *NAMES}


def test_neither_yes_nor_no_is_the_better_guess():
    annotations, rng = labels(0, frames=1), np.random.default_rng(0)
    annotations.objects[0], annotations.points[0, 0, :5] = range(5), [[u, 0.5, 1] for u in (0.1, 0.4, 0.8, 2, 3)]
    for kind in (r"Is the .* in view\?", r"Is the .* left of the .*\?"):
        questions = [ask(annotations, 0, 0, rng) for _ in range(1500)]
        said = [question.answer == "yes" for question in questions if re.fullmatch(kind, question.text)]
        assert len(said) > 60 and 0.35 < np.mean(said) < 0.65, kind


def test_the_same_random_numbers_give_the_same_question():
    annotations = labels(2)
    for seed in range(20):
        one, other = (ask(annotations, 0, 0, np.random.default_rng(seed)) for _ in range(2))
        assert one == other


@given(st.floats(0, 1), st.floats(0, 1))
def test_coordinates_are_whole_numbers_from_0_to_1000(u, v):
    numbers = [int(n) for n in re.fullmatch(r"\[(\d+), (\d+)\]", coordinates(np.array([u, v, 0.5]))).groups()]
    assert all(0 <= n <= 1000 for n in numbers)
    np.testing.assert_allclose(numbers, [1000 * u, 1000 * v], atol=0.5 + 1e-9)


def test_a_frame_without_anything_in_view_says_so():
    annotations = labels(0, frames=1)
    annotations.objects[0], annotations.points[...] = range(5), 2.0
    answers = {ask(annotations, 0, 0, np.random.default_rng(seed)).answer for seed in range(20)}
    assert answers == {"nothing", "no"}


def test_recorded_pictures_show_the_cube_where_the_answer_says(recordings):
    """The pixel at the answer's place has the colour of the cube that the question is about."""
    colors = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
    colors |= {"yellow": (1, 1, 0), "purple": (0.6, 0.2, 0.8), "cyan": (0, 1, 1)}
    reader = LeRobotReader(recordings / "snapshots")
    annotations, alike = Annotations.of(reader), []
    for frame in range(len(reader)):
        picture = reader.image("observation.images.ego", frame).astype(float)
        height, width = picture.shape[:2]
        for cube in np.flatnonzero(annotations.visible[frame, 0, :-1]):
            u, v = re.findall(r"\d+", coordinates(annotations.points[frame, 0, cube]))
            pixel = picture[int(int(v) / 1000 * height), int(int(u) / 1000 * width)]
            wanted = colors[annotations.names[annotations.objects[frame, cube]].removesuffix(" cube")]
            alike.append(np.corrcoef(pixel, wanted)[0, 1] > 0.9)
    assert len(alike) >= 12 and np.mean(alike) > 0.8


def test_the_corpus_has_every_word_of_every_question():
    annotations, rng = labels(3, frames=50), np.random.default_rng(3)
    words = {word for text in text_corpus(annotations) for word in re.findall(r"[a-zA-Z]+|\d", text)}
    for i in range(300):
        question = ask(annotations, i % 50, i % 2, rng)
        assert set(re.findall(r"[a-zA-Z]+|\d", f"{question.text} {question.answer}")) <= words


def test_the_vocabulary_is_small():
    words = {word for text in text_corpus(labels(0)) for word in re.findall(r"[a-zA-Z]+", text)}
    assert len(words - {word for name in (*NAMES, *TIPS) for word in name.split()}) < 32


boxes = st.tuples(st.integers(1, 4000), st.integers(1, 4000)).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(st.floats(0, size[0]), min_size=2, max_size=2, unique=True),
        st.lists(st.floats(0, size[1]), min_size=2, max_size=2, unique=True),
    )
)


@settings(deadline=None)
@given(boxes)
def test_pixel_boxes_survive_the_scale_to_half_a_thousandth(case):
    (width, height), xs, ys = case
    box = (min(xs), min(ys), max(xs), max(ys))
    scaled = scaled_box(box, width, height)
    assert all(isinstance(n, int) and 0 <= n <= 1000 for n in scaled)
    corners = [*pixel_point(scaled[:2], width, height), *pixel_point(scaled[2:], width, height)]
    np.testing.assert_allclose(corners, box, atol=0.5001 * max(width, height) / 1000)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 101, 5), (5, 0, 5, 5), (0, 9, 5, 3), (0, float("nan"), 5, 5)])
def test_impossible_boxes_are_refused(box):
    with pytest.raises(ValueError, match="outside the image of 100×50|a box must be left, top, right, bottom"):
        scaled_box(box, 100, 50)


def test_the_grounding_answer_is_qwens_json():
    answer = json.loads(grounding_answer([("red cube", (10, 5, 60, 25)), ("tip", (100, 50))], 100, 50))
    assert answer == [
        {"bbox_2d": [100, 100, 600, 500], "label": "red cube"},
        {"point_2d": [1000, 1000], "label": "tip"},
    ]
