# SPDX-License-Identifier: Apache-2.0
"""The clips in docs/media are what scripts/clips.py says: short and small, of validation scenes, and described."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from qwen_vla.suites import load_suite

ROOT = Path(__file__).resolve().parents[1]
MEDIA = ROOT / "docs/media"
PAGES = ("README.md", "docs/index.md", "docs/explanation/why_a_gate.md")

sys.path.insert(0, str(ROOT / "scripts"))
import clips  # noqa: E402


def duration(path: Path) -> float:
    """[s] of a GIF."""
    with Image.open(path) as gif:
        return sum((gif.seek(number), gif.info["duration"])[1] for number in range(gif.n_frames)) / 1000


def test_there_is_a_clip_for_every_file_and_a_file_for_every_clip():
    assert {path.stem for path in MEDIA.glob("*.gif")} == set(clips.CLIPS)


@pytest.mark.parametrize("name", clips.CLIPS)
def test_a_clip_is_short_small_and_of_its_scene(name):
    clip, path = clips.CLIPS[name], MEDIA / f"{name}.gif"
    assert 9000 <= clip.seed < 10000
    assert path.stat().st_size < clips.LIMIT and 4 < duration(path) < 14
    assert f"{clips.MAKER} ({clip.suite}, seed {clip.seed}, weights " in clips.origin(path)


def test_a_clip_that_is_there_is_not_made_again(tmp_path, capsys):
    name = "widowx"
    path = tmp_path / f"{name}.gif"
    images = [Image.new("L", (4, 4), shade) for shade in (0, 255)]
    comment = f"generator: {clips.maker_of(clips.CLIPS[name])};".encode()
    images[0].save(path, save_all=True, append_images=images[1:], comment=comment)
    before = path.read_bytes()
    clips.main((name,), out=tmp_path)
    assert path.read_bytes() == before and "up to date" in capsys.readouterr().out


def test_an_unknown_clip_is_named():
    with pytest.raises(SystemExit, match="walking: unknown; there are widowx"):
        clips.main(("walking",))


def test_every_clip_is_shown_with_a_text_for_those_who_do_not_see_it():
    shown = {}
    for page in PAGES:
        for text, name in re.findall(r"!\[([^\]]*)\]\([^)]*media/(\w+)\.gif\)", (ROOT / page).read_text()):
            assert len(text) > 15, (page, name)
            shown.setdefault(name, []).append(page)
    assert set(shown) == set(clips.CLIPS)


@pytest.mark.slow
def test_a_clip_is_made_from_an_episode():
    shots, row = clips.record(clips.CLIPS["widowx"])
    assert row.seed == clips.CLIPS["widowx"].seed and shots[0].seconds == 0.0
    assert shots[0].view.shape == (*clips.VIEW, 3) and any(len(shot.paths) for shot in shots)
    assert load_suite("widowx").max_steps >= len(shots)
