# SPDX-License-Identifier: Apache-2.0
"""Draws recorded episodes: what a spectator and all cameras see, paths, time, the result, and the instruction below.

The spectator's view fills the left half; without a simulator to render it, the first camera does. The others share the
right half, for a base with a map.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qwen_vla.evaluation.pictures import BACKGROUND, BAD, BRIGHT, DIM, GOOD, font, shortened
from qwen_vla_control.observation.image_decoding import to_rgb
from qwen_vla_ros.drawing.camera_view import CameraView
from qwen_vla_ros.simulation.demo.geometry import Geometry, Situation
from qwen_vla_ros.simulation.demo.map import MapFromAbove
from qwen_vla_ros.simulation.demo.paths import PREDICTED, REFUSED, draw_line
from qwen_vla_ros.simulation.demo.recording import Moment, Recording
from qwen_vla_ros.simulation.demo.stage import Stage
from qwen_vla_ros.simulation.task_client import TaskRow

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
RATE = 10  # [Hz] that of the simulated cameras
CELL = (640, 480)  # [px] width and height of each half
STRIP = 80  # [px] height of the strip below the images
CARD_SECONDS = 2.0
SIZES = (30, 26, 22, 18)  # [px] of the instruction: the first that fits
TIME_WIDTH = 140  # [px] kept free of the instruction


def film(episodes: Sequence[tuple[Recording, TaskRow]]) -> Iterator[np.ndarray]:
    """Frames of all episodes, one after the other: H×W×3 uint8 RGB, even sides, at RATE."""
    for number, (recording, row) in enumerate(episodes, 1):
        yield from _Episode(recording, row, f"{recording.robot.robot_tag}   {number}/{len(episodes)}").frames()


class _Episode:
    """Draws one episode."""

    def __init__(self, recording: Recording, row: TaskRow, title: str) -> None:
        self._row, self._title = row, title
        self._moments = list(every_tick(recording.moments))
        geometry = Geometry(recording)
        self._situations = [geometry.at(moment) for moment in self._moments]
        driven = any(situation.base is not None for situation in self._situations)
        self._map = MapFromAbove(self._situations, *CELL) if driven else None
        watched = recording.suite and recording.positions
        self._stage = Stage(recording, row.seed, CELL[1], CELL[0]) if watched else None

    def frames(self) -> Iterator[np.ndarray]:
        frame = None
        with closing(self._stage) if self._stage else nullcontext():
            for number in range(len(self._moments)):
                frame = self._frame(number)
                yield frame
        if frame is not None:
            card = draw_card(frame, self._row)
            yield from [card] * round(CARD_SECONDS * RATE)

    def _frame(self, number: int) -> np.ndarray:
        moment, situation = self._moments[number], self._situations[number]
        canvas = Image.new("RGB", (2 * CELL[0], CELL[1] + STRIP), BACKGROUND)
        panels = list(draw_views(moment, situation).items())
        if self._stage is not None:
            panels.insert(0, (legend_of(moment), self._stage.draw(moment, situation)))
        if self._map is not None:
            panels.append(("map, with both paths", self._map.draw(self._situations[: number + 1])))
        for (label, image), (x, y, width, height) in zip(panels, cells(len(panels)), strict=True):
            _paste(canvas, image, label, (x, y, width, height))
        _write_subtitle(canvas, self._row.instruction, moment, self._title)
        return np.asarray(canvas)


def every_tick(moments: Sequence[Moment]) -> Iterator[Moment]:
    """The moment to show at each 1/RATE of simulated time: a missing exposure is bridged by the previous one."""
    if not moments:
        return
    times = [moment.seconds for moment in moments]
    for tick in range(round((times[-1] - times[0]) * RATE) + 1):
        # The latest that began before the center of the tick; the first one always did.
        yield moments[bisect_left(times, times[0] + (tick + 0.5) / RATE) - 1]


def cells(count: int) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height [px] of the panels: the first in the left half, the others in a grid in the right.

    A grid that is not full is in the middle of its half.
    """
    width, height = CELL
    side = max(1, math.ceil(math.sqrt(count - 1)))
    small = (width // side, height // side)
    top = (height - math.ceil((count - 1) / side) * small[1]) // 2
    others = [(width + i % side * small[0], top + i // side * small[1], *small) for i in range(count - 1)]
    return [(0, 0, width, height), *others]


def draw_views(moment: Moment, situation: Situation) -> dict[str, np.ndarray]:
    """The image of each camera, by its caption, with the predicted paths where the camera's pose is known."""
    images = {}
    for number, (tag, message) in enumerate(moment.images.items()):
        image = to_rgb(message)
        scale = max(1.0, (CELL[0] if number == 0 else CELL[0] / 2) / image.shape[1])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        view = situation.views.get(tag)
        if view is not None:
            for points in situation.paths.values():
                draw_path(image, points, view)
        images[f"{tag}{', with the predicted path' if number == 0 and view else ''}"] = image
    return images


def draw_path(image: np.ndarray, points: np.ndarray, view: CameraView) -> None:
    """Draw points in the view's frame into an image of the camera, of any size, as the predicted path."""
    draw_line(image, view.project(points)[:, :2] * (image.shape[1] / view.width))


def draw_card(frame: np.ndarray, row: TaskRow) -> np.ndarray:
    """The end of an episode: its last frame, darkened, and the result."""
    canvas = Image.fromarray((frame * 0.35).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    center, middle = canvas.width // 2, CELL[1] // 2
    word, color = ("done", GOOD) if row.success else ("failed", BAD)
    draw.text((20, CELL[1] + 12), f"“{row.instruction}”", BRIGHT, _fitting(draw, row.instruction, canvas.width))
    draw.text((center, middle - 40), word, color, font(110), anchor="mm")
    latency = "" if row.latency_ms_p50 is None else f", {row.latency_ms_p50:.0f} ms per chunk"
    facts = f"{row.seconds:.1f} s, {row.chunks} chunks{latency}"
    if not row.success:
        why = f"{row.failure}, {row.ended}" if row.failure else row.ended
        facts = f"{why}; {facts}"
    draw.text((center, middle + 60), facts, BRIGHT, font(26), anchor="mm")
    return np.asarray(canvas)


def _paste(canvas: Image.Image, image: np.ndarray, label: str, cell: tuple[int, int, int, int]) -> None:
    """Fit an image into a cell and write its label below it."""
    x, y, width, height = cell
    scale = min(width / image.shape[1], height / image.shape[0])
    if scale != 1.0:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas.paste(Image.fromarray(image), (x + (width - image.shape[1]) // 2, y + (height - image.shape[0]) // 2))
    draw = ImageDraw.Draw(canvas)
    draw.text((x + 12, y + height - 28), label, BRIGHT, font(18), stroke_width=2, stroke_fill=BACKGROUND)


def legend_of(moment: Moment) -> str:
    """What the spectator's view shows."""
    style = REFUSED if moment.refusal else PREDICTED
    return f"from beside, with the {style.name}" if moment.paths else "from beside"


def _write_subtitle(canvas: Image.Image, instruction: str, moment: Moment, title: str) -> None:
    """Below the images: the instruction, and what the policy does or why its chunk was refused."""
    draw, top = ImageDraw.Draw(canvas), CELL[1]
    draw.text((20, top + 10), f"“{instruction}”", BRIGHT, _fitting(draw, instruction, canvas.width - TIME_WIDTH))
    said, color = (f"refused: {moment.refusal}", BAD) if moment.refusal else (moment.activity, DIM)
    room = canvas.width - 60 - font(18).getlength(title)
    draw.text((20, top + 50), shortened(said, 18, room), color, font(18))
    draw.text((canvas.width - 20, top + 10), f"{moment.seconds:.1f} s", BRIGHT, font(30), anchor="ra")
    draw.text((canvas.width - 20, top + 50), title, DIM, font(18), anchor="ra")


def _fitting(draw: ImageDraw.ImageDraw, instruction: str, width: int) -> Font:
    """The largest font in which a quoted instruction fits; the smallest where none does."""
    fonts = [font(size) for size in SIZES]
    return next((one for one in fonts if draw.textlength(f"“{instruction}”", one) < width - 40), fonts[-1])
