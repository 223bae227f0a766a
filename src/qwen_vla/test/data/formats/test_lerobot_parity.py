# SPDX-License-Identifier: Apache-2.0
"""lerobot itself opens what we write, and we open what it writes, frame by frame.

lerobot's pins contradict ours, so it runs in an environment of its own: scripts/lerobot_venv.sh makes it.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qwen_vla.data.formats.lerobot import Feature, LeRobotEpisodes, LeRobotReader
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard

ROOT = Path(__file__).resolve().parents[5]
PYTHON = Path(os.environ.get("LEROBOT_PYTHON", ROOT / "out/lerobot_venv/bin/python"))
PIXELS = Feature("image", (24, 32, 3), ("height", "width", "channel"))
FEATURES = {
    "observation.images.ego": PIXELS,
    "observation.images.cam_wrist": PIXELS,
    "observation.state": Feature("float32", (3,), ("a", "b", "c")),
    "action": Feature("float32", (2,), ("left", "right")),
    "annotation.target": Feature("int64", (1,)),
    "touching": Feature("bool", (1,)),
    "remark": Feature("string", (1,)),
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no lerobot in {PYTHON}; scripts/lerobot_venv.sh makes it"),
]


def lerobot(task: str, root: Path, out: Path) -> tuple[dict, dict]:
    """lerobot's view: arrays by column, and metadata."""
    command = [PYTHON, ROOT / "scripts/lerobot_peer.py", task, root, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    arrays = dict(np.load(out))
    return arrays, json.loads(str(arrays.pop("about", "{}")))


def eight_bits(images: np.ndarray) -> np.ndarray:
    """lerobot's float C×H×W in 0…1 as uint8 H×W×C."""
    return np.round(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def recording(rng: np.random.Generator, length: int, task: str) -> Recording:
    frames = {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "annotation.target": rng.integers(0, 3, length),
        "touching": rng.integers(0, 2, length).astype(bool),
        "remark": np.array([f"row {row}" for row in range(length)], dtype=object),
    }
    for key in ("observation.images.ego", "observation.images.cam_wrist"):
        frames[key] = rng.integers(0, 256, (length, *PIXELS.shape), dtype=np.uint8)
    return Recording(task, frames)


def test_lerobot_opens_what_we_write(tmp_path):
    rng = np.random.default_rng(0)
    recordings = [recording(rng, 4, "lift the red cube"), recording(rng, 1, "grab it"), recording(rng, 6, "grab it")]
    root = tmp_path / "ours"
    write_shard(root, 0, recordings[:2], FEATURES, fps=5)
    write_shard(root, 1, recordings[2:], FEATURES, fps=5)
    finalize(root, 2, FEATURES, fps=5.0, robot_type="widowx", extra={"kind": "demonstrations"})
    read, about = lerobot("read", root, tmp_path / "read.npz")
    assert about["episodes"] == 3 and about["fps"] == 5 and about["robot_type"] == "widowx"
    assert about["tasks"] == [r.task for r in recordings for _ in range(len(r))]
    for name, feature in FEATURES.items():
        given = np.concatenate([r.frames[name] for r in recordings])
        found = eight_bits(read[name]) if feature.dtype == "image" else read[name].reshape(given.shape)
        np.testing.assert_array_equal(found, given.astype(found.dtype), err_msg=name)
    np.testing.assert_array_equal(read["episode_index"], np.repeat([0, 1, 2], [4, 1, 6]))


def test_we_open_what_lerobot_writes_videos_included(tmp_path):
    root = tmp_path / "theirs"
    given, _ = lerobot("write", root, tmp_path / "given.npz")
    read, about = lerobot("read", root, tmp_path / "read.npz")
    reader = LeRobotReader(root)
    assert len(list(root.glob("data/**/*.parquet"))) == 3 and len(list(root.glob("videos/**/*.mp4"))) == 3
    assert reader.info["robot_type"] == "made_up" and reader.fps == about["fps"] == 10
    assert not reader.defects and len(reader) == len(given["count"])
    np.testing.assert_array_equal(np.diff(reader.episodes).ravel(), [7, 2, 5])
    assert list(reader.instructions) == about["tasks"]
    for name in ("observation.state", "observation.grid", "action", "count", "touching", "remark"):
        ours = reader.frames[name]
        np.testing.assert_array_equal(ours, given[name].reshape(ours.shape).astype(ours.dtype), err_msg=name)
    assert reader.features["action"] == ("left", "right")
    images = np.stack(list(reader.images("observation.images.ego", lambda image: image)))
    np.testing.assert_array_equal(images, given["observation.images.ego"])
    np.testing.assert_array_equal(images, eight_bits(read["observation.images.ego"]))
    video = np.stack(list(reader.images("observation.images.wrist", lambda image: image)))
    # Two builds of FFmpeg may round colors differently, a neighboring frame is some 40 levels away.
    assert np.abs(video.astype(int) - eight_bits(read["observation.images.wrist"])).max() <= 2
    assert np.abs(video.astype(int) - given["observation.images.wrist"]).mean() < 5  # compression
    for episode in LeRobotEpisodes(reader.root):
        last = len(episode) - 1
        row = int(episode.columns["index"].values[last, 0])
        np.testing.assert_array_equal(episode.images["observation.images.wrist"][last], video[row])
