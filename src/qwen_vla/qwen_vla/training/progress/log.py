# SPDX-License-Identifier: Apache-2.0
"""The log of a run: rows of numbers in log.jsonl, in TensorBoard, and in the progress bar."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from qwen_vla.output_files import disk_full_named, write_text

LOG_FILE = "log.jsonl"
BOARD_FOLDER = "tensorboard"
_ROW = TypeAdapter(dict[str, float])


class Log:
    """Writes rows as a stream; inactive in processes other than the main one."""

    def __init__(self, folder: Path, name: str, step: int, last: int, enabled: bool) -> None:
        self.enabled = enabled
        self.bar = tqdm(total=last, initial=step, desc=name, unit="step", mininterval=2.0, disable=not enabled)
        if enabled:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            self._path = folder / LOG_FILE
            self._file = self._path.open("a", buffering=1)
            self._board = SummaryWriter(str(folder / BOARD_FOLDER), purge_step=step + 1)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_exc) -> None:
        self.bar.close()
        if self.enabled:
            with disk_full_named(self._path):
                self._file.close()
            with disk_full_named(self._path.parent / BOARD_FOLDER):
                self._board.close()

    def write(self, row: dict[str, float]) -> None:
        """Write one row, including `step`."""
        if not self.enabled:
            return
        with disk_full_named(self._path):
            self._file.write(json.dumps(row) + "\n")
        with disk_full_named(self._path.parent / BOARD_FOLDER):
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name if "/" in name else f"training/{name}", value, row["step"])
        shown = {key.removeprefix("held_out/"): f"{value:.3g}" for key, value in row.items() if key != "step"}
        self.bar.set_postfix(shown, refresh=False)


def read_log(folder: Path) -> list[dict]:
    """Rows of a run's log; a row truncated by an interruption is skipped."""
    rows = []
    for line in (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValidationError):
            rows.append(_ROW.validate_json(line))
    return rows


def cut_log(folder: Path, step: int) -> None:
    """Remove the rows after `step`: a killed run repeats those steps."""
    path = folder / LOG_FILE
    if not path.exists():
        return
    kept = [row for row in read_log(folder) if row["step"] <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
