"""Collecting with the real suite: resumable, the same whoever records it, and never mixed with something else."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from qwen_vla.data.collect import CollectOptions, _claim, _Recorder, collect
from qwen_vla.data.lerobot import DatasetError, LeRobotReader, shard_path
from qwen_vla.output_paths import OutputRefused
from qwen_vla_sim.widowx.pick_scene import sample_pick_scene
from qwen_vla_sim.widowx.scene import sample_scene

SNAPSHOTS = CollectOptions("widowx_pick", None, 6, 2_000_000, "snapshots", 1, episodes_per_shard=2)  # as `recordings`


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def copied(recordings, tmp_path):
    """The snapshots, to spoil; what training decoded beside them is left out."""
    return shutil.copytree(recordings / "snapshots", tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))


def test_the_number_of_workers_changes_nothing(copied, tmp_path):
    summary = collect(replace(SNAPSHOTS, out=tmp_path / "parallel", workers=2))
    assert (summary["episodes"], summary["frames"], summary["expert_success_rate"]) == (6, 6, 1.0)
    assert files(tmp_path / "parallel") == files(copied)


def test_a_lost_shard_is_recorded_again_as_it_was(copied):
    before = files(copied)
    shard_path(copied, 1).unlink()
    collect(replace(SNAPSHOTS, out=copied))
    assert files(copied) == before


def test_a_finished_collection_is_left_alone(copied):
    changed = {path: path.stat().st_mtime_ns for path in copied.rglob("*.parquet")}
    assert collect(replace(SNAPSHOTS, out=copied))["frames"] == 6
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*.parquet")} == changed


@pytest.mark.parametrize("other", [{"seed": 2_000_001}, {"episodes": 7}, {"kind": "demonstrations"}])
def test_another_collection_in_the_folder_is_refused(copied, other):
    before = files(copied)
    with pytest.raises(DatasetError, match="holds another collection .*choose another folder"):
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
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"kind": "films"}, "kind must be demonstrations or snapshots, got 'films'"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(SNAPSHOTS, **wrong)


def test_an_unknown_suite_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(KeyError, match="unknown suite 'chess'; installed: .*widowx_pick"):
        collect(replace(SNAPSHOTS, suite="chess", out=tmp_path / "chess"))
    assert not (tmp_path / "chess").exists()


@pytest.fixture
def recorder(tmp_path):
    """A simulator that records two demonstrations in shards of one."""
    recorder = _Recorder(CollectOptions("widowx_pick", tmp_path / "two", 2, workers=1, episodes_per_shard=1))
    _claim(recorder.options)
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
    summary = collect(recorder.options)
    assert (summary["asked"], summary["episodes"], summary["expert_success_rate"]) == (2, 1, 0.5)
    reader, whole = LeRobotReader(recorder.options.out), LeRobotReader(recordings / "demonstrations")
    first, end = whole.episodes[1]  # the same scene, recorded where nothing failed
    np.testing.assert_array_equal(reader.frames["action"], whole.frames["action"][first:end])
    assert reader.tasks == whole.tasks[1:2]
    np.testing.assert_array_equal(reader.frames["index"], np.arange(end - first))
    assert set(reader.frames["episode_index"]) == {0}


def test_a_collection_without_any_success_says_so(recorder, monkeypatch):
    for shard in range(2):
        fail(recorder, monkeypatch, shard)
    with pytest.raises(DatasetError, match="none of the recorded demonstrations succeeded"):
        collect(recorder.options)


def test_another_shard_size_in_the_folder_is_refused(recorder):
    with pytest.raises(DatasetError, match="holds another collection .*episodes_per_shard 1; asked"):
        collect(replace(recorder.options, episodes_per_shard=50))


def test_scene_number_i_has_seed_plus_i(recordings):
    reader = LeRobotReader(recordings / "snapshots")
    for i, objects in enumerate(reader.frames["annotation.objects"]):
        scene = sample_pick_scene(2_000_000 + i)
        assert [reader.info["names"][index] for index in objects] == [thing.name for thing in scene.things]
        assert reader.tasks[i] == scene.instruction


def test_only_scenes_of_one_task_from_the_seed_on(tmp_path):
    options = CollectOptions("widowx", tmp_path / "stacks", 2, 2_000_001, "snapshots", workers=1, task="stack_cube")
    collect(options)
    reader = LeRobotReader(options.out)
    assert reader.tasks == [sample_scene(seed).instruction for seed in (2_000_002, 2_000_007)]
    assert reader.info["seeds"] == [2_000_001, 2_000_008]
    with pytest.raises(DatasetError, match="holds another collection .*task stack_cube; asked"):
        collect(replace(options, task=None))


def test_a_task_that_the_suite_does_not_have_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(ValueError, match="suite widowx has no task 'juggle'; it has spoon_on_towel, .*pick_cube"):
        collect(CollectOptions("widowx", tmp_path / "juggling", 2, task="juggle"))
    assert not (tmp_path / "juggling").exists()


def test_what_is_recorded_shows_what_the_labels_say(recordings):
    reader = LeRobotReader(recordings / "demonstrations")
    assert (reader.info["kind"], reader.info["seeds"]) == ("demonstrations", [1_000_000, 1_000_004])
    assert len(reader.episodes) == 4 and reader.fps == 5.0
    for (first, end), task in zip(reader.episodes, reader.tasks, strict=True):
        target = reader.frames["annotation.object"][first]
        colour, _ = reader.info["names"][reader.frames["annotation.objects"][first][target]].split()
        assert colour in task.split() and set(reader.frames["annotation.goal"][first:end]) == {-1}
        tip = reader.frames["observation.eef_pose"][first:end, 2]
        assert tip[-1] > 0.09 and tip.min() < 0.04, "every demonstration goes down to a cube and ends lifted"
