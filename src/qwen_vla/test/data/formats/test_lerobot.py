# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v3.0 on disk: written data is read back, interruptions are harmless, errors name the place."""

import json
import os
import shutil

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla.data.formats.cache import cache_folder
from qwen_vla.data.formats.frames import decoded_frames
from qwen_vla.data.formats.lerobot import (
    DatasetError,
    Feature,
    LeRobotEpisodes,
    LeRobotReader,
    decode_image,
    download,
    shard_path,
)
from qwen_vla.data.formats.lerobot_writer import Recording, encode_png, finalize, write_shard

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


def wave(row, height=48, width=64):
    """A smooth image that survives compression and differs from row to row."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((x + 9 * row) / 9), np.cos((y - 7 * row) / 7), np.sin((x + y + 11 * row) / 11)]
    return (127.5 * (1 + np.stack(waves, -1))).astype(np.uint8)


def write_video(path, rows, fps, codec, gop):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=fps, options={"g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for row in rows:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(wave(row), format="rgb24")))
        out.mux(stream.encode())


@pytest.fixture(params=[("h264", 12), ("libsvtav1", 2), ("mpeg4", 100)], ids=lambda p: f"{p[0]}-{p[1]}")
def filmed(tmp_path, request):
    """The `dataset`'s episodes with a camera as videos, the first two episodes in one file; as others write it."""
    codec, gop = request.param
    rng = np.random.default_rng(0)
    write_shard(tmp_path, 0, [episode(rng, 14), episode(rng, 9, "grab it")], FEATURES, fps=10)
    write_shard(tmp_path, 1, [episode(rng, 20)], FEATURES, fps=10)
    finalize(tmp_path, 2, FEATURES, fps=10.0, robot_type="widowx")
    write_video(tmp_path / "videos/cam/chunk-000/file-000.mp4", range(23), 10, codec, gop)
    write_video(tmp_path / "videos/cam/chunk-000/file-001.mp4", range(23, 43), 10, codec, gop)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    info["features"]["cam"] = {"dtype": "video", "shape": [3, 48, 64], "names": ["channels", "height", "width"]}
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    path = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    for row, (file, start) in zip(rows, [(0, 0.0), (0, 1.4), (1, 0.0)], strict=True):
        row |= {"videos/cam/chunk_index": 0, "videos/cam/file_index": file, "videos/cam/from_timestamp": start}
    pq.write_table(pa.Table.from_pylist(rows[:2]), path)
    pq.write_table(pa.Table.from_pylist(rows[2:]), path.with_name("file-001.parquet"))  # several files, too
    return tmp_path


def test_frames_of_videos_are_found_by_time_in_any_order(filmed):
    reader = LeRobotReader(filmed)
    assert reader.image_keys == ("observation.images.ego", "cam")
    in_order = np.stack(list(reader.images("cam", lambda image: image)))
    assert in_order.shape == (43, 48, 64, 3)
    for row in range(43):
        errors = [np.abs(in_order[row].astype(int) - wave(other)).mean() for other in range(max(row - 2, 0), row + 3)]
        assert errors.index(min(errors)) == min(row, 2), "the very frame, not one beside it"
    for row in np.random.default_rng(1).permutation(43):
        np.testing.assert_array_equal(reader.image("cam", int(row)), in_order[row])
    np.testing.assert_array_equal(LeRobotEpisodes(reader.root)[1].images["cam"][-1], in_order[22])


def test_a_video_has_the_name_of_its_codec_not_of_the_decoder_at_hand(filmed):
    assert LeRobotReader(filmed).codec("cam") in ("h264", "av1", "mpeg4")


def test_a_video_that_ends_too_early_or_is_missing_spoils_the_rows_behind_it(filmed):
    first, second = sorted(filmed.glob("videos/cam/*/*.mp4"))
    shutil.copy(second, first)  # 20 frames where 23 are needed
    second.unlink()
    found = list(LeRobotReader(filmed).images("cam", lambda image: image))
    assert [isinstance(image, DatasetError) for image in found] == [False] * 20 + [True] * 23
    assert "file-000.parquet row 20: image cam cannot be decoded" in str(found[20]) and "no frame at 2.0" in str(
        found[20]
    )
    assert "file-001.mp4: no such file" in str(found[30])


def test_columns_of_all_kinds(tmp_path):
    features = {
        "whole": Feature("int32", (2,)),
        "exact": Feature("float64", (1,)),
        "touching": Feature("bool", (1,)),
        "remark": Feature("string", (1,)),
        "grid": Feature("float32", (2, 3)),
    }
    given = {
        "whole": np.arange(6, dtype=np.int32).reshape(3, 2),
        "exact": np.array([0.1, 0.2, 1e30]),
        "touching": np.array([True, False, True]),
        "remark": np.array(["a", "", "ü"], dtype=object),
        "grid": np.arange(18, dtype=np.float32).reshape(3, 2, 3),
    }
    write_shard(tmp_path, 0, [Recording("do it", given)], features, fps=5)
    finalize(tmp_path, 1, features, fps=5.0, robot_type="any")
    reader = LeRobotReader(tmp_path)
    for name, values in given.items():
        assert reader.frames[name].dtype == values.dtype
        np.testing.assert_array_equal(reader.frames[name], values)
    assert set(given) - set(reader.features) == {"remark"}


@pytest.mark.parametrize("names", [None, ["a", "b", "c"], {"motors": ["a", "b", "c"]}, {"x": "a", "y": "b", "z": "c"}])
def test_metadata_that_others_leave_out_or_write_differently(dataset, names):
    root, episodes = dataset
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = names
    for key in ("robot_type", "splits", "chunks_size", "total_frames"):
        del info[key]
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").unlink()
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["tasks", "dataset_from_index", "dataset_to_index"]), path)
    reader = LeRobotReader(root)
    assert reader.tasks == [e.task for e in episodes]
    assert reader.features["observation.state"] == (("a", "b", "c") if names else ())
    np.testing.assert_array_equal(reader.episodes, [[0, 4], [4, 5], [5, 8]])


def test_the_hash_follows_contents_not_times(dataset):
    root, _ = dataset
    first = LeRobotReader(root).fingerprint
    os.utime(shard_path(root, 1), (1, 1))
    assert LeRobotReader(root).fingerprint == first
    path = root / "meta/info.json"
    path.write_text(path.read_text() + " ")
    assert LeRobotReader(root).fingerprint != first


def test_a_data_set_that_cannot_be_written_to_keeps_its_cache_elsewhere(dataset, monkeypatch):
    root, _ = dataset
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "elsewhere"))
    (root / "cache").write_text("in the way")
    folder = cache_folder(root)
    assert folder.is_dir() and folder.is_relative_to(root.parent / "elsewhere") and folder == cache_folder(root)
    frames = decoded_frames(LeRobotReader(root), (8, 10))["observation.images.ego"].frames
    np.testing.assert_array_equal(frames[6], LeRobotReader(root).image("observation.images.ego", 6))


def test_a_dataset_that_cannot_be_downloaded_is_named_with_the_way_out():
    """For instance because that cannot be its name; the hub is not asked."""
    with pytest.raises(DatasetError, match="'not/a/name' of the Hugging Face hub cannot be .*; check its name and the"):
        download("not/a/name")
