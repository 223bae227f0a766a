# SPDX-License-Identifier: Apache-2.0
"""A clip shows where a path is, whether it was refused and why, and says how fast time passes."""

import numpy as np

from qwen_vla_ros.simulation.demo.clip import INSET, MARGIN, SUBTITLE, VIEW, Shot, draw_clip, subtitle_of, wrapped
from qwen_vla_ros.simulation.demo.paths import PREDICTED, REFUSED, draw_line

GRAY = np.full((*VIEW, 3), 128, np.uint8)
OWN = np.full((240, 320, 3), (10, 200, 10), np.uint8)
LINE = np.array([[50.0, 400.0], [150.0, 400.0], [350.0, 420.0]])
INSTRUCTION = "pick up the red cube"


def of_color(image: np.ndarray, style) -> np.ndarray:
    """(N, 2) row, column of pixels of a path's color."""
    return np.argwhere(np.abs(image.astype(int) - style.color).max(axis=2) < 8)


def test_a_line_is_where_its_points_are():
    image = np.zeros((100, 200, 3), np.uint8)
    draw_line(image, np.array([[20.0, 30.0], [120.0, 30.0]]))
    drawn = of_color(image, PREDICTED)
    assert abs(drawn[:, 1].min() - 20) < 6 and abs(drawn[:, 1].max() - 120) < 8 and abs(drawn[:, 0].mean() - 30) < 2


def test_points_behind_the_camera_leave_a_gap():
    image = np.zeros((100, 200, 3), np.uint8)
    draw_line(image, np.array([[20.0, 30.0], [60.0, 30.0], [np.nan, np.nan], [140.0, 30.0], [180.0, 30.0]]))
    columns = set(of_color(image, PREDICTED)[:, 1])
    assert {40, 160} <= columns and not columns & set(range(75, 125))


def test_nothing_is_drawn_for_no_path_and_for_one_far_out_of_view():
    for places in (np.empty((0, 2)), np.full((3, 2), np.nan), np.array([[1e12, 0.0], [1e12, 5.0]])):
        image = np.zeros((100, 200, 3), np.uint8)
        for style in (PREDICTED, REFUSED):
            draw_line(image, places, style)
        assert not image.any()


def test_a_refused_path_differs_by_more_than_its_color():
    """It is dashed, and crossed out at its end."""
    solid, dashed = np.zeros((100, 400, 3), np.uint8), np.zeros((100, 400, 3), np.uint8)
    ends = np.array([[20.0, 50.0], [380.0, 50.0]])
    draw_line(solid, ends, PREDICTED)
    draw_line(dashed, ends, REFUSED)
    assert solid[50, 30:350].any(axis=1).all() and not dashed[50, 30:350].any(axis=1).all()
    heights = [np.ptp(of_color(image, style)[:, 0]) for image, style in ((solid, PREDICTED), (dashed, REFUSED))]
    assert heights[1] > heights[0]


def test_frames_have_one_even_size_even_if_a_reason_is_long():
    shots = [Shot(GRAY, OWN, 0.0, [LINE]), Shot(GRAY, OWN, 0.1, [LINE], "a joint would be too fast; " * 6)]
    frames = list(draw_clip(shots, INSTRUCTION, True, 1))
    assert len(frames) == 2 and frames[0].shape == frames[1].shape
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0


def test_a_predicted_and_a_refused_path_are_told_apart():
    shots = [Shot(GRAY, OWN, 0.0, [LINE]), Shot(GRAY, OWN, 0.1, [LINE], "too fast")]
    accepted, refused = (frame[: VIEW[0]] for frame in draw_clip(shots, INSTRUCTION, None, 1))
    assert len(of_color(accepted, PREDICTED)) and not len(of_color(accepted, REFUSED))
    assert len(of_color(refused, REFUSED)) and not len(of_color(refused, PREDICTED))


def test_the_legend_explains_what_occurs():
    calm, refused = (
        next(draw_clip([Shot(GRAY, OWN, 0.0, [], reason)], INSTRUCTION, None, 1))[VIEW[0] :]
        for reason in ("", "too fast")
    )
    assert len(of_color(calm, PREDICTED)) and not len(of_color(calm, REFUSED))
    assert len(of_color(refused, PREDICTED)) and len(of_color(refused, REFUSED))


def test_the_subtitle_is_the_instruction_or_the_reason():
    assert subtitle_of(Shot(GRAY, OWN, 0.0, []), INSTRUCTION) == "“pick up the red cube”"
    assert subtitle_of(Shot(GRAY, OWN, 0.0, [], "too fast"), INSTRUCTION) == "refused: too fast"
    lines = wrapped("one two three four five six seven eight nine ten eleven twelve", SUBTITLE, 200)
    assert len(lines) > 2 and " ".join(lines).split()[-1] == "twelve"


def test_the_robot_s_own_view_is_in_a_corner():
    frame = next(draw_clip([Shot(GRAY, OWN, 0.0, [])], INSTRUCTION, None, 1))
    own = np.argwhere(np.abs(frame.astype(int) - OWN[0, 0]).max(axis=2) == 0)
    assert (
        np.ptp(own[:, 1]) + 1 == INSET
        and own[:, 1].max() == VIEW[1] - MARGIN - 1
        and own[:, 0].max() == VIEW[0] - MARGIN - 1
    )


def test_a_clip_says_how_fast_time_passes_and_how_the_episode_ended():
    shots = [Shot(GRAY, OWN, 0.0, []), Shot(GRAY, OWN, 0.1, [])]

    def strips(success, speed):
        return [frame[-40:, VIEW[1] // 2 :] for frame in draw_clip(shots, INSTRUCTION, success, speed)]

    plain, fast, done, failed = strips(None, 1), strips(None, 3), strips(True, 1), strips(False, 1)
    assert not np.array_equal(plain[0], fast[0]) and np.array_equal(plain[0], done[0])
    assert not np.array_equal(plain[1], done[1]) and not np.array_equal(done[1], failed[1])
