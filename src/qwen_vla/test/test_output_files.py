# SPDX-License-Identifier: Apache-2.0
"""Results are complete or absent, files of others are kept, and a full disk is reported in one sentence."""

import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

from qwen_vla import output_files
from qwen_vla.output_files import (
    DiskFull,
    complete_or_absent,
    disk_full_named,
    folder_complete_or_absent,
    is_temporary,
    write_json,
    write_text,
)

NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# One file -------------------------------------------------------------------------------------------------------------


def test_a_file_is_complete_or_as_it_was(tmp_path):
    path = tmp_path / "folder" / "summary.json"
    write_json(path, {"successes": 2})
    with pytest.raises(ZeroDivisionError):
        with complete_or_absent(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"latency": float("nan")})
    assert names(path.parent) == ["summary.json"]
    assert path.read_text() == '{\n  "successes": 2\n}\n'


def test_a_link_keeps_pointing_where_it_does(tmp_path):
    disk, link = tmp_path / "big_disk", tmp_path / "result.json"
    disk.mkdir()
    link.symlink_to(disk / "result.json")
    for value in (1, 2):
        write_json(link, value)
    assert link.is_symlink() and (disk / "result.json").read_text() == "2\n" and names(disk) == ["result.json"]


def test_what_a_killed_process_left_goes_and_what_a_running_one_writes_stays(tmp_path):
    path = tmp_path / "state.pt"
    program = (
        "import os, sys; from pathlib import Path; from qwen_vla.output_files import complete_or_absent\n"
        "with complete_or_absent(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print('written', flush=True); sys.stdin.read()\n"
    )
    start = [sys.executable, "-c", program, path]
    with subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout.readline() == "written\n"
        write_text(path, "whole")
        (left,) = set(names(tmp_path)) - {"state.pt"}
        assert is_temporary(tmp_path / left)
        writing.kill()
    mine = tmp_path / "state.pt.tmp"
    mine.write_text("of somebody else")
    write_text(path, "whole again")
    assert names(tmp_path) == ["state.pt", "state.pt.tmp"] and path.read_text() == "whole again"


# A folder -------------------------------------------------------------------------------------------------------------


def written_before(folder: Path) -> set[str] | None:
    """What the tests' own folders list in `ours`."""
    return set((folder / "ours").read_text().split()) if (folder / "ours").is_file() else None


def write_folder(folder: Path, **files: str) -> None:
    with folder_complete_or_absent(folder, written_before) as temporary:
        for name, text in files.items():
            (temporary / name).write_text(text)
        (temporary / "ours").write_text(" ".join([*files, "ours"]))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


OURS, THEIRS = st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from(["notes.md", "eval.json", "a.txt", "g"]))


@given(first=OURS, second=OURS, theirs=THEIRS)
def test_a_new_version_replaces_what_was_ours_and_nothing_else(tmp_path_factory, first, second, theirs):
    folder = tmp_path_factory.mktemp("out") / "model"
    write_folder(folder, **dict.fromkeys(first, "1"))
    for name in theirs:
        (folder / name).write_text("theirs")
    write_folder(folder, **dict.fromkeys(second, "2"))
    found = contents(folder)
    assert found.pop("ours").split() == [*dict.fromkeys(second), "ours"]
    assert found == dict.fromkeys(second, "2") | dict.fromkeys(theirs, "theirs")
    assert names(folder.parent) == ["model"]


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="model is not one of ours and was left unchanged; move it away"):
        write_folder(tmp_path / "model", weights="1")
    assert contents(tmp_path / "model") == {"thesis.txt": "years of work"} and names(tmp_path) == ["model"]


def test_an_interrupted_folder_leaves_the_one_before(tmp_path):
    write_folder(tmp_path / "model", weights="1")
    with pytest.raises(KeyboardInterrupt):
        with folder_complete_or_absent(tmp_path / "model", written_before) as temporary:
            (temporary / "weights").write_text("2")
            raise KeyboardInterrupt
    assert contents(tmp_path / "model")["weights"] == "1" and names(tmp_path) == ["model"]


def test_a_linked_folder_is_replaced_where_it_is(tmp_path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "big_disk/model")
    for version in "12":
        write_folder(tmp_path / "model", weights=version)
    assert (tmp_path / "model").is_symlink() and contents(tmp_path / "big_disk/model")["weights"] == "2"


# A full disk ----------------------------------------------------------------------------------------------------------


def write_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(100_000)}, file)


def write_parquet(path: Path) -> None:
    table = pa.table({"a": np.arange(100_000)})
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)


def write_video(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", 10, options={"crf": "1"})
        stream.width = stream.height = 200
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(NOISE, format="rgb24")))
        container.mux(stream.encode())


WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": write_torch,
    "safetensors": lambda path: save_file({"a": torch.zeros(100_000)}, path),
    "parquet": write_parquet,
    "video": write_video,
    "PNG": lambda path: Image.fromarray(NOISE).save(path, "PNG"),
    "GIF": lambda path: Image.fromarray(NOISE).save(path, "GIF"),
    "figure": lambda path: Figure(figsize=(20, 20)).savefig(path, format="png", dpi=200),
}


@pytest.fixture
def full_disk(monkeypatch):
    """Has all that is written end in the device that is always full; the kernel answers ENOSPC, as for a disk."""
    make = output_files._temporary

    def in_full(path: Path) -> Path:
        temporary = make(path)
        temporary.symlink_to("/dev/full")
        return temporary

    monkeypatch.setattr(output_files, "_temporary", in_full)


@pytest.mark.parametrize(
    "kind", sorted(WRITERS.keys() - {"safetensors"})
)  # which replaces the link by a file of its own
def test_whatever_writes_a_full_disk_is_named_with_what_is_free(tmp_path, full_disk, kind):
    path = tmp_path / "result"
    path.write_text("before")
    with pytest.raises(DiskFull) as full:
        with complete_or_absent(path) as temporary:
            WRITERS[kind](temporary)
    said = str(full.value)
    assert re.fullmatch(
        rf"{path} does not fit on its disk \([\d.]+ \wB free\); make room, then run the same command again",
        said,
    )
    assert names(tmp_path) == ["result"] and path.read_text() == "before"


@pytest.fixture
def no_large_files():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_limit_of_the_size_of_files_is_named(tmp_path, no_large_files, kind):
    with pytest.raises(
        DiskFull, match=r"result is larger than its file system or `ulimit -f` allows \(.*raise the lim"
    ):
        with complete_or_absent(tmp_path / "result") as temporary:
            WRITERS[kind](temporary)
    assert names(tmp_path) == []


def test_a_folder_without_room_is_named_itself_and_leaves_nothing(tmp_path, no_large_files):
    with pytest.raises(DiskFull, match="model is larger than"):
        with folder_complete_or_absent(tmp_path / "model", written_before) as temporary:
            write_text(temporary / "config.json", "small enough")
            WRITERS["safetensors"](temporary / "model.safetensors")
    assert names(tmp_path) == []


def test_a_quota_is_named():
    with pytest.raises(DiskFull, match=r"log.jsonl does not fit into your disk quota \("):
        with disk_full_named(Path("log.jsonl")):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ValueError("no"), RuntimeError("os error 28 of ours")])
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as raised:
        with disk_full_named(Path("log.jsonl")):
            raise error
    assert raised.value is error
