# SPDX-License-Identifier: Apache-2.0
"""Demonstrations of a benchmark's expert: a data set that training understands, resumed where it stopped."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.public.protocol.benchmark import FIRST_DEMONSTRATION
from benchmarks.public.protocol.demonstrations import Collection, collect, measure_expert
from benchmarks.public.protocol.intervention import Interventions
from benchmarks.public.protocol.trials import FIRST_INTERVENTION, FIRST_SNAPSHOT, Trial
from benchmarks.public.protocol.world_process import ROOT
from benchmarks.public.test.fake import BROKEN, FAKE, HOME, LABELED, ROBOT
from qwen_vla.data.formats.lerobot import DatasetError, shard_path
from qwen_vla.data.robot.intervention import LONGEST
from qwen_vla.inspection import inspect
from qwen_vla.parallel import WorkerError


def collection(folder, per_task=12):
    return Collection(FAKE, FAKE.tasks, per_task, folder / "data")


def test_only_successful_demonstrations_are_kept_and_training_understands_them(tmp_path):
    done = collect(collection(tmp_path), workers=2)
    assert (done["attempts"], done["episodes"], done["frames"]) == (24, 18, 18 * 6)
    assert done["expert_success_rate"] == 0.75
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["seeds"] == [FIRST_DEMONSTRATION, FIRST_DEMONSTRATION + 1012] and info["suite"] == "fake"
    found = inspect(tmp_path / "data", robot=str(ROBOT))
    assert found.ok, found.problems


def test_an_interrupted_collection_resumes_to_the_same_data(tmp_path, monkeypatch):
    whole, cut = collection(tmp_path / "whole"), collection(tmp_path / "cut")
    collect(whole, workers=1)
    (tmp_path / "broken").write_text(str(FIRST_DEMONSTRATION + 1003))
    monkeypatch.setenv(BROKEN, str(tmp_path / "broken"))
    with pytest.raises(WorkerError, match="ended with status 7"):
        collect(cut, workers=1)
    done = shard_path(cut.out, 0)
    assert done.exists() and not shard_path(cut.out, 1).exists()
    written = done.stat().st_mtime_ns
    (tmp_path / "broken").unlink()
    collect(cut, workers=1)
    assert done.stat().st_mtime_ns == written, "what was there was not recorded again"
    for shard in range(len(whole.shards)):
        assert shard_path(cut.out, shard).read_bytes() == shard_path(whole.out, shard).read_bytes()


def test_attempts_are_added_to_what_is_there(tmp_path):
    collect(collection(tmp_path / "grown", per_task=10), workers=1)
    before = shard_path(tmp_path / "grown/data", 1).read_bytes()
    grown = collect(collection(tmp_path / "grown", per_task=12), workers=1)
    assert grown["attempts"] == 24 and shard_path(tmp_path / "grown/data", 1).read_bytes() == before
    once = collect(collection(tmp_path / "once"), workers=1)
    assert {**grown, "out": ""} == {**once, "out": ""}


def test_two_collections_do_not_mix(tmp_path):
    collect(collection(tmp_path), workers=1)
    with pytest.raises(DatasetError, match="contains other demonstrations"):
        collect(collection(tmp_path, per_task=6), workers=1)


def test_snapshots_are_single_frames_of_states_of_their_own(tmp_path):
    done = collect(Collection(LABELED, ["hold"], 120, tmp_path / "data", "snapshots"), workers=1)
    assert (done["attempts"], done["episodes"], done["frames"]) == (120, 120, 120)
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["seeds"] == [FIRST_SNAPSHOT, FIRST_SNAPSHOT + 120] and info["kind"] == "snapshots"
    assert inspect(tmp_path / "data", robot=str(ROBOT)).ok
    with pytest.raises(DatasetError, match="contains other demonstrations"):
        collect(Collection(LABELED, ["hold"], 120, tmp_path / "data"), workers=1)


def test_interventions_begin_where_a_policy_has_led_from_states_of_their_own(tmp_path):
    """In some, `mock://hold` succeeds alone: the even ones of `hold`, if it drives for long enough."""
    wanted = Collection(FAKE, FAKE.tasks, 10, tmp_path / "data", takeover_from="mock://hold")
    done = collect(wanted, workers=2)
    assert done["attempts"] == 20 and 8 <= done["episodes"] < 16, "of both, and the expert fails in four"
    assert "expert_success_rate" not in done, "the policy may have left it nothing to do"
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["seeds"] == [FIRST_INTERVENTION, FIRST_INTERVENTION + 1010] and info["kind"] == "demonstrations"
    again = collect(replace(wanted, out=tmp_path / "again"), workers=1)
    assert again["episodes"] == done["episodes"], "the start state decides"
    with pytest.raises(DatasetError, match="contains other demonstrations"):
        collect(replace(wanted, takeover_from=""), workers=1)


def test_a_policy_that_is_not_there_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="the server ended before it was ready"):
        collect(Collection(FAKE, ["hold"], 2, tmp_path / "data", takeover_from=str(tmp_path / "missing")), workers=1)
    assert not (tmp_path / "data").exists()


def test_a_policy_does_not_drive_before_snapshots(tmp_path):
    with pytest.raises(ValueError, match="snapshots are made without a policy; leave out --takeover-from"):
        collect(Collection(LABELED, ["hold"], 4, tmp_path / "data", "snapshots", "mock://hold"), workers=1)
    assert not (tmp_path / "data").exists()


def test_rows_are_those_of_the_policy_that_drives_first(tmp_path):
    with pytest.raises(ValueError, match="name it with --takeover-from"):
        collect(Collection(FAKE, ["hold"], 4, tmp_path / "data", rows=4), workers=1)
    driven = Recorded((0.1, True, False), (LONGEST, True, False))
    Interventions(FAKE, "mock://hold", rows=2).record(driven, Trial("hold", FIRST_INTERVENTION + 1))
    assert driven.calls == [2, 2] and not (tmp_path / "data").exists()


def test_a_worker_that_records_starts_without_torch():
    """It takes ten seconds to import, and each worker would need a gigabyte more."""
    program = "import sys, benchmarks.public.protocol.demonstrations; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


class Recorded:
    """A world that only tells how far each chunk has led: (elapsed, free, over) of one after the other."""

    def __init__(self, *steps):
        self._steps, self.calls = iter(steps), []

    def start(self, task, start):
        return self._seen()

    def execute(self, rows, film):
        self.calls.append(len(rows))
        elapsed, free, over = next(self._steps)
        return {"observation": self._seen(), "elapsed": elapsed, "free": free, "over": over}

    def take_over(self, size):
        return {"success": True, "size": size}

    def _seen(self):
        return {"images": {"ego": np.zeros((48, 48, 3), np.uint8)}, "state": HOME, "instruction": "hold the hand"}


def test_the_expert_waits_until_the_hand_is_empty():
    world = Recorded((LONGEST, False, False), (0.8, False, False), (0.9, True, False))
    shown = Interventions(FAKE, "mock://hold").record(world, Trial("hold", FIRST_INTERVENTION))
    assert shown["success"] and shown["size"] == FAKE.image_size and len(world.calls) == 3
    over = Recorded((LONGEST, False, False), (1.0, False, True))
    assert not Interventions(FAKE, "mock://hold").record(over, Trial("hold", FIRST_INTERVENTION))["success"]


def test_how_long_a_policy_drives_differs_between_start_states():
    driven = []
    for start in range(FIRST_INTERVENTION, FIRST_INTERVENTION + 40):
        world = Recorded(*((0.05 * chunk, True, False) for chunk in range(1, 21)))
        Interventions(FAKE, "mock://hold").record(world, Trial("hold", start))
        driven.append(len(world.calls))
    assert min(driven) <= 3 and max(driven) in (13, 14) and len(set(driven)) > 8


def test_snapshots_of_a_benchmark_without_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="fake has no labels for its images"):
        collect(Collection(FAKE, FAKE.tasks, 4, tmp_path / "data", "snapshots"), workers=1)
    assert not (tmp_path / "data").exists()


def test_the_first_part_of_a_collection_has_all_tasks(tmp_path):
    shards = collection(tmp_path, per_task=25).shards
    assert [{trial.task for trial in shard} for shard in shards[:2]] == [{"hold"}, {"lift"}]
    assert sum(map(len, shards)) == 50 and len({trial for shard in shards for trial in shard}) == 50


def test_the_expert_is_measured_on_states_of_its_own():
    found = measure_expert(FAKE, FAKE.tasks, 5, workers=1)
    assert found["starts"] == [500_000, 501_004] and found["success_rate"] == 0.8
    assert found["tasks"]["lift"]["wilson_95"][0] < 0.8 < found["tasks"]["lift"]["wilson_95"][1]
