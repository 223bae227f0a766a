# SPDX-License-Identifier: Apache-2.0
"""Identity of a policy: what it calls itself, and a hash of everything that determines its output. Free of torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from embodiment_descriptions import Embodiment
from qwen_vla.policies.checkpoint import checkpoint_of
from qwen_vla.policies.chunk_policy import ChunkPolicy
from qwen_vla.policies.opening import split_reference

DECIDING = (".json", ".safetensors", ".jinja", ".txt", ".model")
RECORDS = ("training.json",)  # its provenance, not its behavior


@dataclass(frozen=True)
class PolicyIdentity:
    """Which policy predicts.

    Attributes:
        name: as it calls itself: checkpoint, or the policy of a server; otherwise its address.
        hash: of the checkpoint (`checkpoint_hash`), or as its server says; empty: unknown.
        protocol: name of the entry point that opened it.
        embodiment: name of the robot that it was opened for.
    """

    name: str
    hash: str
    protocol: str
    embodiment: str


@runtime_checkable
class NamedPolicy(ChunkPolicy, Protocol):
    """A policy that knows its own name and hash, such as one on a server. Both may be empty."""

    @property
    def policy_name(self) -> str: ...

    @property
    def policy_hash(self) -> str: ...


def identity_of(reference: str, policy: ChunkPolicy, embodiment: Embodiment) -> PolicyIdentity:
    """The identity of a policy that was opened by a reference; a checkpoint is read as a whole."""
    protocol, address = split_reference(reference)
    if isinstance(policy, NamedPolicy):
        return PolicyIdentity(policy.policy_name or address, policy.policy_hash, protocol, embodiment.name)
    checkpoint = checkpoint_of(reference)
    return PolicyIdentity(address, checkpoint_hash(checkpoint) if checkpoint else "", protocol, embodiment.name)


def checkpoint_hash(folder: Path) -> str:
    """SHA-256 over names and contents of weights, configuration, tokenizer, statistics and embodiments, 64 digits."""
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.suffix in DECIDING and path.name not in RECORDS):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.name}\0{content}\n".encode())
    return whole.hexdigest()
