# SPDX-License-Identifier: Apache-2.0
"""Arguments of a start, checked before the first process: an error ends the launch with one line.

Free of `launch`.
"""

from __future__ import annotations

from pathlib import Path

from embodiment_descriptions import ResourceError, resource_path
from qwen_vla.policies.checkpoint import checkpoint_of
from qwen_vla.suites import load_suite


class ArgumentError(ValueError):
    """A launch argument has a value with which nothing can be started; the message names both."""


def found(given: str, argument: str) -> Path:
    """A file as specified by the user: absolute, relative to the working directory, or relative to the suite.

    Raises:
        ArgumentError: there is none.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return path.resolve()
    try:
        return resource_path(given)
    except ResourceError as error:
        raise ArgumentError(f"{argument}:={given}: there is no such file (seen from {Path.cwd()})") from error


def check_policy(policy: str, device: str) -> None:
    """Check that a policy can be opened on a device; `none` is no policy.

    Raises:
        ArgumentError: there is no such policy or no such device.
    """
    if policy == "none":
        return
    try:
        checkpoint_of(policy)
    except (FileNotFoundError, ValueError) as error:
        raise ArgumentError(f"policy:={policy}: {error}") from error
    if device != "cpu":
        _check_device(device)


def _check_device(device: str) -> None:
    import torch  # takes seconds, and is only needed for devices other than the CPU

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise ArgumentError(f"device:={device}: {reason}; this computer has {', '.join(available)}") from error


def check_scene(suite: str, seed: str, task: str, shift: str) -> None:
    """Check that a simulator has such scenes. Empty: no task or shift selected.

    Raises:
        ArgumentError: it does not have them.
    """
    if not seed.isdecimal():
        raise ArgumentError(f"seed:={seed}: a seed must be an integer of at least 0")
    if not (task or shift):
        return
    scenes = load_suite(suite)
    for argument, given, offered in (("task", task, scenes.tasks), ("shift", shift, scenes.shifts)):
        if given and given not in offered:
            raise ArgumentError(f"{argument}:={given}: the suite {suite} has {', '.join(offered) or 'none'}")
