# SPDX-License-Identifier: Apache-2.0
"""Collecting with the real suite: resumable, the same with any number of workers, and never mixed with other data."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from qwen_vla import QwenVLAConfig
from qwen_vla.data.collect import _claim, _Recorder, collect, is_complete
from qwen_vla.data.collection import Collection
from qwen_vla.data.formats.lerobot import DatasetError, LeRobotReader, shard_path
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.samples import SourceContext
from qwen_vla.data.sources import AnyData, open_sources
from qwen_vla.output_paths import OutputRefused
from qwen_vla.seeds import FIRST_TEST_SEED, FIRST_TRAINING_SEED
from qwen_vla.suites import load_suite

SNAPSHOTS = Collection("widowx_pick", None, 6, 2_000_000, "snapshots", episodes_per_shard=2)  # as `recordings`


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def copied(recordings, tmp_path):
    """The snapshots, to spoil; what training decoded beside them is left out."""
    return shutil.copytree(recordings / "snapshots", tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))


def test_the_number_of_workers_changes_nothing(copied, tmp_path):
    summary = collect(replace(SNAPSHOTS, out=tmp_path / "parallel"), workers=2)
    assert (summary["episodes"], summary["frames"], summary["expert_success_rate"]) == (6, 6, 1.0)
    assert files(tmp_path / "parallel") == files(copied)


def test_a_lost_shard_is_recorded_again_as_it_was(copied):
    before, collection = files(copied), replace(SNAPSHOTS, out=copied)
    shard_path(copied, 1).unlink()
    assert not is_complete(collection)
    collect(collection)
    assert files(copied) == before and is_complete(collection)


def test_a_finished_collection_is_left_alone(copied):
    changed = {path: path.stat().st_mtime_ns for path in copied.rglob("*.parquet")}
    assert collect(replace(SNAPSHOTS, out=copied))["frames"] == 6
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*.parquet")} == changed


@pytest.mark.parametrize("other", [{"seed": 2_000_001}, {"episodes": 5}, {"kind": "demonstrations"}])
def test_another_collection_in_the_folder_is_refused(copied, other):
    before = files(copied)
    with pytest.raises(DatasetError, match="contains another collection .*choose another folder"):
        collect(replace(SNAPSHOTS, out=copied, **other))
    assert files(copied) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputRefused, match="is not empty and was not made by collect"):
        collect(replace(SNAPSHOTS, out=tmp_path))


def test_a_collection_that_cannot_fit_is_refused_before_it_starts(tmp_path):
    with pytest.raises(DatasetError, match=r"huge: [\d.]+ [kMGT]B free, up to 10.0 PB needed for 10000000000 episodes"):
        collect(replace(SNAPSHOTS, out=tmp_path / "huge", episodes=10**10))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"episodes_per_shard": 0}, "episodes_per_shard must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 9000}, "collect needs training seeds, got validation seeds from 9000 on"),
        ({"seed": FIRST_TRAINING_SEED - 6}, "collect needs training seeds, got test seeds from 999994 on"),
        ({"seed": FIRST_TRAINING_SEED - 1}, "of more than one split"),
        ({"kind": "films"}, "kind must be demonstrations or snapshots, got 'films'"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(SNAPSHOTS, **wrong).check()


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        collect(replace(SNAPSHOTS, out=tmp_path / "idle"), workers=0)
    assert not (tmp_path / "idle").exists()


def test_an_unknown_suite_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(KeyError, match="unknown suite 'chess'; installed: .*widowx_pick"):
        collect(replace(SNAPSHOTS, suite="chess", out=tmp_path / "chess"))
    assert not (tmp_path / "chess").exists()


@pytest.fixture
def recorder(tmp_path):
    """A simulator that records two demonstrations in shards of one."""
    recorder = _Recorder(Collection("widowx_pick", tmp_path / "two", 2, episodes_per_shard=1))
    _claim(recorder.collection)
    yield recorder
    recorder.env.close()


def fail(recorder, monkeypatch, shard):
    """Record a shard with an expert that is stopped before it has reached the cube."""
    with monkeypatch.context() as patch:
        patch.setattr("qwen_vla_sim.widowx.suite.MAX_EXPERT_STEPS", 2)
        recorder.record(shard)


def test_failed_demonstrations_are_dropped_and_counted(recorder, monkeypatch, recordings):
    fail(recorder, monkeypatch, 0)
    recorder.record(1)
    summary = collect(recorder.collection)
    assert (summary["asked"], summary["episodes"], summary["expert_success_rate"]) == (2, 1, 0.5)
    reader, whole = LeRobotReader(recorder.collection.out), LeRobotReader(recordings / "demonstrations")
    first, end = whole.episodes[1]  # the same scene, recorded where nothing failed
    np.testing.assert_array_equal(reader.frames["action"], whole.frames["action"][first:end])
    assert reader.tasks == whole.tasks[1:2]
    np.testing.assert_array_equal(reader.frames["index"], np.arange(end - first))
    assert set(reader.frames["episode_index"]) == {0}


def test_a_collection_without_any_success_says_so(recorder, monkeypatch):
    for shard in range(2):
        fail(recorder, monkeypatch, shard)
    with pytest.raises(DatasetError, match="none of the recorded demonstrations succeeded"):
        collect(recorder.collection)


def test_more_episodes_are_added_and_the_recorded_ones_are_kept(recorder):
    for shard in range(2):
        recorder.record(shard)
    out = recorder.collection.out
    kept = shard_path(out, 0).stat().st_mtime_ns
    assert collect(replace(recorder.collection, episodes=3))["episodes"] == 3
    assert shard_path(out, 0).stat().st_mtime_ns == kept
    assert LeRobotReader(out).info["seeds"] == [FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + 3]
    with pytest.raises(DatasetError, match="contains another collection .*episodes 3, .*; asked for .*episodes 2,"):
        collect(recorder.collection)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 12))
def test_only_whole_files_can_be_continued(begun, wanted, per_shard):
    first, later = (Collection("widowx", Path("out"), n, episodes_per_shard=per_shard) for n in (begun, wanted))
    shared = [first.scenes(shard) == later.scenes(shard) for shard in range(min(first.shards, later.shards))]
    assert later.continues(first.content) == (begun <= wanted and all(shared))
    assert not replace(later, seed=later.seed + 1).continues(first.content)


def test_another_shard_size_in_the_folder_is_refused(recorder):
    with pytest.raises(DatasetError, match="contains another collection .*episodes_per_shard 1; asked"):
        collect(replace(recorder.collection, episodes_per_shard=50))


def test_scene_number_i_has_seed_plus_i(recordings):
    reader = LeRobotReader(recordings / "snapshots")
    for i, objects in enumerate(reader.frames["annotation.objects"]):
        scene = load_suite("widowx_pick").scene(2_000_000 + i)
        assert [reader.info["names"][index] for index in objects] == [thing.name for thing in scene.things]
        assert reader.tasks[i] == scene.instruction


def test_only_scenes_of_one_task_from_the_seed_on(tmp_path):
    suite = load_suite("widowx")
    options = Collection("widowx", tmp_path / "stacks", 2, 2_000_001, "snapshots", task="stack_cube")
    collect(options)
    reader = LeRobotReader(options.out)
    assert reader.tasks == [suite.scene(seed).instruction for seed in (2_000_002, 2_000_007)]
    assert reader.info["seeds"] == [2_000_001, 2_000_008]
    with pytest.raises(DatasetError, match="contains another collection .*task stack_cube; asked"):
        collect(replace(options, task=None))


def test_a_task_that_the_suite_does_not_have_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(ValueError, match="suite widowx has no task 'juggle'; it has: spoon_on_towel, .*pick_cube"):
        collect(Collection("widowx", tmp_path / "juggling", 2, task="juggle"))
    assert not (tmp_path / "juggling").exists()


@pytest.mark.parametrize("kind", ["robot", "questions"])
@pytest.mark.parametrize("first", [9000, FIRST_TEST_SEED])
def test_a_recording_of_scenes_for_evaluation_is_not_trained_on(copied, kind, first):
    info = json.loads((copied / "meta/info.json").read_text())
    (copied / "meta/info.json").write_text(json.dumps(info | {"seeds": [first, first + 6]}))
    spec = TypeAdapter(AnyData).validate_python({"kind": kind, "path": copied})
    context = SourceContext(QwenVLAConfig.preset("tiny"), 0.34)
    with pytest.raises(
        DataError, match=f"{copied}: training needs training seeds, got .* from {first} on.*remove this"
    ):
        open_sources([spec], context)


def test_what_is_recorded_shows_what_the_labels_say(recordings):
    reader = LeRobotReader(recordings / "demonstrations")
    assert (reader.info["kind"], reader.info["seeds"]) == ("demonstrations", [1_000_000, 1_000_004])
    assert len(reader.episodes) == 4 and reader.fps == 5.0
    for (first, end), task in zip(reader.episodes, reader.tasks, strict=True):
        target = reader.frames["annotation.object"][first]
        color, _ = reader.info["names"][reader.frames["annotation.objects"][first][target]].split()
        assert color in task.split() and set(reader.frames["annotation.goal"][first:end]) == {-1}
        tip = reader.frames["observation.eef_pose"][first:end, 2]
        assert tip[-1] > 0.09 and tip.min() < 0.04, "every demonstration goes down to a cube and ends lifted"
