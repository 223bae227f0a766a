# SPDX-License-Identifier: Apache-2.0
"""Videos of evaluated episodes: camera images, instruction, time, refused chunks, and outcome."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from qwen_vla.evaluation.episode import Film, Look
from qwen_vla.evaluation.pictures import BACKGROUND, BAD, BRIGHT, DIM, font, shortened, tiled, verdict
from qwen_vla.evaluation.summary import MAKER, EpisodeRow
from qwen_vla.video_files import write_mp4

FRAME_PERIOD = 0.1  # [s] between frames, at least: a robot at 50 Hz is recorded at 10 Hz, one at 5 Hz at its own rate
CARD_SECONDS = 2.0
HEADER, MARGIN = 64, 12  # [px] height of the header above the images; margin of its text
CAMERA_HEIGHT = 320  # [px]


def frame_step(period: float) -> int:
    """Control steps between two frames of a suite whose steps take `period` [s]."""
    return max(1, round(FRAME_PERIOD / period))


def write_video(folder: Path, film: Film, row: EpisodeRow, period: float, maker: str = MAKER) -> Path:
    """Write an episode as MP4 in real time, named by its category.

    period: as for `frame_step`; maker: the command, as in `output_paths`.
    """
    path = folder / f"{re.sub(r'[^a-z0-9]+', '_', row.category.lower()).strip('_')}.mp4"
    step = frame_step(period) * period
    write_mp4(path, frames(film, row, step), Fraction(1 / step).limit_denominator(1000), maker)
    return path


def frames(film: Film, row: EpisodeRow, step: float) -> Iterator[np.ndarray]:
    """H×W×3 uint8 RGB frames, one for every `step` seconds of the episode, then a card with its outcome."""
    frame = None
    for look in _every(film, step):
        frame = _draw(look, row)
        yield frame
    if frame is not None:
        yield from [_card(frame, row)] * max(1, round(CARD_SECONDS / step))


def _every(film: Film, step: float) -> Iterator[Look]:
    """The latest look at each multiple of `step`; there may be several at one time, or some in between."""
    looks = {round(look.seconds / step): look for look in film.looks if look.images}
    latest = None
    for tick in range(max(looks) + 1):
        latest = looks.get(tick, latest)
        if latest is not None:
            yield latest


def _draw(look: Look, row: EpisodeRow) -> np.ndarray:
    views = tiled(look.images, CAMERA_HEIGHT)
    canvas = Image.new("RGB", (views.shape[1], views.shape[0] + HEADER), BACKGROUND)
    canvas.paste(Image.fromarray(views), (0, HEADER))
    draw = ImageDraw.Draw(canvas)
    clock = f"{look.seconds:.1f} s"
    room = canvas.width - 3 * MARGIN - font(22).getlength(clock)
    draw.text((MARGIN, 8), shortened(f"“{row.instruction}”", 22, room), BRIGHT, font(22))
    draw.text((canvas.width - MARGIN, 8), clock, BRIGHT, font(22), anchor="ra")
    scene = f"{row.task}, seed {row.seed}"
    draw.text((canvas.width - MARGIN, 40), scene, DIM, font(14), anchor="ra")
    room = canvas.width - 3 * MARGIN - font(14).getlength(scene)
    draw.text((MARGIN, 40), shortened(look.remark, 14, room), BAD, font(14))
    return np.asarray(canvas)


def _card(frame: np.ndarray, row: EpisodeRow) -> np.ndarray:
    """The last frame, darkened, with the outcome."""
    canvas = Image.fromarray((frame * 0.35).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    words, color = verdict(row)
    size = min(48, int(48 * (canvas.width - 8 * MARGIN) / font(48).getlength(words)))
    center, middle = canvas.width // 2, (canvas.height + HEADER) // 2
    draw.text((MARGIN, 8), shortened(f"“{row.instruction}”", 22, canvas.width - 2 * MARGIN), BRIGHT, font(22))
    draw.text((center, middle - 20), words, color, font(size), anchor="mm")
    facts = f"{row.seconds:.1f} s, {row.chunks} chunks, {row.refused} refused, {row.distance:.2f} m left"
    draw.text((center, middle + 40), facts, BRIGHT, font(18), anchor="mm")
    return np.asarray(canvas)
