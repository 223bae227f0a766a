"""Identity of a policy: a hash of everything in a checkpoint that determines its output. Free of torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

DECIDING = (".json", ".safetensors", ".jinja", ".txt", ".model")
RECORDS = ("training.json",)  # its provenance, not its behavior


def checkpoint_hash(folder: Path) -> str:
    """SHA-256 over names and contents of weights, configuration, tokenizer, statistics and embodiments, 64 digits."""
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.suffix in DECIDING and path.name not in RECORDS):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.name}\0{content}\n".encode())
    return whole.hexdigest()
