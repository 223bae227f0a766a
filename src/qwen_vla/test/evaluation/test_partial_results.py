# SPDX-License-Identifier: Apache-2.0
"""Episodes of an interrupted evaluation: kept one by one, mended after a cut, and never mixed with others."""

import pytest

from qwen_vla.evaluation.partial_results import PartialResults, Played, part_of
from qwen_vla.evaluation.summary import EpisodeRow

CONDITIONS = {"shift": None, "blind": False}


def played(seed, *pictures):
    return Played(
        EpisodeRow(seed, "lift", "red", True, 3, 0, 4.8, 0.02, "success", 50.0, "pick", "", {"spl": 0.5}), pictures
    )


@pytest.fixture
def folder(tmp_path):
    """A checkpoint, as far as its files are looked at."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    return tmp_path


def keep(folder, *episodes, **conditions):
    """Seeds that are kept after adding episodes."""
    with PartialResults(folder / "e.json", "widowx", folder / "model", CONDITIONS | conditions) as kept:
        for episode in episodes:
            kept.add(episode)
        return kept.played


def test_what_was_played_is_there_again(folder):
    keep(folder, played(7), played(9, b"\x89PNG", b"\x00"))
    assert keep(folder) == {7: played(7), 9: played(9, b"\x89PNG", b"\x00")}


def test_an_episode_without_the_pictures_that_are_wanted_counts_as_missing(folder):
    with PartialResults(None, "widowx", folder / "model", CONDITIONS) as kept:
        kept.add(played(7))
        kept.add(played(8, b"png"))
    assert kept.has(7, pictures=False) and not kept.has(7, pictures=True) and kept.has(8, pictures=True)
    assert not kept.has(9, pictures=False)


def test_a_line_that_was_cut_short_is_played_again(folder):
    keep(folder, played(7), played(8))
    part = part_of(folder / "e.json")
    part.write_text(part.read_text()[:-20])
    assert keep(folder, played(9)).keys() == {7, 9}
    assert keep(folder).keys() == {7, 9}, "the next line was not appended to the cut one"


def test_other_conditions_are_refused_and_named(folder):
    keep(folder, played(7))
    with pytest.raises(ValueError, match="another blind, shift; finish it, remove the file, or"):
        keep(folder, shift="colour", blind=True)
    (folder / "model/model.safetensors").write_bytes(b"trained on")
    with pytest.raises(ValueError, match="another files"):
        keep(folder)


@pytest.mark.parametrize("content", [b"", b"half a download\n", b"[1, 2]\n", b'{"suite": "widowx"}\n', b"\xff\xfe\x00"])
def test_a_file_of_somebody_else_is_in_the_way_and_stays(folder, content):
    part = part_of(folder / "e.json")
    part.write_bytes(content)
    with pytest.raises(ValueError, match="e.json.part is not an interrupted evaluation; move it"):
        keep(folder, played(7))
    assert part.read_bytes() == content


def test_nothing_played_leaves_nothing(folder):
    keep(folder)
    assert [path.name for path in folder.iterdir()] == ["model"]


@pytest.mark.parametrize("line", ['{"row": 7, "pictures": []}', '{"row": {"seed": "x"}, "pictures": []}', "[]"])
def test_a_line_of_something_else_is_named(folder, line):
    keep(folder, played(7))
    part = part_of(folder / "e.json")
    part.write_text(part.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"e.json.part, line 3: .*; remove the file to evaluate again"):
        keep(folder)
