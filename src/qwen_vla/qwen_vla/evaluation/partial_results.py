# SPDX-License-Identifier: Apache-2.0
"""Partial results of an evaluation, in a file beside its result, so that it can resume after an interruption."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pydantic import Base64Bytes, BaseModel, ValidationError

from qwen_vla.errors.validation_errors import as_text
from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla.output_files import disk_full_named, interrupted, write_text


@dataclass(frozen=True)
class Played:
    """An episode and, for a contact sheet, a few images of it (PNG files in memory)."""

    row: EpisodeRow
    pictures: tuple[bytes, ...] = ()


class EpisodeLine(BaseModel):
    """A line of the file."""

    row: EpisodeRow
    pictures: tuple[Base64Bytes, ...]


class PartialResults:
    """Finished episodes, by seed; without a path only in memory.

    The file has a line of conditions and a line per episode. Raises ValueError, naming the differences, if the file has
    episodes of other conditions or of another version of the checkpoint, or other content. A KeyboardInterrupt that
    leaves the file behind mentions it.
    """

    def __init__(self, result: Path | None, suite: str, checkpoint: Path | None, conditions: Mapping[str, Any]) -> None:
        self.path = part_of(result) if result else None
        self.played: dict[int, Played] = {}
        self._conditions = {"suite": suite, **conditions, "files": _versions(checkpoint)}
        self._file: TextIO | None = None

    def __enter__(self) -> PartialResults:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._read(self.path)
            self._rewrite(self.path)
            self._file = self.path.open("a", buffering=1)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exc) -> None:
        if self._file is None or self.path is None:
            return
        with disk_full_named(self.path):
            self._file.close()
        if not self.played:
            self.path.unlink()
        elif kind is KeyboardInterrupt:
            raise interrupted(self.path) from None

    def has(self, seed: int, pictures: bool) -> bool:
        """Whether an episode is finished; `pictures`: with the images of a contact sheet."""
        return seed in self.played and bool(self.played[seed].pictures or not pictures)

    def add(self, episode: Played) -> None:
        self.played[episode.row.seed] = episode
        if self._file is not None and self.path is not None:
            with disk_full_named(self.path):
                self._file.write(_to_line(episode))

    def _read(self, path: Path) -> None:
        lines = list(_complete_lines(path))
        if not _keeps_episodes(lines):
            raise ValueError(f"{path} is not an interrupted evaluation; move it, or write to another --json")
        if differing := _differing(lines[0], self._conditions):
            raise ValueError(
                f"{path} is an interrupted evaluation with another {', '.join(differing)}; finish it, "
                "remove the file, or write to another --json"
            )
        for number, line in enumerate(lines[1:], 2):
            try:
                episode = EpisodeLine.model_validate(line)
            except ValidationError as error:
                raise ValueError(
                    f"{path}, line {number}: {as_text(error, 'the line')}; remove the file to evaluate again"
                ) from error
            self.played[episode.row.seed] = Played(episode.row, episode.pictures)

    def _rewrite(self, path: Path) -> None:
        """Drop an incomplete last line of an interruption, to which the next one would be appended."""
        lines = [json.dumps(self._conditions) + "\n", *map(_to_line, self.played.values())]
        write_text(path, "".join(lines))


def part_of(result: Path) -> Path:
    """The file beside a result with its episodes until it is written."""
    return result.with_name(result.name + ".part")


def forget(result: Path) -> None:
    """Remove the partial results of a result that is now written."""
    path = part_of(result)
    if path.is_file() and _keeps_episodes(list(_complete_lines(path))):
        path.unlink()


def _keeps_episodes(lines: list[Any]) -> bool:
    return bool(lines) and isinstance(lines[0], dict) and {"suite", "files"} <= lines[0].keys()


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))


def _to_line(episode: Played) -> str:
    pictures = [base64.b64encode(picture).decode() for picture in episode.pictures]
    return json.dumps({"row": asdict(episode.row), "pictures": pictures}) + "\n"


def _complete_lines(path: Path) -> Iterator[dict]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            return


def _versions(checkpoint: Path | None) -> list[list]:
    """Sizes and modification times of a checkpoint's files, which change with further training."""
    if checkpoint is None:
        return []
    files = sorted(path for path in checkpoint.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
