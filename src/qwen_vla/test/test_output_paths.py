# SPDX-License-Identifier: Apache-2.0
"""Where a command may write: never over what it did not make, nor into places that hold other things than results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from qwen_vla.evaluation.page import page
from qwen_vla.output_files import temporary_name, write_json
from qwen_vla.output_paths import (
    Marker,
    OutputRefused,
    check_files,
    check_folder,
    check_place,
    claim_folder,
    in_markdown,
    is_made_by,
    plain_marker,
    png_text,
    with_maker,
)
from qwen_vla.video_files import write_gif, write_mp4

EVALUATE, REPORT = "qwen-vla evaluate", "qwen-vla report"
RUN = Marker("recipe.json", frozenset({"stage", "steps"}), "train")
FRAMES = [np.zeros((32, 32, 3), np.uint8)] * 3


def check_file(path: Path, maker: str = EVALUATE, overwrite: bool = False) -> None:
    check_files(maker, overwrite, {"--json": path})


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working folder of a user whose home is above it; `out` is a link to another disk, as it often is."""
    home = tmp_path / "home"
    working = home / "project"
    for folder in (working / ".git", working / "src", tmp_path / "disk", working / "data/old"):
        folder.mkdir(parents=True)
    (working / "src/main.py").write_text("sources")
    (working / "notes.txt").write_text("mine")
    (working / "out").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(working)
    return working


# Folders --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["out/run", "out/run/", "new", "new/deep/er", "data/old", "../other", "./x/../y"])
def test_new_and_empty_folders_are_taken(here, path):
    assert check_folder(Path(path), RUN) is None
    assert not Path(path).exists() or not any(Path(path).iterdir()), "looking changes nothing"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".", "is the working folder"),
        ("src/..", "is the working folder"),
        ("..", "is the home folder"),
        ("../..", "contains the home folder"),
        ("/", "contains the home folder"),
        ("src", "is not empty and was not made by train; choose another folder"),
        ("notes.txt", "cannot be created: .*/notes.txt is a file"),
        ("notes.txt/run", "cannot be created: .*/notes.txt is a file"),
        ("/etc", "is in a system folder"),
        ("/etc/run", "is in a system folder"),
        ("/proc/self/run", "is in a system folder"),
        ("/usr/lib/run", "is in a system folder"),
        ("/dev/null", "is in a system folder"),
        ("/tmp", "contains the home folder|is a system folder"),
        ("/media", "is a system folder"),
        ("x" * 300, "cannot be written: File name too long"),
        ("a\0b", "cannot be written: .*null"),
    ],
)
def test_other_folders_are_refused_with_the_reason(here, path, reason):
    with pytest.raises(OutputRefused, match=reason) as refused:
        check_folder(Path(path), RUN)
    assert "\n" not in str(refused.value) and str(refused.value).startswith(str(Path(path)))


def test_a_repository_is_no_output(here, tmp_path):
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    with pytest.raises(OutputRefused, match="is the top of a git repository and was not made by train"):
        check_folder(repository, RUN)


@pytest.mark.parametrize("place", ["/dev/shm/qwen_vla_run", "/run/user/0/qwen_vla_run", "/var/tmp/qwen_vla_run"])
def test_what_lies_below_the_system_but_is_the_users_is_taken(here, place):
    if os.access(Path(place).parent, os.W_OK):
        check_place(Path(place))


def test_a_folder_with_the_commands_own_file_is_taken_with_whatever_else_is_in_it(here):
    write_json(Path("out/run/recipe.json"), {"stage": "sft", "steps": 3})
    Path("out/run/notes.txt").write_text("mine")
    assert check_folder(Path("out/run"), RUN) == {"stage": "sft", "steps": 3}


def test_a_claimed_folder_is_its_makers_alone(here):
    claim_folder(Path("out/videos"), plain_marker(EVALUATE))
    Path("out/videos/success.mp4").write_bytes(b"video")
    claim_folder(Path("out/videos"), plain_marker(EVALUATE))
    with pytest.raises(OutputRefused, match="out/videos is not empty and was not made by qwen-vla report"):
        claim_folder(Path("out/videos"), plain_marker(REPORT))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"stage": "sft"}', '{"flour": 500, "eggs": 3}'])
