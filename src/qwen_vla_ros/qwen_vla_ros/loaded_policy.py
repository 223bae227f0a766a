"""A qwen_vla.Policy that fits the robot in front of it: loaded, and compared with the embodiment.

The only module here that reaches torch, and only when a policy is loaded.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from embodiment_descriptions import Embodiment, resource_path

if TYPE_CHECKING:
    from qwen_vla import Policy

PLACEHOLDER = "{instruction}"


def load_policy(
    name: str,
    embodiment: Embodiment,
    device: str,
    euler_steps: int,
    threads: int,
    accelerate: str = "auto",
    quantize: str = "none",
) -> Policy:
    """Load a checkpoint for a robot.

    Args:
        name: path of a checkpoint folder, or the name of a checkpoint of the suite (checkpoints/<name>).
        embodiment: the robot. Its prompt, derived from its description, is what the model reads.
        device: of torch.
        euler_steps: integration steps of the action expert; 0: as many as the checkpoint says.
        threads: for torch; 0 leaves its default.
        accelerate, quantize: as for `Policy.from_pretrained`.

    Raises:
        ValueError, FileNotFoundError: the checkpoint is missing, damaged, or was made for another robot.
    """
    folder = Path(name).expanduser()
    folder = folder if folder.is_dir() else checkpoint_path(name)
    if not (folder / "config.json").is_file():  # before torch is imported, which takes seconds
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no config.json")

    import torch

    from qwen_vla import Policy

    if threads:
        torch.set_num_threads(threads)
    policy = Policy.from_pretrained(
        folder,
        device=device,
        euler_steps=euler_steps or None,
        embodiment=embodiment.name,
        accelerate=accelerate,
        quantize=quantize,
    )
    require_fit(policy.embodiment, embodiment, folder)
    policy.embodiment = dataclasses.replace(policy.embodiment, prompt_template=embodiment.prompt(PLACEHOLDER))
    return policy


def checkpoint_path(name: str) -> Path:
    """Find a checkpoint of the suite; FileNotFoundError names the places searched."""
    if "/" in name:
        raise FileNotFoundError(f"no checkpoint directory at {name}")
    return resource_path(f"checkpoints/{name}")


def require_fit(trained, embodiment: Embodiment, folder: Path) -> None:
    """Raise ValueError unless what a policy was trained for is what the robot is; `trained` is its EmbodimentInfo."""
    pairs = {
        "control mode": (trained.control_mode, embodiment.control_mode),
        "channels": (tuple(trained.channel_names), tuple(embodiment.channel_names)),
        "period [s]": (round(trained.period, 9), round(embodiment.period, 9)),
        "chunk size": (trained.horizon, embodiment.chunk_size),
    }
    wrong = [f"{what}: trained {a}, robot {b}" for what, (a, b) in pairs.items() if a != b]
    missing = sorted(set(trained.camera_tags) - {camera.tag for camera in embodiment.cameras})
    if missing:
        wrong.append(f"cameras: trained with {', '.join(missing)}, which the robot lacks")
    if wrong:
        raise ValueError(f"the policy in {folder} does not fit '{embodiment.name}': {'; '.join(wrong)}")


def state_joints(policy: Policy, embodiment: Embodiment) -> tuple[str, ...]:
    """Joints whose positions the policy reads as its state, in order; empty for a policy that reads none.

    Raises:
        ValueError: it was trained with something in its state that the robot's joint states do not tell.
    """
    names = policy.state_names
    unknown = [name for name in names if name not in embodiment.joint_names]
    if unknown:
        raise ValueError(
            f"the policy reads a state of {len(names)} numbers ({', '.join(names)}), which the "
            f"joints of '{embodiment.name}' do not give ({', '.join(embodiment.joint_names)})"
        )
    return names
