# SPDX-License-Identifier: Apache-2.0
"""Work in parallel processes, each with its own state: of this machine, or of a cluster of machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from qwen_vla.parallel.task import Item, Result, State, WorkerError, require_here

Engine = Literal["processes", "ray"]

__all__ = ["Engine", "WorkerError", "parallel_map", "require_here"]


def parallel_map(
    prepare: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Iterable[Item],
    workers: int,
    engine: Engine = "processes",
) -> Iterator[Result]:
    """Yield `work(state, item)` in the order of `items`; `state` is what `prepare` returns, called once per process.

    Args:
        prepare: importable by name, as `work` is.
        work: may be called again with an item whose process was lost.
        items: what to work on.
        workers: processes of this machine; a cluster has one for each of its CPUs.
        engine: `processes` of this machine, or the `ray` cluster that this machine belongs to.

    Raises:
        WorkerError: one of them failed.
        ValueError: there is no cluster.
    """
    items = list(items)
    if not items:
        return
    if engine == "ray":
        from qwen_vla.parallel.cluster import cluster_map

        yield from cluster_map(prepare, work, items)
    else:
        from qwen_vla.parallel.processes import process_map

        yield from process_map(prepare, work, items, workers)
