# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster of local nodes with one CPU each: real processes, of which a test may kill a node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import ray
from ray.cluster_utils import Cluster

from qwen_vla.parallel.cluster import connect

ADDRESS = "RAY_ADDRESS"


class Nodes:
    """As long as the context lasts, this process and those that it starts find the cluster."""

    def __enter__(self) -> Self:
        self._before = os.environ.get(ADDRESS)
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        os.environ[ADDRESS] = self._cluster.address
        return self

    def __exit__(self, *_: Any) -> None:
        self.disconnect()
        self._cluster.shutdown()
        del os.environ[ADDRESS]
        if self._before is not None:
            os.environ[ADDRESS] = self._before

    @contextmanager
    def another(self) -> Iterator[Any]:
        """A second node; this process belongs to the first, as otherwise it would end with the second."""
        connect()
        node = self._cluster.add_node(num_cpus=1)
        self._cluster.wait_for_nodes()
        try:
            yield node
        finally:
            self.kill(node)

    def kill(self, node: Any) -> None:
        """All processes of the node, at once; nothing if they are gone."""
        if node in self._cluster.list_all_nodes():
            self._cluster.remove_node(node, allow_graceful=False)

    def disconnect(self) -> None:
        """This process no longer belongs to the cluster."""
        ray.shutdown()
