# SPDX-License-Identifier: Apache-2.0
"""The cache of results computed from a dataset, and the data hash by which they are invalidated."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from qwen_vla.output_files import write_json

CACHE = "cache"
HASHES_FILE = "qwen_vla_hashes.json"  # a unique name: the folder may be the user's


def cache_folder(root: Path) -> Path:
    """`cache/` in the dataset; if that is not writable, a separate folder below $XDG_CACHE_HOME/qwen_vla."""
    beside = (root if root.is_dir() else root.parent) / CACHE
    try:
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside
    except OSError:
        pass
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = base / "qwen_vla" / f"{root.name}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]}"
    own.mkdir(parents=True, exist_ok=True)
    return own


def data_hash(root: Path, files: Iterable[Path]) -> str:
    """Hash of names and contents of the data files (16 hexadecimal digits), independent of the dataset's location.

    Contents are hashed once; a file is hashed again if its size or modification time changed.
    """
    memory = cache_folder(root) / HASHES_FILE
    known = _read(memory)
    present = {}
    for path in sorted(filter(Path.is_file, files)):
        status = path.stat()
        name = path.relative_to(root).as_posix() if root.is_dir() else path.name
        version = [
            status.st_size,
            status.st_mtime_ns,
        ]
        remembered = known.get(name)
        content = remembered[2] if remembered and remembered[:2] == version else content_hash(path)
        present[name] = [*version, content]
    if present != known:
        write_json(memory, present)
    return hashlib.sha256(json.dumps([[name, entry[2]] for name, entry in present.items()]).encode()).hexdigest()[:16]


def content_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
