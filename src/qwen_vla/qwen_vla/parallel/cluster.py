# SPDX-License-Identifier: Apache-2.0
"""Worker processes of a Ray cluster: one for each of its CPUs, on any of its machines.

Every machine needs this environment and this checkout at the same path; what workers write goes to a folder that all
machines share.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from qwen_vla.parallel.task import Item, Result, State, WorkerError, perform

TRIES = 4  # of an item whose process or machine is lost
FORWARDED = ("QWEN_VLA_", "MUJOCO_")  # beginnings of the names of environment variables that workers share


def cluster_map(
    prepare: Callable[[], State], work: Callable[[State, Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """As `parallel_map`. An item whose machine is lost is worked on again by another one."""
    ray = connect()
    place, call = Place.of_this_process(), uuid.uuid4().hex
    task = ray.remote(num_cpus=1, max_retries=TRIES - 1, scheduling_strategy="SPREAD")(_perform_at)
    results = [task.remote(place, call, prepare, work, item) for item in items]
    try:
        for result in results:
            yield ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise WorkerError(str(error.cause)) from error
    except ray.exceptions.RayError as error:
        raise WorkerError(f"lost in {TRIES} tries: {str(error).strip().splitlines()[0]}") from error
    finally:
        # Only what is still worked on: to cancel a task that ends in this moment ends this process (Ray 2.60).
        for result in ray.wait(results, num_returns=len(results), timeout=0, fetch_local=False)[1]:
            ray.cancel(result, force=True)


def connect() -> ModuleType:
    """Ray, connected to the cluster that this machine belongs to, or that RAY_ADDRESS names.

    Raises:
        ValueError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("--engine ray needs Ray: pip install 'qwen_vla[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init("auto", logging_level=logging.ERROR, log_to_driver=False)  # standard output is the result's
        except ConnectionError as error:
            raise ValueError(
                "--engine ray finds no cluster; start one with `ray start --head`, and `ray start --address HOST:6379` "
                "on every other machine (docs/how-to/several_machines.md)"
            ) from error
    return ray


def own_address() -> str:
    """The address of this machine for the others of the cluster."""
    return connect().util.get_node_ip_address()


@dataclass(frozen=True)
class Place:
    """What workers share with the process that they work for: its working folder, and some environment variables."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def of_this_process(cls) -> Place:
        shared = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
        return cls(Path.cwd(), shared)

    def enter(self) -> None:
        """Make it that of this process; WorkerError if this machine lacks the folder."""
        if not self.folder.is_dir():
            raise WorkerError(
                f"{os.uname().nodename} has no folder {self.folder}; every machine needs the checkout at the same path"
            )
        os.chdir(self.folder)
        os.environ.update(self.environment)


def _perform_at(
    place: Place, call: str, prepare: Callable[[], State], work: Callable[[State, Item], Result], item: Item
) -> Result:
    place.enter()
    return perform(call, prepare, work, item)
