"""Questions about labelled frames: every answer is right, and nothing is asked about what is not in view."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla.data.lerobot import LeRobotReader
from qwen_vla.data.vision_language import (
    MARGIN,
    Annotations,
    ask,
    coordinates,
    grounding_answer,
    pixel_point,
    scaled_box,
    text_corpus,
)

NAMES = ("red", "green", "blue", "yellow", "purple", "cyan")
seeds = st.integers(0, 2**32 - 1)


def labels(seed, frames=4):
    """Random frames of two cameras; some points lie outside the image or behind the camera."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.3, 1.3, (frames, 2, 4, 3)).astype(np.float32)
    colours = np.stack([rng.permutation(len(NAMES))[:3] for _ in range(frames)])
    return Annotations(points, colours, rng.integers(0, 3, frames), NAMES, ("ego", "cam_wrist"))


def in_view(points):
    u, v, depth = points
    return depth > 0 and MARGIN < u < 1 - MARGIN and MARGIN < v < 1 - MARGIN


def cube_of(annotations, frame, colour):
    """Number of the frame's cube of this colour."""
    return [annotations.names[c] for c in annotations.colours[frame]].index(colour)


def check_answer(annotations, frame, camera, question):
    """Work the answer out again from the question's words."""
    points = annotations.points[frame, camera]
    seen = {annotations.names[c]: in_view(points[i]) for i, c in enumerate(annotations.colours[frame])}
    mentioned = [word for word in re.findall(r"\w+", question.text) if word in annotations.names]
    assert all(seen[colour] for colour in mentioned), "asked about a cube that is not in view"
    if question.text == "Which cubes are in the image?":
        assert question.answer == (" ".join(sorted(c for c in seen if seen[c])) or "none")
        assert question.cube is None
    elif match := re.fullmatch(r"Which colour is the cube at \[(\d+), (\d+)\]\?", question.text):
        assert seen[question.answer]
        assert question.cube == cube_of(annotations, frame, question.answer)
        np.testing.assert_allclose([int(v) for v in match.groups()], 1000 * points[question.cube, :2], atol=0.51)
    elif match := re.fullmatch(r"Is the (\w+) cube (left of|above) the (\w+) cube\?", question.text):
        one, other = (cube_of(annotations, frame, match[i]) for i in (1, 3))
        axis = {"left of": 0, "above": 1}[match[2]]
        assert one != other and question.cube == one
        assert question.answer == ("yes" if points[one, axis] < points[other, axis] else "no")
    else:
        assert re.fullmatch(r"(Where is|Point to|Locate) the \w+ (cube|block)[?.]", question.text)
        assert question.cube == cube_of(annotations, frame, mentioned[0])
        u, v = map(int, re.fullmatch(r"\[(\d+), (\d+)\]", question.answer).groups())
        np.testing.assert_allclose([u, v], 1000 * points[question.cube, :2], atol=0.51)


@given(seeds)
@settings(max_examples=150, deadline=None)
def test_every_answer_is_right(seed):
    annotations, rng = labels(seed), np.random.default_rng(seed)
    for frame in range(4):
        for camera in range(2):
            check_answer(annotations, frame, camera, ask(annotations, frame, camera, rng))


def test_all_kinds_of_questions_are_asked():
    annotations, rng = labels(1, frames=50), np.random.default_rng(0)
    asked = {ask(annotations, i % 50, i % 2, rng).text.split()[0] for i in range(400)}
    assert asked == {"Where", "Point", "Locate", "Which", "Is"}


def test_the_same_random_numbers_give_the_same_question():
    annotations = labels(2)
    for seed in range(20):
        assert ask(annotations, 0, 0, np.random.default_rng(seed)) == ask(
            annotations, 0, 0, np.random.default_rng(seed)
        )


@given(st.floats(0, 1), st.floats(0, 1))
def test_coordinates_are_whole_numbers_from_0_to_1000(u, v):
    numbers = [int(n) for n in re.fullmatch(r"\[(\d+), (\d+)\]", coordinates(np.array([u, v, 0.5]))).groups()]
    assert all(0 <= n <= 1000 for n in numbers)
    np.testing.assert_allclose(numbers, [1000 * u, 1000 * v], atol=0.5 + 1e-9)


@pytest.mark.parametrize(
    ("point", "visible"),
    [
        ((0.5, 0.5, 1.0), True),
        ((0.5, 0.5, -1.0), False),
        ((MARGIN / 2, 0.5, 1.0), False),
        ((0.5, 1 - MARGIN / 2, 1.0), False),
        ((MARGIN * 1.1, 1 - MARGIN * 1.1, 1.0), True),
        ((1.2, 0.5, 1.0), False),
    ],
)
def test_points_at_the_border_and_behind_the_camera_are_not_visible(point, visible):
    annotations = labels(0, frames=1)
    annotations.points[0, 0, 2] = point
    assert annotations.visible(0, 0)[2] == visible


def test_a_frame_without_cubes_in_view_is_answered_with_none():
    annotations = labels(0, frames=1)
    annotations.points[...] = 2.0
    question = ask(annotations, 0, 0, np.random.default_rng(0))
    assert (question.text, question.answer) == ("Which cubes are in the image?", "none")


def test_recorded_pictures_show_the_cube_where_the_answer_says(recordings):
    """The labels of the real recordings against their pixels; the gripper may hide a cube now and then."""
    from qwen_vla_sim.widowx.scene import COLOURS

    reader = LeRobotReader(recordings / "snapshots")
    annotations = Annotations.of(reader)
    alike = []
    for frame in range(len(reader)):
        picture = reader.image("observation.images.ego", frame).astype(float)
        height, width = picture.shape[:2]
        for cube in np.flatnonzero(annotations.visible(frame, 0)[:-1]):
            u, v = re.findall(r"\d+", coordinates(annotations.points[frame, 0, cube]))
            pixel = picture[int(int(v) / 1000 * height), int(int(u) / 1000 * width)]
            wanted = COLOURS[annotations.names[annotations.colours[frame, cube]]]
            alike.append(np.corrcoef(pixel, wanted)[0, 1] > 0.9)
    assert len(alike) >= 12 and np.mean(alike) > 0.8


def test_the_corpus_has_every_word_of_every_question():
    words = {word for text in text_corpus(["prompt"], NAMES) for word in re.findall(r"[a-zA-Z]+|\d", text)}
    annotations, rng = labels(3, frames=50), np.random.default_rng(3)
    for i in range(300):
        question = ask(annotations, i % 50, i % 2, rng)
        assert set(re.findall(r"[a-zA-Z]+|\d", f"{question.text} {question.answer}")) <= words


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
    with pytest.raises(ValueError, match="outside the image of 100×50|a box is left, top, right, bottom"):
        scaled_box(box, 100, 50)


def test_the_grounding_answer_is_qwens_json():
    answer = json.loads(grounding_answer([("red cube", (10, 5, 60, 25)), ("tip", (100, 50))], 100, 50))
    assert answer == [
        {"bbox_2d": [100, 100, 600, 500], "label": "red cube"},
        {"point_2d": [1000, 1000], "label": "tip"},
    ]
