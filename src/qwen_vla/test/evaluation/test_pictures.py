# SPDX-License-Identifier: Apache-2.0
"""Contact sheets and videos: content, layout and duration."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from qwen_vla.evaluation.contact_sheet import (
    GAP,
    HEADER,
    LABEL,
    PICTURES,
    STRIDE,
    draw_sheet,
    strip,
    title_of,
    write_sheet,
)
from qwen_vla.evaluation.episode import Film, Look
from qwen_vla.evaluation.partial_results import Played
from qwen_vla.evaluation.pictures import font, shortened, tiled, verdict
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.evaluation.videos import CARD_SECONDS, frame_step, frames, write_video

COLORS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))
SUCCESS = EpisodeRow(7, "lift the red cube", "red", True, 3, 0, 2.0, 0.02, "success", 50.0, "pick")
FAILURE = EpisodeRow(8, "lift it", "red", False, 3, 2, 2.0, 0.02, "step limit", 50.0, "pick", "not touched")


def image(shade=0, height=240, width=320):
    return np.full((height, width, 3), COLORS[shade % 4], np.uint8)


def film(*seconds, cameras=1, remark=""):
    """Observations in which the first camera has a different color each time."""
    tags = ("ego", "left", "right", "low")[:cameras]
    return Film(
        looks=[Look({tag: image(i + j) for j, tag in enumerate(tags)}, s, remark) for i, s in enumerate(seconds)]
    )


def opened(picture):
    return Image.open(io.BytesIO(picture)).convert("RGB")


def test_a_strip_has_the_first_and_the_last_look_and_some_between():
    seven = strip(film(*range(7)), "ego")
    assert len(seven) == PICTURES and {opened(picture).size for picture in seven} == {(160, 120)}
    shown = [opened(picture).getpixel((80, 60)) for picture in seven]
    assert shown[0] == COLORS[0] and shown[-1] == COLORS[6 % 4]
    assert len(strip(film(0.0, 1.0), "ego")) == 2, "nothing stands twice"


def test_a_sheet_has_a_block_for_each_episode():
    summary = summarize("widowx", 7, [SUCCESS, FAILURE])
    episodes = [Played(row, strip(film(0.0, 1.0), "ego")) for row in (SUCCESS, FAILURE)]
    sheet = draw_sheet(title_of(summary), episodes)
    block = LABEL + 120 + GAP
    assert sheet.size == (2 * GAP + PICTURES * STRIDE, HEADER + 2 * block)
    for number in range(2):
        middle = HEADER + number * block + LABEL + 60
        assert [sheet.getpixel((GAP + 80 + i * STRIDE, middle)) for i in range(2)] == list(COLORS[:2])
    assert draw_sheet(title_of(summary), episodes * 5).size == (3 * GAP + 2 * PICTURES * STRIDE, HEADER + 5 * block)


def test_a_sheet_tells_success_and_failure_by_their_colors(tmp_path):
    for row, color in ((SUCCESS, 1), (FAILURE, 0)):
        write_sheet(tmp_path / "sheet.png", "title", [Played(row, strip(film(0.0), "ego"))])
        words = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))[HEADER : HEADER + LABEL, 400:]
        assert words.astype(int).max((0, 1)).argmax() == color
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_verdicts_say_how_far_it_got_and_what_ended_it():
    assert verdict(SUCCESS)[0] == "success" and verdict(FAILURE)[0] == "not touched (step limit)"


def test_long_sentences_are_cut_to_their_room():
    text = shortened("leave the room, then go to the blue chair beside the door", 20, 200)
    assert text.endswith("…") and font(20).getlength(text) <= 200
    assert shortened("go – now", 20, 200) == "go - now", "the letters have no dash"


@pytest.mark.parametrize(("cameras", "size"), [(1, (240, 320)), (2, (240, 640)), (3, (480, 640)), (4, (480, 640))])
def test_cameras_are_tiled(cameras, size):
    views = tiled(film(0.0, cameras=cameras).looks[0].images, 240)
    assert views.shape == (*size, 3)
    corners = [views[y, x] for y in (120, 360)[: size[0] // 240] for x in (160, 480)[: size[1] // 320]]
    assert [tuple(corner) for corner in corners[:cameras]] == list(COLORS[:cameras])


def test_odd_sides_are_made_even_for_the_video():
    assert tiled({"ego": image(0, 90, 121)}, 91).shape == (92, 122, 3)


@pytest.mark.parametrize(("period", "step", "rate"), [(0.02, 5, 10), (0.2, 1, 5), (0.5, 1, 2)])
def test_a_video_lasts_as_long_as_its_episode(tmp_path, period, step, rate):
    assert frame_step(period) == step
    whole = film(*np.arange(0, 2 + 1e-9, step * period), cameras=2, remark="refused: too far")
    path = write_video(tmp_path, whole, FAILURE, period)
    assert path.name == "not_touched.mp4"
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == rate
    assert len(shown) == 2 * rate + 1 + CARD_SECONDS * rate
    assert shown[0][200, 100] == pytest.approx(COLORS[0], abs=20) and shown[1][200, 100] == pytest.approx(
        COLORS[1], abs=20
    )
    card = shown[-1].astype(int)
    assert (card[..., 0] - card[..., 1]).max() > 80, "red letters"


def test_a_picture_stands_until_there_is_a_newer_one():
    """The policy observes every second; frames are due twice as often."""
    shown = list(frames(film(0.0, 1.0), SUCCESS, 0.5))
    assert len(shown) == 3 + CARD_SECONDS / 0.5
    assert [tuple(frame[200, 100]) for frame in shown[:3]] == [COLORS[0], COLORS[0], COLORS[1]]
