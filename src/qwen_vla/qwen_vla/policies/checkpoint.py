# SPDX-License-Identifier: Apache-2.0
"""Opens a checkpoint of Qwen-VLA as a policy: references without a name, and `qwen_vla://`.

Finding the folder is free of torch; only `open_checkpoint` imports it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from embodiment_descriptions import Embodiment, resource_path
from qwen_vla.model.checkpoint.files import check_knows, read_embodiments, read_normalization
from qwen_vla.policies.chunk_policy import PolicyOptions
from qwen_vla.policies.fit import checkpoint_misfits, missing_inputs, training_misfits
from qwen_vla.policies.opening import CHECKPOINT, PolicyMisfit, find_policy, split_reference

if TYPE_CHECKING:
    from qwen_vla.policies.policy import Policy

PLACEHOLDER = "{instruction}"


def open_checkpoint(address: str, embodiment: Embodiment, options: PolicyOptions) -> Policy:
    """Load a checkpoint for a robot; the model reads a prompt derived from the robot's description.

    Raises:
        ValueError, FileNotFoundError: the checkpoint is missing, corrupt, or was trained for another robot.
    """
    folder = checkpoint_path(address)
    check_fits(folder, embodiment)  # before torch is imported and weights are read, which takes seconds

    import torch

    from qwen_vla.model.devices import usable_device
    from qwen_vla.policies.policy import Policy

    usable_device(options.device)  # before weights are read
    if options.threads:
        torch.set_num_threads(options.threads)
    policy = Policy.from_pretrained(
        folder,
        options.device,
        options.euler_steps or None,
        embodiment.name,
        accelerate=options.accelerate,
        quantize=options.quantize,
    )
    template = options.prompt_template or embodiment.prompt(PLACEHOLDER)
    policy.embodiment = dataclasses.replace(policy.embodiment, prompt_template=template)
    return policy


def check_fits(folder: Path, embodiment: Embodiment) -> None:
    """Check the files of a checkpoint, and whether it may drive a robot; torch is not needed.

    Raises:
        ValueError, FileNotFoundError: a file is missing or damaged.
        PolicyMisfit: it does not fit; every difference is named.
    """
    check_knows(folder, embodiment.name)
    trained = read_embodiments(folder)[embodiment.name]
    statistics = read_normalization(folder).get(trained.dataset)
    wrong = [*training_misfits(trained, embodiment), *missing_inputs(trained.camera_tags, (), embodiment)]
    if not wrong:
        wrong = list(checkpoint_misfits(trained, statistics, embodiment))
    if wrong:
        raise PolicyMisfit(str(folder), embodiment, wrong)


def checkpoint_path(name: str) -> Path:
    """Folder of a checkpoint: a path, or the name of one in checkpoints/; FileNotFoundError lists these names."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    shipped = {path.name: path for path in resource_path("checkpoints").iterdir() if path.is_dir()}
    if name not in shipped:
        raise FileNotFoundError(f"no checkpoint directory at {name}; included are {', '.join(sorted(shipped))}")
    return shipped[name]


def checkpoint_of(reference: str) -> Path | None:
    """Folder of the checkpoint that a policy's reference names; None if another package opens it.

    Raises:
        ValueError: no package provides the policy.
        FileNotFoundError: there is no such checkpoint.
    """
    find_policy(reference)
    name, address = split_reference(reference)
    return checkpoint_path(address) if name == CHECKPOINT else None
