# SPDX-License-Identifier: Apache-2.0
"""Draws a clip: what a spectator sees, with the paths of chunks, what the robot sees, a subtitle and a legend.

Sizes are for a page that shows clips at half their width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from qwen_vla.evaluation.pictures import BACKGROUND, BRIGHT, DIM, font
from qwen_vla_ros.simulation.demo.paths import EDGE, PREDICTED, REFUSED, PathStyle, draw_line

VIEW = (450, 600)  # [px] height and width of the spectator's view
INSET = 170  # [px] width of the robot's own view, in a corner of it
MARGIN, FRAME = 16, 3  # [px] around text; of the frame around the robot's own view
SUBTITLE, LINE, SMALL = 28, 36, 22  # [px] size of the subtitle and distance of its lines; size of other text
TITLE, CAMERA = 30, "robot's camera"  # [px] height of the title of the robot's own view
LEGEND_LINE = 44  # [px] length of the lines in the legend
AT_THE_END = 2.0  # [s] for which the last frame stays
DONE, FAILED = "done", "failed"
REFUSAL = (255, 170, 90)  # of a subtitle that says why a chunk was refused


@dataclass(frozen=True)
class Shot:
    """One moment of an episode.

    Attributes:
        view: what the spectator sees, VIEW by 3, uint8 RGB.
        own: what the robot sees, (H, W, 3) uint8 RGB.
        seconds: simulated time since the start of the episode.
        paths: (N, 2) pixels in `view` of the path of the latest chunk, of each arm or of the base.
        reason: why that chunk was refused; empty if it was accepted.
    """

    view: np.ndarray
    own: np.ndarray
    seconds: float
    paths: Sequence[np.ndarray]
    reason: str = ""


def draw_clip(shots: Sequence[Shot], instruction: str, success: bool | None, speed: float) -> Iterator[np.ndarray]:
    """A frame for each shot: H×W×3 uint8 RGB, all of one size.

    success: of the episode, said on the last frame; None says nothing.
    speed: simulated seconds per second of the clip, shown unless it is 1.
    """
    subtitles = [subtitle_of(shot, instruction) for shot in shots]
    rows = max(len(wrapped(text, SUBTITLE, VIEW[1] - 2 * MARGIN)) for text in subtitles)
    styles = [PREDICTED, *([REFUSED] if any(shot.reason for shot in shots) else [])]
    ending = {True: f", {DONE}", False: f", {FAILED}", None: ""}[success]
    for number, (shot, subtitle) in enumerate(zip(shots, subtitles, strict=True), 1):
        pace = ("" if speed == 1 else f"{speed:g}x speed") + (ending if number == len(shots) else "")
        yield _frame(shot, subtitle, rows, styles, pace.removeprefix(", "))


def subtitle_of(shot: Shot, instruction: str) -> str:
    """The instruction, or why the gate refused the chunk."""
    return f"refused: {shot.reason}" if shot.reason else f"“{instruction}”"


def wrapped(text: str, size: int, width: float) -> list[str]:
    """The text in lines of at most `width` [px] at a font size; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _frame(shot: Shot, subtitle: str, rows: int, styles: Sequence[PathStyle], pace: str) -> np.ndarray:
    height, width = VIEW
    canvas = Image.new("RGB", (width, height + (rows * LINE + SMALL + 3 * MARGIN) // 2 * 2), BACKGROUND)
    view = shot.view.copy()
    for path in shot.paths:
        draw_line(view, path, REFUSED if shot.reason else PREDICTED)
    _paste_inset(view, shot.own)
    canvas.paste(Image.fromarray(view), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(wrapped(subtitle, SUBTITLE, width - 2 * MARGIN)):
        color = REFUSAL if shot.reason else BRIGHT
        draw.text((MARGIN, height + MARGIN // 2 + row * LINE), line, color, font(SUBTITLE))
    base = canvas.height - MARGIN
    draw.text((width - MARGIN, base), pace, BRIGHT, font(SMALL), anchor="rs")
    return _with_legend(canvas, styles, base)


def _paste_inset(view: np.ndarray, own: np.ndarray) -> None:
    """Put the robot's own image, framed and named, into the lower right corner of the view."""
    height = round(INSET * own.shape[0] / own.shape[1])
    small = cv2.resize(own, (INSET, height), interpolation=cv2.INTER_AREA)
    titled = Image.new("RGB", (INSET + 2 * FRAME, height + TITLE + FRAME), EDGE)
    titled.paste(Image.fromarray(small), (FRAME, TITLE))
    ImageDraw.Draw(titled).text((titled.width // 2, TITLE // 2), CAMERA, BACKGROUND, font(SMALL), anchor="mm")
    bottom, right = view.shape[0] - MARGIN + FRAME, view.shape[1] - MARGIN + FRAME
    view[bottom - titled.height : bottom, right - titled.width : right] = np.asarray(titled)


def _with_legend(canvas: Image.Image, styles: Sequence[PathStyle], base: int) -> np.ndarray:
    """Explain the lines, above `base` [px], from the left."""
    draw, left, middle = ImageDraw.Draw(canvas), MARGIN, base - SMALL // 3
    samples = []
    for style in styles:
        samples.append((np.array([[left, middle], [left + LEGEND_LINE, middle]], float), style))
        draw.text((left + LEGEND_LINE + 18, base), style.name, DIM, font(SMALL), anchor="ls")
        left += LEGEND_LINE + 36 + int(font(SMALL).getlength(style.name))
    image = np.array(canvas)
    for places, style in samples:
        draw_line(image, places, style)
    return image
