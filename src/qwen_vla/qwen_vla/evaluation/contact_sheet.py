# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of an evaluation: instruction, outcome and a few images of every episode."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from qwen_vla.evaluation.episode import Film
from qwen_vla.evaluation.partial_results import Played
from qwen_vla.evaluation.pictures import BACKGROUND, BRIGHT, DIM, font, shortened, verdict
from qwen_vla.evaluation.summary import MAKER, conditions_as_text, rate_as_text, seeds_as_text
from qwen_vla.output_files import complete_or_absent
from qwen_vla.output_paths import png_text

PICTURES = 5  # of an episode
WIDTH, STRIDE = 160, 163  # [px] width of an image; spacing of images
HEADER, LABEL, GAP = 44, 28, 12  # [px] heights of the title and of the line above an episode; space between episodes
TEXT, TITLE = 15, 20  # [px] font sizes
ONE_COLUMN = 6  # more episodes use two columns


def strip(film: Film, camera: str, count: int = PICTURES) -> tuple[bytes, ...]:
    """First, last and evenly spaced images of one camera, scaled down, as PNG files in memory."""
    chosen = np.unique(np.linspace(0, len(film.looks) - 1, count).round().astype(int))
    return tuple(_as_png(film.looks[index].images[camera]) for index in chosen)


def write_sheet(path: Path, title: str, episodes: Sequence[Played], maker: str = MAKER) -> None:
    """Draw the sheet of an evaluation whose episodes have images; maker: the command, as in `output_paths`."""
    about = PngImagePlugin.PngInfo()
    for key, text in png_text(maker).items():
        about.add_text(key, text)
    with complete_or_absent(path) as temporary:
        draw_sheet(title, episodes).save(temporary, "PNG", optimize=True, pnginfo=about)


def title_of(summary: Mapping[str, Any]) -> str:
    """What a sheet shows: suite, rate, seeds and conditions."""
    facts = (rate_as_text(summary), f"seeds {seeds_as_text(summary)}", conditions_as_text(summary))
    return f"{summary['suite']}: {'; '.join(facts)}".removesuffix("; –")


def draw_sheet(title: str, episodes: Sequence[Played]) -> Image.Image:
    """One block for each episode, in columns from top to bottom."""
    strips = [[Image.open(io.BytesIO(picture)) for picture in episode.pictures] for episode in episodes]
    columns = 1 if len(episodes) <= ONE_COLUMN else 2
    rows = -(-len(episodes) // columns)
    width = PICTURES * STRIDE
    height = LABEL + max(picture.height for pictures in strips for picture in pictures)
    size = (GAP + columns * (width + GAP), HEADER + rows * (height + GAP))
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 12), shortened(title, TITLE, size[0] - 2 * GAP), BRIGHT, font(TITLE))
    for number, (episode, pictures) in enumerate(zip(episodes, strips, strict=True)):
        left, top = GAP + number // rows * (width + GAP), HEADER + number % rows * (height + GAP)
        _draw_label(draw, left, top, width, episode)
        for place, picture in enumerate(pictures):
            sheet.paste(picture, (left + place * STRIDE, top + LABEL))
    return sheet


def _draw_label(draw: ImageDraw.ImageDraw, left: int, top: int, width: int, episode: Played) -> None:
    row = episode.row
    words, color = verdict(row)
    end = f"{words}, {row.seconds:.1f} s"
    draw.text((left + width, top + 5), end, color, font(TEXT), anchor="ra")
    draw.text((left, top + 5), str(row.seed), DIM, font(TEXT))
    begin = font(TEXT).getlength(f"{row.seed}  ")
    room = width - begin - font(TEXT).getlength(end) - GAP
    draw.text((left + begin, top + 5), shortened(f"“{row.instruction}”", TEXT, room), BRIGHT, font(TEXT))


def _as_png(image: np.ndarray) -> bytes:
    height = round(WIDTH * image.shape[0] / image.shape[1])
    shrinks = image.shape[1] > WIDTH
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    buffer = io.BytesIO()
    Image.fromarray(cv2.resize(image, (WIDTH, height), interpolation=method)).save(buffer, "PNG")
    return buffer.getvalue()
