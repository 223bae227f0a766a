# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one model: replicas that average their gradients (DDP), or shards of one (FSDP).

A saved state is unsharded in either case, so that any number of processes, sharded or not, can resume it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


def accelerator_of(cpu: bool) -> Accelerator:
    """This process's place among those that train together, which it leaves when Python ends.

    Left to the garbage collection of an ending Python, shards have been seen to wait forever for their process group.
    """
    accelerator = Accelerator(cpu=cpu)
    if accelerator.num_processes > 1:
        atexit.register(_leave)
    return accelerator


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def asked_to_shard() -> bool:
    """Whether `accelerate launch` was configured for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def spread(
    learner: nn.Module, accelerator: Accelerator, shard: bool, block_names: Iterable[str], half: bool
) -> nn.Module:
    """The module to call in training: `learner` itself, wrapped if there are several processes.

    half: shards are gathered in bf16 (on GPUs), as autocast would use them. With shards, the learner's parameters
    become DTensors in place: create the optimizer afterwards.
    """
    if accelerator.num_processes == 1:
        return learner
    if not shard:
        return DistributedDataParallel(learner, find_unused_parameters=True, gradient_as_bucket_view=True)
    half &= accelerator.device.type == "cuda"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if half else MixedPrecisionPolicy()
    names = set(block_names)
    for module in learner.modules():
        if type(module).__name__ in names:
            if hasattr(module, "modulation"):  # the expert computes it for all blocks before it runs them
                fully_shard(module.modulation, mp_policy=policy)
            fully_shard(module, mp_policy=policy)
    return fully_shard(learner, mp_policy=policy)


def collect_later(wrapped: nn.Module, last: bool) -> None:
    """Exchange gradients only in the backward pass of a step's last part."""
    if isinstance(wrapped, DistributedDataParallel):
        wrapped.require_backward_grad_sync = last
    elif isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(last)


def summed(values: Mapping[str, float], accelerator: Accelerator) -> dict[str, float]:
    """The sum of each value over all processes, which must have the same names in the same order."""
    if accelerator.num_processes == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    total = total.to(accelerator.device)
    torch.distributed.all_reduce(total)
    return dict(zip(values, total.tolist(), strict=True))


def anyone(asked: object, accelerator: Accelerator) -> bool:
    """Whether any process was asked; all get the same answer, and must call this equally often."""
    return bool(summed({"asked": bool(asked)}, accelerator)["asked"])


def gathered(value: Any, accelerator: Accelerator) -> list[Any]:
    """A small picklable value of every process, in their order."""
    found = [value] * accelerator.num_processes
    if accelerator.num_processes > 1:
        torch.distributed.all_gather_object(found, value)
    return found


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a parameter held by this process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def norm(gradients: Iterable[torch.Tensor]) -> float:
    """Euclidean norm of gradients, including shards of other processes."""
    value = torch.nn.utils.get_total_norm(list(gradients))
    return float(value.full_tensor() if isinstance(value, DTensor) else value)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale the gradients so that their norm, including shards of other processes, is at most `largest`; it before."""
    value = torch.nn.utils.clip_grad_norm_(list(parameters), largest)
    return float(value.full_tensor() if isinstance(value, DTensor) else value)


def whole(value: Any, keep: bool) -> Any:
    """Nested state with sharded tensors gathered on the CPU; only if `keep` is true, {} and None otherwise.

    All processes must call it, with the same structure.
    """
    if isinstance(value, Mapping):
        return {key: whole(child, keep) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [whole(child, keep) for child in value]
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().cpu().clone() if keep else None


def like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """A whole tensor on the device of `model`, with the same sharding."""
    if isinstance(model, DTensor):
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor.to(model.device)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state, sharded like the parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, moments in state["state"].items():
        parameter = parameters[int(number)]
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape == parameter.shape:
                moments[name] = like(value, parameter)
    optimizer.load_state_dict(state)


def in_turn(accelerator: Accelerator, make: Callable[[], Any]) -> Any:
    """`make()`, first in the main process, so that the others find its files on disk."""
    with accelerator.main_process_first():
        return make()