def test_a_file_that_only_has_the_name_of_the_commands_own_does_not_count(here, content):
    Path("cakes").mkdir()
    Path("cakes/recipe.json").write_text(content)
    with pytest.raises(OutputRefused, match="cakes is not empty and was not made by train"):
        check_folder(Path("cakes"), RUN)


def test_what_a_killed_process_began_does_not_fill_a_folder(here):
    Path("run").mkdir()
    Path("run", temporary_name(Path("recipe.json"))).write_text("half")
    assert check_folder(Path("run"), RUN) is None


def test_links_in_a_circle_are_refused(here):
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    with pytest.raises(OutputRefused, match="^a(/run)? "):
        check_folder(Path("a/run"), RUN)


STEPS = st.lists(
    st.sampled_from(["..", ".", "src", "out", "data", "old", "run", "project", "home", "disk"]), max_size=6
)


@given(steps=STEPS, absolute=st.booleans(), slash=st.sampled_from(["", "/", "/."]))
def test_a_folder_is_judged_by_what_it_is_however_it_is_called(tmp_path_factory, steps, absolute, slash):
    """The answer is the same for every spelling, and no folder is taken that holds anything of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        working = here.__wrapped__(tmp_path_factory.mktemp("user"), patch)
        spelled = "/".join([*([str(working)] if absolute else []), *steps]) + slash
        path = Path(spelled.removeprefix("/") if not absolute and spelled.startswith("/") else spelled or ".")
        plain = Path(os.path.realpath(path))
        answers = []
        for spelling in (path, plain):
            try:
                check_folder(spelling, RUN)
                answers.append("")
            except OutputRefused as refused:
                answers.append(str(refused).removeprefix(str(spelling)))
        assert answers[0] == answers[1]
        holds = plain in (working, *working.parents)
        if not answers[0]:
            assert not holds and (not plain.exists() or (plain.is_dir() and not any(plain.iterdir())))
        if holds or (plain.exists() and not (plain.is_dir() and not any(plain.iterdir()))):
            assert answers[0]


# Files ----------------------------------------------------------------------------------------------------------------


def write_page(path):
    path.write_text(page("Evaluation", ["<p>words</p>"], EVALUATE))


def write_sheet(path):
    from test_pictures import FAILURE, film

    from qwen_vla.evaluation import contact_sheet
    from qwen_vla.evaluation.partial_results import Played

    pictures = contact_sheet.strip(film(0.0), "ego")
    contact_sheet.write_sheet(path, "title", [Played(FAILURE, pictures)])


WRITERS = {
    "JSON": lambda path: write_json(path, with_maker(EVALUATE, {"rows": [1] * 1000})),
    "Markdown": lambda path: path.write_text(in_markdown(EVALUATE, "# Results\n")),
    "HTML": write_page,
    "sheet": write_sheet,
    "figure": lambda path: Figure().savefig(path, format="png", metadata=png_text(EVALUATE)),
    "video": lambda path: write_mp4(path, FRAMES, 10, EVALUATE),
    "GIF": lambda path: write_gif(path, FRAMES, 10, 100_000, EVALUATE),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_result_says_who_made_it_and_only_that_command_replaces_it(here, kind):
    path = Path("out/result")
    WRITERS[kind](path)
    check_file(path, EVALUATE)
    for other in (REPORT, "qwen-vla eval", "qwen-vla evaluates"):
        with pytest.raises(OutputRefused, match="out/result was not made by qwen-vla [a-z]+; .*--overwrite"):
            check_file(path, other)
        check_file(path, other, overwrite=True)


def test_the_pictures_are_still_pictures(here):
    for kind, name in (("sheet", "a.png"), ("GIF", "a.gif"), ("figure", "b.png")):
        WRITERS[kind](Path(name))
        Image.open(name).load()
    WRITERS["video"](Path("a.mp4"))
    with av.open("a.mp4") as container:
        assert len(list(container.decode(video=0))) == len(FRAMES)


@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_a_file_of_anybody_else_is_refused_and_stays(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("user") / "result.json"
    path.write_bytes(content)
    with pytest.raises(OutputRefused, match="result.json was not made by"):
        check_file(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        "I ran qwen-vla evaluate, then qwen-vla report.",
        json.dumps({"suite": "widowx", "episodes": 50, "rows": []}),
        json.dumps({"generator": "qwen-vla report"}),
        "x" * 2_000_000 + "generator: qwen-vla evaluate",
    ],
)
def test_words_about_the_command_do_not_make_a_file_its_own(here, content):
    Path("notes.txt").write_text(content)
    assert not is_made_by(Path("notes.txt"), EVALUATE)


@pytest.mark.parametrize("path", ["out/e.json", "new/deep/e.json", "e.json", "../e.json", "/tmp/qwen_vla_e.json"])
def test_new_files_are_taken(here, path):
    check_file(Path(path))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("src", "is a folder; name a file"),
        (".", "is a folder; name a file"),
        ("out", "is a folder; name a file"),
        ("notes.txt/e.json", "cannot be created: .*/notes.txt is a file"),
        ("/etc/e.json", "is in a system folder"),
        ("/dev/null", "is in a system folder"),
        ("pipe", "is not a regular file"),
        ("x" * 240, "cannot be written: File name too long"),
    ],
)
def test_what_is_no_place_for_a_file_is_refused_with_the_reason(here, path, reason):
    os.mkfifo("pipe")
    for overwrite in (False, True):
        with pytest.raises(OutputRefused, match=reason):
            check_file(Path(path), overwrite=overwrite)


def test_a_path_from_a_folder_that_is_gone_is_refused(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OutputRefused, match="cannot be written: No such file"):
        check_file(Path("result.json"), overwrite=False)


def test_a_link_is_judged_by_what_it_points_to(here):
    Path("mine.json").symlink_to("notes.txt")
    with pytest.raises(OutputRefused, match="mine.json was not made by"):
        check_file(Path("mine.json"))
    Path("new.json").symlink_to("out/new.json")
    check_file(Path("new.json"))


def test_two_results_need_two_files(here):
    with pytest.raises(
        OutputRefused, match="--json and --markdown are the same file, src/../out/e; name a different file for each"
    ):
        check_files(EVALUATE, False, {"--json": Path("out/e"), "--sheet": None, "--markdown": Path("src/../out/e")})


# Permissions ----------------------------------------------------------------------------------------------------------

AS_NOBODY = """
import os, sys
from pathlib import Path
from qwen_vla.output_paths import OutputRefused, check_files, check_place
if os.getuid() == 0:  # nothing is write-protected for root
    os.setgid(65534), os.setuid(65534)
