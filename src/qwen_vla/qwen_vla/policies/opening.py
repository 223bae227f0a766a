# SPDX-License-Identifier: Apache-2.0
"""Finds a policy by its reference and opens it for a robot. Packages add policies as entry points. Free of torch.

A reference is `NAME://ADDRESS`, where NAME is an entry point of the group `qwen_vla.policies` and ADDRESS is defined by
that policy. Without a name it is a checkpoint of Qwen-VLA: a folder, or the name of one in checkpoints/.

An entry point is called with the address, the `Embodiment` and `PolicyOptions` and returns a `ChunkPolicy`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands.installed import package_of
from qwen_vla.policies.chunk_policy import (
    ChunkPolicy,
    ClosablePolicy,
    Observation,
    PolicyOptions,
    PreparedPolicy,
    Progress,
)
from qwen_vla.policies.fit import missing_inputs

GROUP = "qwen_vla.policies"
CHECKPOINT = "qwen_vla"  # entry point of references without a name
REFERENCE = re.compile(r"(?P<name>\w[\w.+-]*)://(?P<address>.*)", re.DOTALL)
OFFERED = ("camera_tags", "state_names", "history", "misfits", "infer")
WARM_UP_SIZE = (240, 320)  # [pixels]


class PolicyMisfit(ValueError):
    """A policy and a robot that do not fit. differences: a phrase each."""

    def __init__(self, reference: str, embodiment: Embodiment, differences: Sequence[str]) -> None:
        super().__init__(f"the policy {reference} does not fit '{embodiment.name}': {'; '.join(differences)}")
        self.differences = tuple(differences)


def split_reference(reference: str) -> tuple[str, str]:
    """Name of the entry point and address of a reference."""
    match = REFERENCE.fullmatch(reference)
    return (match["name"], match["address"]) if match else (CHECKPOINT, reference)


def find_policy(reference: str) -> EntryPoint:
    """The entry point that opens a reference; it is not imported.

    Raises:
        ValueError: there is none, or more than one package provides it.
    """
    name, _ = split_reference(reference)
    everything = entry_points(group=GROUP)
    found = [entry for entry in everything if entry.name == name]
    if not found:
        known = ", ".join(f"{entry.name}://" for entry in sorted(everything, key=lambda entry: entry.name))
        raise ValueError(f"no package provides the policy {reference!r}; installed: {known or 'none (make setup)'}")
    if len(found) > 1:
        packages = ", ".join(sorted(map(package_of, found)))
        raise ValueError(f"more than one package provides {name}:// ({packages}); uninstall all but one")
    return found[0]


def open_policy(reference: str, embodiment: Embodiment, options: PolicyOptions | None = None) -> ChunkPolicy:
    """Load a policy, or connect to it, for a robot; it must fit.

    Raises:
        ValueError: there is no such policy, or its package cannot be imported.
        PolicyMisfit: it does not fit the robot; every difference is named.
        FileNotFoundError: a file of it is missing.
    """
    entry = find_policy(reference)
    try:
        make = entry.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{entry.name}:// of package {package_of(entry)} cannot be imported: {error}") from error
    policy = make(split_reference(reference)[1], embodiment, options or PolicyOptions())
    lacking = [name for name in OFFERED if not hasattr(policy, name)]
    if lacking:
        raise ValueError(f"{reference} is not a policy: its {type(policy).__name__} lacks {', '.join(lacking)}")
    wrong = [*policy.misfits(embodiment), *missing_inputs(policy.camera_tags, policy.state_names, embodiment)]
    if wrong:
        close_policy(policy)
        raise PolicyMisfit(reference, embodiment, wrong)
    return policy


def first_misfit(reference: str, embodiment: Embodiment) -> str:
    """The first difference between a policy and a robot; empty if it fits. It is opened; errors as in `open_policy`."""
    try:
        close_policy(open_policy(reference, embodiment))
    except PolicyMisfit as misfit:
        return misfit.differences[0]
    return ""


def close_policy(policy: ChunkPolicy) -> None:
    """Let go of what a policy holds beyond memory."""
    if isinstance(policy, ClosablePolicy):
        policy.close()


def warm_up(policy: ChunkPolicy, continues: bool = False, progress: Progress | None = None) -> float:
    """Do all one-time computation before the first goal; returns its duration [s].

    A policy that can be prepared is, for continued chunks, too, if `continues`; any other infers once on black
    images.
    """
    if isinstance(policy, PreparedPolicy):
        return policy.warm_up(continues=continues, progress=progress)
    began = time.perf_counter()
    black = np.zeros((*WARM_UP_SIZE, 3), np.uint8)
    state = np.zeros(len(policy.state_names)) if policy.state_names else None
    policy.infer(Observation(dict.fromkeys(policy.camera_tags, black), "stand still", state=state))
    return time.perf_counter() - began
