"""The files of a checkpoint directory: names, reading, and early checks for missing or corrupt ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
EMBODIMENTS_FILE = "embodiments.json"


def check_knows(path: Path, robot: str) -> None:
    """Like `check_checkpoint`, and also for the robot of its training; ValueError names the known ones."""
    check_checkpoint(path)
    known = sorted(read_json(path / EMBODIMENTS_FILE))
    if robot not in known:
        raise ValueError(f"{path} was not trained for {robot}; it knows {', '.join(known) or 'none'}")


def check_checkpoint(path: Path) -> None:
    """Open every weight file's header, so that a missing or truncated file is reported before anything is built."""
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint directory at {path}")
    read_json(path / CONFIG_FILE)
    index = path / WEIGHTS_INDEX_FILE
    files = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else [WEIGHTS_FILE]
    for name in files:
        file = path / name
        if not file.is_file():
            raise FileNotFoundError(f"checkpoint file {file} is missing; download or copy the checkpoint again")
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(
                f"checkpoint file {file} is corrupt or truncated ({file.stat().st_size} bytes): {error}"
            ) from error


def read_json(path: Path) -> Any:
    """Read a checkpoint's JSON file; errors name it."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint file {path} is missing; is {path.parent} a complete checkpoint?")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"checkpoint file {path} is corrupt: {error}") from error
