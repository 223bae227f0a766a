"""Draws recorded episodes: both cameras side by side, the sentence, the time, the predicted path, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qwen_vla.image_decoding import to_rgb
from qwen_vla_ros.camera_view import CameraView
from qwen_vla_ros.demo_recording import Moment, Recording
from qwen_vla_ros.task_client import TaskRow

RATE = 10  # [Hz] that of the simulated cameras
SCALE = 2  # camera pixels are drawn as squares of so many
HEADER = 80  # [px] height of the strip above the views
CARD_SECONDS = 2.0
BACKGROUND, BRIGHT, DIM = (18, 20, 24), (240, 240, 240), (160, 165, 175)
GOOD, BAD = (70, 200, 110), (230, 80, 70)
PATH_START, PATH_END = np.array([255, 230, 60]), np.array([255, 60, 160])  # next step, last step
SUBPIXEL_BITS = 4  # of cv2's fixed-point coordinates


def film(episodes: Sequence[tuple[Recording, TaskRow]]) -> Iterator[np.ndarray]:
    """Frames of all episodes, one after the other: H×W×3 uint8 RGB, even sides, at RATE."""
    for number, (recording, row) in enumerate(episodes, 1):
        yield from _episode(recording, row, f"{number}/{len(episodes)}")


def _episode(recording: Recording, row: TaskRow, number: str) -> Iterator[np.ndarray]:
    view = None
    if recording.camera_pose is not None and recording.camera_info is not None:
        view = CameraView.from_messages(recording.camera_info, recording.camera_pose)
    frame = None
    for moment in every_tick(recording.moments):
        frame = draw_moment(moment, row.instruction, number, view)
        yield frame
    if frame is not None:
        card = draw_card(frame, row)
        yield from [card] * round(CARD_SECONDS * RATE)


def every_tick(moments: Sequence[Moment]) -> Iterator[Moment]:
    """What could be seen at each 1/RATE of simulated time: an exposure that is missing is bridged by the one before."""
    if not moments:
        return
    index = 0
    first, last = moments[0].seconds, moments[-1].seconds
    for tick in range(round((last - first) * RATE) + 1):
        latest = first + (tick + 0.5) / RATE
        while index + 1 < len(moments) and moments[index + 1].seconds < latest:
            index += 1
        yield moments[index]


def draw_moment(moment: Moment, sentence: str, number: str, view: CameraView | None) -> np.ndarray:
    """One frame."""
    ego = _enlarged(to_rgb(moment.ego))
    if view is not None and moment.path is not None:
        draw_path(ego, path_points(moment.path, view.frame_id), view)
    views = np.hstack([ego, _enlarged(to_rgb(moment.wrist))])
    canvas = Image.new("RGB", (views.shape[1], views.shape[0] + HEADER), BACKGROUND)
    canvas.paste(Image.fromarray(views), (0, HEADER))
    draw = ImageDraw.Draw(canvas)
    draw.text((20, 12), f"“{sentence}”", BRIGHT, _font(30))
    draw.text((20, 50), moment.activity, DIM, _font(18))
    draw.text((canvas.width - 20, 12), f"{moment.seconds:.1f} s", BRIGHT, _font(30), anchor="ra")
    draw.text((canvas.width - 20, 50), number, DIM, _font(18), anchor="ra")
    for x, label in ((12, "ego, with the predicted path"), (views.shape[1] // 2 + 12, "cam_wrist")):
        draw.text((x, canvas.height - 28), label, BRIGHT, _font(18), stroke_width=2, stroke_fill=BACKGROUND)
    return np.asarray(canvas)


def draw_card(frame: np.ndarray, row: TaskRow) -> np.ndarray:
    """The end of an episode: its last frame, darkened, and how it went."""
    canvas = Image.fromarray((frame * 0.35).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    centre, middle = canvas.width // 2, (canvas.height + HEADER) // 2
    word, colour = ("picked", GOOD) if row.success else ("failed", BAD)
    draw.text((20, 12), f"“{row.instruction}”", BRIGHT, _font(30))
    draw.text((centre, middle - 40), word, colour, _font(110), anchor="mm")
    latency = "" if row.latency_ms_p50 is None else f", {row.latency_ms_p50:.0f} ms per chunk"
    facts = f"{row.seconds:.1f} s, {row.chunks} chunks{latency}"
    if not row.success:
        facts = f"{row.ended}; {facts}"
    draw.text((centre, middle + 60), facts, BRIGHT, _font(26), anchor="mm")
    return np.asarray(canvas)


def path_points(path, frame_id: str) -> np.ndarray:
    """(N, 3) positions of a nav_msgs/Path [m]; none when it is given in another frame."""
    if path.header.frame_id != frame_id:
        return np.empty((0, 3))
    positions = [stamped.pose.position for stamped in path.poses]
    return np.array([(p.x, p.y, p.z) for p in positions]).reshape(-1, 3)


def draw_path(image: np.ndarray, points: np.ndarray, view: CameraView) -> None:
    """Draw points of the robot's base frame into an image of the camera, of any size, as a line with a dot each."""
    scale = image.shape[1] / view.width
    seen = view.project(points)[:, :2] * scale
    drawable = (np.abs(seen) < 10 * image.shape[1]).all(axis=1)  # NaN is not; cv2 counts in 32 bits
    fixed = np.round(np.where(drawable[:, None], seen, 0) * 2**SUBPIXEL_BITS).astype(int).tolist()
    places = [tuple(place) if ok else None for place, ok in zip(fixed, drawable, strict=True)]
    for i, place in enumerate(places):
        share = i / max(1, len(places) - 1)
        colour = tuple(int(c) for c in (1 - share) * PATH_START + share * PATH_END)
        if i and place and places[i - 1]:
            cv2.line(image, places[i - 1], place, colour, 2, cv2.LINE_AA, SUBPIXEL_BITS)
        if place:
            cv2.circle(image, place, 4 << SUBPIXEL_BITS, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def _enlarged(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
