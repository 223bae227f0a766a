# SPDX-License-Identifier: Apache-2.0
"""Work on two nodes of a real Ray cluster, of which one is killed: what comes out is what one machine makes."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pytest
import ray
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.cluster_utils import Cluster

from benchmarks.public.protocol.evaluate import evaluate as benchmark
from benchmarks.public.protocol.evaluate_options import EvaluateOptions as BenchmarkOptions
from benchmarks.public.test.fake import FAKE
from qwen_vla.data.collect import collect
from qwen_vla.data.collection import Collection
from qwen_vla.evaluation.in_process import evaluate
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.parallel import WorkerError, parallel_map
from qwen_vla.parallel.cluster import Place, connect
from qwen_vla.policies.servers.connection import KEY
from qwen_vla.suites import load_suite
from qwen_vla.training.reinforcement.chunk_env import ChunkEnv, parallel_envs

SNAPSHOTS = Collection("widowx_pick", None, 6, 2_000_000, "snapshots", episodes_per_shard=2)
SECONDS = 120  # a slow machine may need to start a process


ADDRESS = "RAY_ADDRESS"


class Nodes:
    """A cluster of local nodes with one CPU each, which this process finds as long as the context lasts."""

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


@pytest.fixture(scope="module")
def nodes():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    with Nodes() as nodes:
        yield nodes


def wait_for(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def note(folder: Path, item: int) -> tuple[int, str]:
    """Work that says where it has begun, and ends when it may."""
    (folder / f"{item}_{os.getpid()}").touch()
    wait_for((folder / "go").exists)
    return item, str(Path.cwd())


def second(_: None, item: int) -> int:
    return item


def fail(_: None, item: int) -> None:
    raise ValueError(f"item {item} is unlucky")


def test_no_cluster_is_an_error_with_the_command_that_starts_one(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ValueError, match="no cluster; start one with `ray start --head`"):
        list(parallel_map(list, list, [0], 1, "ray"))


def test_an_item_whose_node_is_killed_is_worked_on_by_another(nodes, tmp_path):
    results = parallel_map(partial(Path, tmp_path), note, range(4), 1, "ray")
    with nodes.another() as other:
        found = []
        reader = threading.Thread(target=lambda: found.extend(results))
        reader.start()
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        nodes.kill(other)
        workers = [int(path.name.partition("_")[2]) for path in tmp_path.iterdir()]
        wait_for(lambda: not all(map(psutil.pid_exists, workers)))
        (tmp_path / "go").touch()
        reader.join(SECONDS)
    assert found == [(item, str(Path.cwd())) for item in range(4)]
    assert len(list(tmp_path.glob("[0-9]*"))) == 5, "one of them was begun twice"


def test_a_call_that_ends_as_its_last_result_arrives_leaves_this_process_alive(nodes):
    for _ in range(100):
        assert list(parallel_map(type(None), second, range(2), 1, "ray")) == [0, 1]


def test_an_error_arrives_with_its_message(nodes):
    with pytest.raises(WorkerError, match="^item 3 is unlucky$"):
        list(parallel_map(type(None), fail, [3], 1, "ray"))


def test_a_machine_without_the_checkout_says_so(tmp_path):
    with pytest.raises(WorkerError, match="has no folder .*checkout; every machine needs"):
        Place(tmp_path / "checkout", {}).enter()


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.suffix == ".parquet"}


def test_a_collection_is_the_same_although_a_node_was_killed(nodes, tmp_path):
    collect(replace(SNAPSHOTS, out=tmp_path / "here"))
    there = tmp_path / "there"
    with nodes.another() as other:
        killer = threading.Thread(target=lambda: (wait_for(lambda: files(there)), nodes.kill(other)))
        killer.start()
        summary = collect(replace(SNAPSHOTS, out=there), 1, "ray")
        killer.join()
    assert summary["episodes"] == 6 and files(there) == files(tmp_path / "here")


def test_an_evaluation_has_the_same_rows(nodes):
    options = EvaluateOptions("widowx_pick", "tiny", 2, 7000, workers=1)
    alone, spread = evaluate(options), evaluate(replace(options, engine="ray"))
    timed = {"latency_ms_p50": 0, "latency_ms_p99": 0}
    assert [{**row, **timed} for row in spread["rows"]] == [{**row, **timed} for row in alone["rows"]]


def test_a_benchmark_asks_its_policy_from_everywhere_with_a_key(nodes, tmp_path, monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    found = benchmark(FAKE, BenchmarkOptions(policy="mock://hold", json=tmp_path / "result.json", engine="ray"))
    assert found["tasks"]["hold"]["successes"] == 2 and found["tasks"]["lift"]["successes"] == 0
    assert len(os.environ.pop(KEY)) > 20


def test_simulators_of_a_killed_node_are_led_to_where_they_were(nodes):
    shape, executed, seeds = (16, 7), 3, [3_000_000, 3_000_001]
    here = SyncVectorEnv(
        [lambda: ChunkEnv(load_suite("widowx_pick"), shape, executed)] * 2, autoreset_mode=AutoresetMode.DISABLED
    )
    chunk = np.tile(np.float32([0, 0, -0.03, 0, 0, 0, 1]), (2, 16, 1))
    with nodes.another() as other:
        there = parallel_envs("widowx_pick", 2, 1, shape, executed, "ray")
        for envs in (here, there):
            envs.reset(seed=seeds, options={"reset_mask": np.ones(2, bool)})
            envs.step(chunk)
        nodes.kill(other)
        (seen, rewards, *ended, infos), found = here.step(chunk), there.step(chunk)
        assert there.single_observation_space == here.single_observation_space
        again, _ = there.reset(seed=[None, 3_000_002], options={"reset_mask": np.array([False, True])})
        there.close(terminate=True)
    assert np.array_equal(found[0]["joints"], seen["joints"]) and np.array_equal(found[1], rewards)
    assert np.array_equal(found[0]["images"]["ego"], seen["images"]["ego"])
    assert np.array_equal(found[2:4], ended) and list(found[4]["reasons"]) == list(infos["reasons"])
    assert np.array_equal(again["joints"][0], seen["joints"][0]) and not np.array_equal(
        again["joints"][1], seen["joints"][1]
    )
    here.close()
