# SPDX-License-Identifier: Apache-2.0
"""What the parity test asks of Hugging Face's own lerobot, in the environment that scripts/lerobot_venv.sh makes.

lerobot_peer.py read ROOT OUT.npz      open a data set with lerobot and write down everything that it gives
lerobot_peer.py write ROOT OUT.npz     write a data set with lerobot, and what went into it
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

LENGTHS = (7, 2, 5)
TASKS = ("lift the red cube", "close the drawer", "lift the red cube")
LATER = "go home"  # the task of an episode's last row
SIZE = (64, 96)


def read(root: Path, out: Path) -> None:
    """Every item of the data set as lerobot gives it; images as float32 C×H×W in 0…1."""
    data = LeRobotDataset("local/parity", root=root, video_backend="pyav")
    items = [data[index] for index in range(len(data))]
    told = {"task", "language_persistent", "language_events"}
    columns = {key: np.stack([np.asarray(item[key]) for item in items]) for key in items[0].keys() - told}
    about = {"episodes": data.num_episodes, "fps": data.fps, "tasks": [item["task"] for item in items]}
    about["robot_type"] = data.meta.robot_type
    np.savez(out, about=json.dumps(about), **columns)


def picture(row: int, episode: int) -> np.ndarray:
    """A smooth image that differs from row to row and survives video compression."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    waves = [np.sin((x + 9 * row) / 17 + episode), np.cos((y - 5 * row) / 13), np.sin((x + y + 11 * episode) / 23)]
    return (127.5 * (1 + np.stack(waves, -1))).astype(np.uint8)


def annotate(root: Path) -> None:
    """Add the language columns of lerobot 0.6 by its own writer; older versions know none."""
    try:
        from lerobot.annotations.steerable_pipeline.reader import iter_episodes
        from lerobot.annotations.steerable_pipeline.staging import EpisodeStaging
        from lerobot.annotations.steerable_pipeline.writer import LanguageColumnsWriter, speech_atom
        from lerobot.datasets.language import language_feature_info
    except ImportError:
        return
    staging, episodes = root.parent / "staging", list(iter_episodes(root))
    for episode in episodes[:-1]:  # the last one has empty lists
        at, staged = episode.frame_timestamps[0], EpisodeStaging(staging, episode.episode_index)
        subtask = {"role": "assistant", "content": "reach", "style": "subtask", "timestamp": at}
        staged.write("plan", [subtask, subtask | {"role": "user", "content": "fetch it", "style": "task_aug"}])
        staged.write("interjections", [speech_atom(at, "here I go")])
    LanguageColumnsWriter().write_all(episodes, staging, root)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"] |= language_feature_info()
    (root / "meta/info.json").write_text(json.dumps(info))


def write(root: Path, out: Path) -> None:
    """Images, a video, numbers of several kinds, text, several tasks per episode, several data and video files."""
    axes = ["height", "width", "channel"]
    features = {
        "observation.images.ego": {"dtype": "image", "shape": (*SIZE, 3), "names": axes},
        "observation.images.wrist": {"dtype": "video", "shape": (*SIZE, 3), "names": axes},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
        "observation.grid": {"dtype": "float32", "shape": (2, 2), "names": None},
        "action": {"dtype": "float64", "shape": (2,), "names": {"motors": ["left", "right"]}},
        "count": {"dtype": "int64", "shape": (1,), "names": None},
        "touching": {"dtype": "bool", "shape": (1,), "names": None},
        "remark": {"dtype": "string", "shape": (1,), "names": None},
    }
    data = LeRobotDataset.create("local/parity", 10, features, root=root, robot_type="made_up", use_videos=True)
    data.meta.update_chunk_settings(data_files_size_in_mb=1e-3, video_files_size_in_mb=1e-3)  # a file per episode
    random = np.random.default_rng(0)
    given: dict[str, list] = {name: [] for name in features}
    for episode, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        for row in range(length):
            frame = {
                "observation.images.ego": picture(row, episode),
                "observation.images.wrist": picture(row, 10 + episode),
                "observation.state": random.normal(size=3).astype(np.float32),
                "observation.grid": random.normal(size=(2, 2)).astype(np.float32),
                "action": random.normal(size=2),
                "count": np.array([row], np.int64),
                "touching": np.array([row % 2 == 0]),
                "remark": f"row {row}",
            }
            data.add_frame({**frame, "task": LATER if row == length - 1 else task})
            for name, value in frame.items():
                given[name].append(value)
        data.save_episode()
    data.finalize()
    annotate(root)
    np.savez(out, **{name: np.stack([np.asarray(value) for value in values]) for name, values in given.items()})


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
