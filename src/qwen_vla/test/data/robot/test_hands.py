# SPDX-License-Identifier: Apache-2.0
"""Human hands: relative wrist motion with correct rotations, 32 channels, and hands out of sight masked."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.robot.hands import CHANNELS, HandData, HandLine, read_hands
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.action_space import pack

CONFIG = QwenVLAConfig.preset("tiny")
LINE = {"instruction": "open the jar", "rate_hz": 30, "hands": "jar.npz"}


def recording(frames=40, seed=0, sides=("left", "right")):
    """Smooth random wrist motion; every array of the format."""
    rng, time = np.random.default_rng(seed), np.linspace(0, 1, frames)[:, None]
    arrays = {}
    for side in sides:
        start = Rotation.random(random_state=int(rng.integers(2**31)))
        arrays[f"{side}_translation"] = rng.normal(size=3) + time * rng.normal(size=3) * 0.3
        arrays[f"{side}_rotation"] = (start * Rotation.from_rotvec(time * rng.normal(size=3))).as_rotvec()
        arrays[f"{side}_pca"] = rng.normal(size=10) + time * rng.normal(size=10)
        arrays[f"{side}_present"] = np.ones(frames, bool)
    return arrays


def read(folder, arrays):
    np.savez(folder / "jar.npz", **arrays)
    return read_hands(folder, HandLine(**LINE))


def open_source(folder, *recordings, held_out=0.0, limit=None, images=True, lines=None, **more):
    for number, arrays in enumerate(recordings):
        np.savez(folder / f"{number}.npz", **arrays)
    lines = lines or [{**LINE, "hands": f"{number}.npz"} for number in range(len(recordings))]
    (folder / "hands.jsonl").write_text("\n".join(map(json.dumps, lines)))
    context = SourceContext(CONFIG, held_out, images=images, trajectory_steps=limit)
    return HandData(kind="hands", path=folder / "hands.jsonl", **more).open(context)


def sample(source, index=0):
    return source.sample(index, np.random.default_rng(0))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(0, 38))
def test_the_chunk_leads_from_the_first_wrist_to_the_later_ones(tmp_path_factory, seed, frame):
    arrays = recording(seed=seed)
    values, valid = read(tmp_path_factory.mktemp("hands"), arrays).chunk(frame, 16)
    assert values.shape == valid.shape == (16, 32)
    for offset, side in ((0, "left"), (16, "right")):
        first = Rotation.from_rotvec(arrays[f"{side}_rotation"][frame])
        for step in range(min(16, 39 - frame)):
            target = frame + 1 + step
            move, turn, pca = np.split(values[step, offset : offset + 16], [3, 6])
            place = arrays[f"{side}_translation"][frame] + first.apply(move)
            np.testing.assert_allclose(place, arrays[f"{side}_translation"][target], atol=1e-9)
            left_over = (
                Rotation.from_rotvec(arrays[f"{side}_rotation"][target]).inv() * first * Rotation.from_rotvec(turn)
            )
            assert left_over.magnitude() < 1e-9 and np.linalg.norm(turn) <= np.pi + 1e-9
            np.testing.assert_allclose(pca, arrays[f"{side}_pca"][target])
    np.testing.assert_array_equal(valid.all(axis=1), np.arange(16) < 39 - frame)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_a_moving_camera_changes_nothing(tmp_path_factory, seed):
    """The same hands, tracked in the frame of a camera that moves."""
    folder, arrays, rng = tmp_path_factory.mktemp("hands"), recording(seed=seed), np.random.default_rng(seed)
    fixed, _ = read(folder, arrays).chunk(3, 16)
    camera = np.tile(np.eye(4), (40, 1, 1))
    turns = Rotation.random(40, random_state=seed % 2**31)
    camera[:, :3, :3], camera[:, :3, 3] = turns.as_matrix(), rng.normal(size=(40, 3))
    seen = dict(arrays, camera=camera)
    for side in ("left", "right"):
        seen[f"{side}_translation"] = turns.inv().apply(arrays[f"{side}_translation"] - camera[:, :3, 3])
        seen[f"{side}_rotation"] = (turns.inv() * Rotation.from_rotvec(arrays[f"{side}_rotation"])).as_rotvec()
    np.testing.assert_allclose(read(folder, seen).chunk(3, 16)[0], fixed, atol=1e-9)


def test_a_missing_hand_is_masked_per_step_and_per_channel(tmp_path):
    arrays = recording()
    arrays["left_present"][5:8] = False
    arrays["left_translation"][5:8] = np.nan  # trackers write nothing there
    source = open_source(tmp_path, arrays)
    found = sample(source, 0)  # frame 0: the left hand is lost for 3 of the next 16 frames
    assert found.valid.shape == (16, 32) and found.valid[:, 16:].all()
    np.testing.assert_array_equal(~found.valid[:, :16].any(axis=1), np.isin(np.arange(16), [4, 5, 6]))
    lost = sample(source, 6)  # not there at the observation: nothing to be relative to
    assert not lost.valid[:, :16].any() and lost.valid[:, 16:].all()
    packed, mask = pack(lost.actions, 16, 64, lost.valid)
    assert mask.sum() == 16 * 16 and np.isfinite(packed).all() and (packed[~mask] == 0).all()


def test_statistics_come_from_hands_that_are_there(tmp_path):
    arrays = recording(sides=("right",))
    source = open_source(tmp_path, arrays)
    quantiles = source.statistics["human"]
    assert quantiles.channel_names == CHANNELS and len(CHANNELS) == 32
    assert (quantiles.q01[:16] == 0).all() and (quantiles.q99[:16] == 0).all()
    pca = arrays["right_pca"][1:]
    assert (quantiles.q01[22:] >= pca.min(0)).all() and (quantiles.q99[22:] <= pca.max(0)).all()
    middle = np.abs(sample(source, 10).actions[:, 22:])
    assert middle.max() <= 1


def test_frames_with_no_hand_to_follow_are_no_samples(tmp_path):
    arrays = recording(sides=("left",))
    arrays["left_present"][10:] = False
    assert len(open_source(tmp_path, arrays).training) == 9
    arrays["left_present"][:] = False
    with pytest.raises(DataError, match="no hand is visible"):
        open_source(tmp_path, arrays)


def test_prompt_and_images(tmp_path):
    for i in range(40):
        Image.new("RGB", (8, 8), (6 * i, 0, 0)).save(tmp_path / f"{i}.png")
    line = {**LINE, "hands": "0.npz", "frames": [f"{i}.png" for i in range(40)]}
    source = open_source(tmp_path, recording(), lines=[line])
    found = sample(source, 7)
    assert found.images["ego"].shape == (CONFIG.image_size, CONFIG.image_size, 3) and found.images["ego"][0, 0, 0] == 42
    assert found.text == (
        "The robot is human with dual arms. The control frequency is 30 Hz. Please predict the next 16 control actions "
        "to execute the following task: open the jar."
    )
    assert found.text in source.texts() and source.camera_tags == ("ego",)


def test_whole_trajectories_cover_the_recording_once(tmp_path):
    source = open_source(tmp_path, recording(), limit=25, images=False)
    assert [len(sample(source, index).actions) for index in source.training] == [25, 14]
    assert "the next 14 control actions" in sample(source, 1).text


def test_recordings_are_held_out_whole(tmp_path):
    source = open_source(tmp_path, *[recording(seed=s) for s in range(4)], held_out=0.25)
    np.testing.assert_array_equal(source.held_out, np.arange(3 * 39, 4 * 39))
    assert len(source.tasks) == 3 * 39


def without(name):
    arrays = recording()
    del arrays[name]
    return arrays


def spoiled(name, value):
    arrays = recording()
    arrays[name][4] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.ones(3)}, "has neither left_translation nor right_translation"),
        (without("right_pca"), "has no array right_pca"),
        (spoiled("left_rotation", np.nan), "left_rotation is not finite in frame 4"),
        (recording() | {"left_pca": np.ones((40, 9))}, r"left_pca has shape \(40, 9\), need \(40, 10\)"),
        (recording() | {"camera": np.ones((39, 4, 4))}, "camera has shape"),
    ],
)
def test_bad_recordings_are_named(tmp_path, arrays, message):
    with pytest.raises(DataError, match=rf"hands\.jsonl:2: .*{message}"):
        open_source(tmp_path, recording(), arrays)
    assert open_source(tmp_path, recording(), arrays, on_bad_rows="skip").provenance()["bad_rows"] == 1


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 half a file")
    for name, message in (("half.npz", "is not a readable .npz"), ("gone.npz", "no such file")):
        with pytest.raises(DataError, match=f"jsonl:1: .*{message}"):
            open_source(tmp_path, lines=[{**LINE, "hands": name}])
