"""LeRobotDataset v3.0 on disk: what is written is read back, an interruption spoils nothing, errors say where."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla.data.lerobot import DatasetError, Feature, LeRobotReader, decode_image, shard_path
from qwen_vla.data.lerobot_writer import Recording, encode_png, finalize, write_shard

FEATURES = {
    "observation.images.ego": Feature("image", (8, 10, 3), ("height", "width", "channel")),
    "observation.state": Feature("float32", (3,), ("a", "b", "c")),
    "annotation.target": Feature("int64", (1,)),
}


def episode(rng, length, task="lift the red cube"):
    frames = {
        "observation.images.ego": rng.integers(0, 256, (length, 8, 10, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "annotation.target": rng.integers(0, 3, length),
    }
    return Recording(task, frames)


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [episode(rng, 4), episode(rng, 1, "grab it"), episode(rng, 3)]
    write_shard(tmp_path, 0, episodes[:2], FEATURES, fps=5)
    write_shard(tmp_path, 1, episodes[2:], FEATURES, fps=5)
    finalize(tmp_path, 2, FEATURES, fps=5.0, robot_type="widowx", extra={"kind": "demonstrations"})
    return tmp_path, episodes


def test_frames_images_and_tasks_come_back(dataset):
    root, episodes = dataset
    reader = LeRobotReader(root)
    assert len(reader) == 8
    assert reader.tasks == [e.task for e in episodes]
    np.testing.assert_array_equal(reader.episodes, [[0, 4], [4, 5], [5, 8]])
    np.testing.assert_array_equal(reader.frames["episode_index"], [0, 0, 0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(reader.frames["index"], np.arange(8))
    np.testing.assert_array_equal(reader.frames["task_index"], [0, 0, 0, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(reader.frames["timestamp"], np.array([0, 1, 2, 3, 0, 0, 1, 2]) / 5)
    expected = np.concatenate([e.frames["observation.state"] for e in episodes])
    np.testing.assert_array_equal(reader.frames["observation.state"], expected)
    pictures = np.concatenate([e.frames["observation.images.ego"] for e in episodes])
    np.testing.assert_array_equal(np.stack(list(reader.images("observation.images.ego", lambda i: i))), pictures)
    np.testing.assert_array_equal(reader.image("observation.images.ego", 6), pictures[6])


def test_metadata_has_the_fields_of_the_format(dataset):
    root, _ = dataset
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 5 and info["robot_type"] == "widowx"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 8, 2)
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]}
    assert info["features"]["timestamp"]["dtype"] == "float32"
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pydict()
    assert tasks == {"task_index": [0, 1], "task": ["lift the red cube", "grab it"]}
    stats = json.loads((root / "meta/stats.json").read_text())
    assert set(stats["observation.state"]) >= {"min", "max", "mean", "std", "q01", "q99", "count"}
    row = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[2]
    assert (row["dataset_from_index"], row["dataset_to_index"], row["data/file_index"]) == (5, 8, 1)


def test_finalizing_twice_changes_nothing(dataset):
    root, _ = dataset
    before = LeRobotReader(root).frames
    finalize(root, 2, FEATURES, fps=5.0, robot_type="widowx", extra={"kind": "demonstrations"})
    after = LeRobotReader(root).frames
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_folder_that_was_not_finished_says_so(tmp_path):
    write_shard(tmp_path, 0, [episode(np.random.default_rng(1), 2)], FEATURES, fps=5)
    with pytest.raises(DatasetError, match="not a finished LeRobotDataset"):
        LeRobotReader(tmp_path)


def test_a_truncated_file_is_named(dataset):
    root, _ = dataset
    path = shard_path(root, 1)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="file-001.parquet"):
        LeRobotReader(root)


def test_a_missing_file_is_noticed(dataset):
    root, _ = dataset
    shard_path(root, 1).unlink()
    with pytest.raises(DatasetError, match="5 frames in data/, 8 in"):
        LeRobotReader(root)


def test_a_frame_that_is_not_finite_is_refused_with_its_number(tmp_path):
    broken = episode(np.random.default_rng(2), 4)
    broken.frames["observation.state"][2, 1] = np.nan
    with pytest.raises(DatasetError, match="observation.state is not finite in frame 2"):
        write_shard(tmp_path, 0, [broken], FEATURES, fps=5)
    assert not shard_path(tmp_path, 0).exists()


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_images_survive_png(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encode_png(image)), image)