for check in (lambda: check_place(Path("locked/run")), lambda: check_place(Path("closed/deep/run")),
              lambda: check_files("x", True, {"--json": Path("locked/e.json")}),
              lambda: check_files("x", True, {"--json": Path("kept.json")})):
    try:
        check()
        print("taken")
    except OutputRefused as refused:
        print(refused)
"""


def test_what_is_write_protected_is_said_before_any_work(here, tmp_path):
    locked, closed, kept = here / "locked", here / "closed", here / "kept.json"
    for folder in (locked, closed / "deep"):
        folder.mkdir(parents=True)
    kept.write_text("{}")
    for path, mode in ((locked, 0o555), (closed, 0o000), (kept, 0o444)):
        path.chmod(mode)
    open_up(tmp_path)
    here.chmod(0o777)
    try:
        done = subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=here, capture_output=True, text=True, timeout=60)
    finally:
        closed.chmod(0o755)
    assert not done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("locked/run cannot be written: ") and "locked is write-protected for you" in said[0]
    assert said[1].startswith("closed/deep/run cannot be written: ") and "closed is write-protected" in said[1]
    assert said[2].startswith("locked/e.json cannot be written: ")
    assert said[3].startswith("kept.json is write-protected for you; name another file")


def open_up(folder: Path) -> None:
    """Let everybody pass through the folders of pytest's that lead to one."""
    for path in (folder, *folder.parents):
        if "pytest" in str(path):
            path.chmod(path.stat().st_mode | 0o055)
