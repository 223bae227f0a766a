# SPDX-License-Identifier: Apache-2.0
"""`kind: robot`: columns of all sorts become chunks of every control mode; bad rows are named, refused or left out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Kinematics, load_robot, pose_from_delta
from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.lerobot import Feature, LeRobotReader
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.robot.finite_differences import base_velocities
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.robot.rotations import ELEMENTS
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.images.transform import image_transform_of
from qwen_vla_control.motion.base_path import accumulated

WIDOWX = load_robot("widowx")
CONFIG = QwenVLAConfig.preset("tiny")
LENGTHS = (9, 4, 7)
IMAGE = Feature("image", (12, 16, 3), ("height", "width", "channel"))


def joint_walk(rng, length):
    """Joint positions that move a little from row to row, the gripper within its range."""
    home = np.array([WIDOWX.home[name] for name in WIDOWX.joint_names])
    walk = home + np.cumsum(rng.normal(scale=[0.03] * 6 + [0], size=(length, 7)), axis=0)
    walk[:, 6] = rng.uniform(0.015, 0.037, length)
    return walk.astype(np.float32)


def write(
    root, columns, fps=5.0, images=("observation.images.ego", "observation.images.cam_wrist"), seed=0, lengths=LENGTHS
):
    """A data set of three episodes; columns: name → (feature, function of (rng, length))."""
    rng = np.random.default_rng(seed)
    features = dict.fromkeys(images, IMAGE) | {name: feature for name, (feature, _) in columns.items()}
    recordings = []
    for length in lengths:
        frames = {key: rng.integers(0, 256, (length, *IMAGE.shape), dtype=np.uint8) for key in images}
        frames |= {name: make(rng, length) for name, (_, make) in columns.items()}
        recordings.append(Recording("lift the red cube", frames))
    write_shard(root, 0, recordings[:2], features, fps)
    write_shard(root, 1, recordings[2:], features, fps)
    finalize(root, 2, features, fps, "widowx")
    return recordings


JOINTS = {"observation.state": (Feature("float32", (7,), WIDOWX.joint_names), joint_walk)}
CONTEXT = SourceContext(CONFIG, 0.34)


def spec(root, **fields):
    return RobotData(kind="robot", path=root, **fields)


def in_control_mode(folder, mode, **more):
    """The WidowX as files of a user's, in another control mode."""
    import yaml

    from embodiment_descriptions import resource_path

    data = yaml.safe_load(resource_path("config/embodiments/widowx.yaml").read_text()) | {"control_mode": mode} | more
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))
    (folder / "robot.urdf").write_text(WIDOWX.urdf)
    return {"urdf": folder / "robot.urdf", "embodiment": folder / "robot.yaml"}


def test_our_own_recordings_become_samples_with_labels(recordings):
    source = spec(recordings / "demonstrations").open(CONTEXT)
    reader = LeRobotReader(recordings / "demonstrations")
    row = int(source.training[3])
    sample = source.sample(row, np.random.default_rng(0))
    assert sample.text == WIDOWX.prompt(reader.tasks[0]) and set(sample.images) == {"ego", "cam_wrist"}
    assert sample.labels.points.shape == (2, 4, 3) and not sample.labels.visible[:, [1, 3]].any(), "no goal, one tip"
    transform = image_transform_of(CONFIG)
    for tag, image in sample.images.items():
        np.testing.assert_array_equal(image, transform.resize(reader.image(f"observation.images.{tag}", row)))
    # The chunk, undone, leads to the commanded poses of the next rows.
    chunk = source.chunk(row)
    pose, action = reader.frames["observation.eef_pose"], reader.frames["action"]
    origin = np.eye(4)
    origin[:3, :3], origin[:3, 3] = Rotation.from_quat(pose[row, 3:]).as_matrix(), pose[row, :3]
    last = reader.episodes[0, 1] - 1
    for step, delta in enumerate(chunk):
        future = min(row + step, last)
        np.testing.assert_allclose(pose_from_delta(origin, delta[:6])[:3, 3], action[future, :3], atol=1e-5)
        assert delta[6] == action[future, 7]
    quantiles = source.statistics["widowx"]
    np.testing.assert_allclose(sample.actions, quantiles.normalize(chunk), atol=1e-6)
    chunks = np.concatenate([source.chunk(index) for index in source.training]).astype(np.float32)
    expected = np.quantile(chunks.astype(float), [0.01, 0.99], axis=0)
    np.testing.assert_allclose(np.stack([quantiles.q01, quantiles.q99])[:, [0, 1, 2, 6]], expected[:, [0, 1, 2, 6]])
    state = reader.frames["observation.state"][source.training].astype(float)
    np.testing.assert_allclose(source.statistics["widowx.state"].q99, np.quantile(state, 0.99, axis=0), rtol=1e-6)


def test_told_that_it_is_another_robot_it_is_to_stay_where_it_is(recordings):
    source = spec(recordings / "demonstrations", other_prompts=0.5).open(CONTEXT)
    plain = spec(recordings / "demonstrations").open(CONTEXT)
    row = int(source.training[3])
    samples = [source.sample(row, np.random.default_rng(seed)) for seed in range(60)]
    own = plain.sample(row, np.random.default_rng(0))
    others = [sample for sample in samples if sample.text != own.text]
    task = LeRobotReader(recordings / "demonstrations").tasks[0]
    assert {s.text for s in others} == {load_robot(name).prompt(task) for name in ("aloha", "mobile_base")}
    assert 15 < len(others) < 45
    assert all(np.allclose(sample.actions, own.actions, atol=1e-6) for sample in samples if sample.text == own.text)
    chunk = source.statistics["widowx"].unnormalize(others[0].actions)
    np.testing.assert_allclose(chunk[:, :3], 0, atol=1e-6)
    np.testing.assert_allclose(chunk[:, -1], source.chunk(row)[0, -1], atol=1e-5)
    held_out = int(source.held_out[0])
    assert len({source.sample(held_out, np.random.default_rng(seed)).text for seed in range(20)}) == 1, "its own"


def test_colors_change_in_training_and_not_where_it_is_measured(recordings):
    source = spec(recordings / "demonstrations", color_jitter=0.2).open(CONTEXT)
    plain = spec(recordings / "demonstrations").open(CONTEXT)

    def pictures(of, row, seed):
        return of.sample(row, np.random.default_rng(seed)).images

    row, held_out = int(source.training[3]), int(source.held_out[0])
    first, again, other = (pictures(source, row, seed) for seed in (1, 1, 2))
    for tag, image in pictures(plain, row, 1).items():
        assert first[tag].dtype == np.uint8 and first[tag].shape == image.shape
        assert (first[tag] == again[tag]).all() and (first[tag] != other[tag]).any()
        assert 1 < np.abs(first[tag].astype(int) - image).mean() < 60
        assert (pictures(source, held_out, 1)[tag] == pictures(plain, held_out, 2)[tag]).all()
    assert (plain.images["ego"][row] == pictures(plain, row, 1)["ego"]).all(), "what is stored stays as it is"


def test_where_absolute_joints_are_learned_nothing_says_stay(tmp_path):
    robot = in_control_mode(tmp_path, "joint_position")
    write(tmp_path / "data", JOINTS)
    with pytest.raises(DatasetError, match="other_prompts needs relative_actions"):
        spec(tmp_path / "data", robot=robot, other_prompts=0.1).open(CONTEXT)


def test_snapshots_have_nothing_to_act_on(recordings):
    source = spec(recordings / "snapshots").open(CONTEXT)
    assert source.sample(int(source.training[0]), None).actions is None and "widowx" not in source.statistics


@pytest.mark.parametrize("commanded", [True, False])
def test_joint_recordings_become_end_effector_chunks_by_kinematics(tmp_path, commanded):
    columns = dict(JOINTS)
    if commanded:
        names = tuple(reversed(WIDOWX.joint_names))
        columns["action"] = (Feature("float32", (7,), names), lambda rng, n: joint_walk(rng, n)[:, ::-1].copy())
    recordings = write(tmp_path, columns)
    source = spec(tmp_path).open(CONTEXT)
    assert source.provenance()["bad_rows"] == 0
    state = recordings[0].frames["observation.state"].astype(float)
    told = recordings[0].frames["action"][:, ::-1].astype(float) if commanded else np.vstack([state[1:], state[-1:]])
    kinematics = Kinematics(WIDOWX)
    chunk = source.chunk(2)
    for step in range(16):
        row = min(2 + step, LENGTHS[0] - 1)
        reached = pose_from_delta(kinematics.forward(state[2, :6]), chunk[step, :6])
        np.testing.assert_allclose(reached, kinematics.forward(told[row, :6]), atol=1e-6)
        np.testing.assert_allclose(chunk[step, 6], WIDOWX.gripper_from_joint(told[row, 6]), atol=1e-6)


def test_joint_position_chunks_are_the_commanded_joints(tmp_path):
    columns = JOINTS | {"told": (Feature("float32", (7,), WIDOWX.joint_names), joint_walk)}
    recordings = write(tmp_path / "data", columns)
    robot = in_control_mode(tmp_path, "joint_position")
    wanted = {"actions": {"column": "told"}}
    source = spec(tmp_path / "data", robot=robot, columns=wanted).open(CONTEXT)
    told = recordings[0].frames["told"]
    np.testing.assert_allclose(source.chunk(1)[:, :6], told[np.minimum(1 + np.arange(16), 8), :6])
    np.testing.assert_allclose(source.chunk(1)[0, 6], WIDOWX.gripper_from_joint(float(told[1, 6])), atol=1e-6)
    differences = spec(tmp_path / "data", robot=robot, columns={"action_kind": "none"}).open(CONTEXT)
    np.testing.assert_allclose(differences.chunk(1)[0, :6], recordings[0].frames["observation.state"][2, :6])


@pytest.mark.parametrize("mode", ["base_waypoints", "base_velocity"])
def test_odometry_becomes_waypoints_or_velocities(tmp_path, mode):
    def drive(rng, length):
        return np.cumsum(rng.normal(scale=0.3, size=(length, 3)), axis=0).astype(np.float32)

    recordings = write(
        tmp_path / "data", {"observation.odometry": (Feature("float32", (3,), ("x", "y", "theta")), drive)}
    )
    limits = {f"max_{way}{of}": 1.0 for way in ("linear", "angular") for of in ("", "_acceleration")}
    more = {"base": {"kind": "omnidirectional"}, "odometry": {}, "safety": {"base": limits}, "commands": []}
    source = spec(tmp_path / "data", robot=in_control_mode(tmp_path, mode, **more)).open(CONTEXT)
    driven = recordings[0].frames["observation.odometry"].astype(float)
    chunk = source.chunk(3)
    assert not chunk[LENGTHS[0] - 4 :].any(), "beyond the end it stands"
    if mode == "base_velocity":
        np.testing.assert_allclose(chunk[: LENGTHS[0] - 3], base_velocities(driven, 5.0)[3:], atol=1e-6)
    else:
        reached = accumulated(driven[3], chunk[: LENGTHS[0] - 4])[-5:]
        np.testing.assert_allclose(reached[:, :2], driven[4:, :2], atol=1e-6)
    assert source.sample(3, None).state.shape == (3,)


def test_changes_of_the_pose_along_the_base_axes_are_understood(tmp_path):
    def steps(rng, length):
        return np.hstack([rng.normal(scale=0.01, size=(length, 6)), rng.uniform(0, 1, (length, 1))]).astype(np.float32)

    recordings = write(tmp_path, JOINTS | {"action": (Feature("float32", (7,)), steps)})
    source = spec(tmp_path, columns={"action_kind": "pose_steps"}).open(CONTEXT)
    kinematics = Kinematics(WIDOWX)
    state, action = (recordings[0].frames[name].astype(float) for name in ("observation.state", "action"))
    pose = kinematics.forward(state[4, :6])
    expected = np.eye(4)
    expected[:3, :3] = Rotation.from_rotvec(action[4, 3:6]).as_matrix() @ pose[:3, :3]
    expected[:3, 3] = pose[:3, 3] + action[4, :3]
    np.testing.assert_allclose(pose_from_delta(pose, source.chunk(4)[0, :6]), expected, atol=1e-6)


RECORDED = {
    "quaternion": lambda turn: turn.as_quat(),
    "rotation_vector": lambda turn: turn.as_rotvec(),
    "euler": lambda turn: turn.as_euler("xyz"),
    "matrix_6d": lambda turn: np.swapaxes(turn.as_matrix()[:, :, :2], 1, 2).reshape(-1, 6),
}


@pytest.mark.parametrize("kind", RECORDED)
@pytest.mark.parametrize("action_kind", ["poses", "pose_steps"])
def test_rotations_are_read_as_the_data_have_them(tmp_path, kind, action_kind):
    """The same motion, its rotations recorded in four ways: the same chunks, and those of an independent product."""
    rng = np.random.default_rng(1)
    names = (*"xyz", *ELEMENTS[kind], "gripper")

    def commands(_, length):
        turns = Rotation.from_rotvec(rng.normal(scale=0.02 if action_kind == "pose_steps" else 0.7, size=(length, 3)))
        places, openings = rng.normal(scale=0.01, size=(length, 3)), rng.uniform(0, 1, (length, 1))
        expected.append((turns.as_matrix(), places))
        return np.hstack([places, RECORDED[kind](turns), openings]).astype(np.float32)

    expected: list = []
    columns = {"action": (Feature("float32", (len(names),), names), commands)}
    recordings = write(tmp_path, JOINTS | columns)
    action = {"column": "action", "rotation": kind}
    source = spec(tmp_path, columns={"action_kind": action_kind, "actions": action}).open(CONTEXT)
    pose = Kinematics(WIDOWX).forward(recordings[0].frames["observation.state"][4, :6].astype(float))
    turned, placed = expected[0][0][4], expected[0][1][4]
    goal = np.eye(4)
    goal[:3, :3] = turned @ pose[:3, :3] if action_kind == "pose_steps" else turned
    goal[:3, 3] = placed + (pose[:3, 3] if action_kind == "pose_steps" else 0)
    np.testing.assert_allclose(pose_from_delta(pose, source.chunk(4)[0, :6]), goal, atol=1e-5)


def test_cameras_and_channels_can_have_other_names(tmp_path):
    names = tuple(f"motor{k}" for k in range(7))
    columns = {"observation.state": (Feature("float32", (7,), names), lambda rng, n: joint_walk(rng, n)[:, ::-1])}
    recordings = write(tmp_path, columns, images=("observation.images.front", "observation.images.hand"))
    cameras = {"ego": "observation.images.front", "cam_wrist": "observation.images.hand"}
    joints = {"joints": {"column": "observation.state", "names": list(reversed(names))}}
    source = spec(tmp_path, cameras=cameras, columns=joints).open(CONTEXT)
    np.testing.assert_array_equal(source.state[:9], recordings[0].frames["observation.state"][:, ::-1])
    with pytest.raises(DatasetError, match="has no camera observation.images.ego; it has observation.images.front"):
        spec(tmp_path, columns=joints).open(CONTEXT)
    with pytest.raises(DatasetError, match="has no nonsense, .* it has motor0, motor1"):
        spec(
            tmp_path, cameras=cameras, columns={"joints": {"column": "observation.state", "names": ["nonsense"] * 7}}
        ).open(CONTEXT)
    blind = spec(tmp_path, use_images=False, columns=joints).open(CONTEXT)
    assert blind.sample(0, None).images == {} and blind.sample(0, None).actions is not None


def edit(root, shard, column, change):
    """Rewrite one column of one data file: change(list of cells) → list of cells."""
    path = root / f"data/chunk-000/file-{shard:03d}.parquet"
    table = pq.read_table(path)
    kind = table[column].type
    if pa.types.is_fixed_size_list(kind):
        kind = pa.list_(kind.value_type)
    cells = pa.array(change(table[column].to_pylist()), type=kind)
    pq.write_table(table.set_column(table.column_names.index(column), column, cells), path)


def put(row, value):
    return lambda cells: [*cells[:row], value, *cells[row + 1 :]]


BAD = {
    "nan": (
        "observation.state",
        put(3, [0.0, float("nan"), *[0.0] * 5]),
        "observation.state is not finite in channel 1",
    ),
    "width": ("observation.state", put(3, [0.0] * 6), "observation.state wrong width: 6 values, 7 needed"),
    "null": ("observation.state", put(3, None), "observation.state is missing"),
    "damaged": (
        "observation.images.ego",
        put(3, {"bytes": b"no image", "path": None}),
        "image .*ego cannot be decoded",
    ),
    "no image": ("observation.images.ego", put(3, {"bytes": None, "path": None}), "image .*ego is missing"),
    "gap": (
        "timestamp",
        lambda cells: [t + 0.4 * (k >= 3) for k, t in enumerate(cells)],
        "missing frame: 0.600 s after",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named_and_refused_or_left_out_with_every_chunk_that_holds_it(tmp_path, kind):
    column, change, message = BAD[kind]
    write(tmp_path, JOINTS, seed=1)
    edit(tmp_path, 0, column, change if kind != "gap" else lambda cells: [*change(cells[:9]), *cells[9:]])
    context = SourceContext(CONFIG, 0.0)
    with pytest.raises(DataError, match=rf"file-000.parquet row 3: .*{message}.*\n1 bad rows; repair them"):
        spec(tmp_path).open(context)
    source = spec(tmp_path, on_bad_rows="skip").open(context)
    # Chunks of 16 steps made by finite differences read the whole rest of the episode.
    np.testing.assert_array_equal(source.training, np.arange(4, sum(LENGTHS)))
    found = source.provenance()
    assert found["bad_rows"] == 1 and found["usable_rows"] == sum(LENGTHS) - 4
    assert len(found["bad_rows_listed"]) == 1 and "row 3" in found["bad_rows_listed"][0]
    for index in source.training:
        sample = source.sample(int(index), None)
        assert np.isfinite(sample.actions).all() and np.isfinite(sample.state).all()


def test_statistics_follow_the_data(tmp_path):
    write(tmp_path / "data", JOINTS)
    first = spec(tmp_path / "data").open(CONTEXT)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    copy = spec(tmp_path / "copy").open(CONTEXT)
    assert copy.source.fingerprint == first.source.fingerprint
    kept = sorted((tmp_path / "data/cache").glob("quantiles-*.json"))
    assert len(kept) == 2 and json.loads(kept[0].read_text())["made_from"]["data"] == first.source.fingerprint
    write(tmp_path / "other", JOINTS, seed=5)
    shutil.copytree(tmp_path / "other/data", tmp_path / "data/data", dirs_exist_ok=True)
    second = spec(tmp_path / "data").open(CONTEXT)
    assert second.source.fingerprint != first.source.fingerprint
    assert not np.allclose(second.statistics["widowx"].q99, first.statistics["widowx"].q99)
    other = spec(tmp_path / "other").open(CONTEXT)
    np.testing.assert_allclose(second.statistics["widowx"].q99, other.statistics["widowx"].q99)
    np.testing.assert_array_equal(second.sample(0, None).images["ego"], other.sample(0, None).images["ego"])


def test_the_rate_is_the_one_of_the_data(tmp_path):
    write(tmp_path, JOINTS, fps=10.0)
    source = spec(tmp_path).open(CONTEXT)
    assert "The control frequency is 10 Hz" in source.sample(0, None).text
    assert source.embodiments["widowx"].period == 0.1


def test_whole_trajectories_cover_every_episode_once(tmp_path):
    write(tmp_path, JOINTS)
    source = spec(tmp_path).open(SourceContext(CONFIG, 0.0, images=False, trajectory_steps=5))
    np.testing.assert_array_equal(source.training, [0, 5, 9, 13, 18])
    assert [len(source.sample(int(i), None).actions) for i in source.training] == [5, 4, 4, 5, 2]
    assert "predict the next 4 control actions" in source.sample(5, None).text


def test_a_trajectory_of_more_than_200_steps_is_one_sample(tmp_path):
    write(tmp_path, JOINTS, lengths=(450, 230, 12))
    chunks = spec(tmp_path).open(SourceContext(CONFIG, 0.0, images=False))
    source = spec(tmp_path).open(SourceContext(CONFIG, 0.0, images=False, trajectory_steps=600))
    np.testing.assert_array_equal(source.training, [0, 450, 680])
    for first, steps in ((0, 450), (450, 230)):
        sample = source.sample(first, None)
        assert sample.actions.shape == (steps, 7) and sample.valid is None, "all of them are valid"
        assert f"predict the next {steps} control actions" in sample.text
        known = source.statistics["widowx/trajectories"]
        whole = known.unnormalize(sample.actions)
        # The gripper is absolute: every chunk of the same recording has the same value at the same row.
        for row in (0, 210, steps - 1):
            chunk = chunks.statistics["widowx"].unnormalize(chunks.sample(first + row, None).actions)
            assert whole[row, 6] == pytest.approx(chunk[0, 6], abs=1e-5)


def test_what_does_not_fit_says_so(tmp_path):
    write(
        tmp_path,
        {"observation.state": (Feature("float32", (3,), ("a", "b", "c")), lambda rng, n: rng.normal(size=(n, 3)))},
    )
    with pytest.raises(
        DatasetError, match=r"state: 3 names cannot be mapped to the 7 of .*: a, b, c; .* has waist, sh"
    ):
        spec(tmp_path).open(CONTEXT)
    with pytest.raises(DatasetError, match="has no column speed; it has observation.state"):
        spec(tmp_path, columns={"actions": {"column": "speed"}}).open(CONTEXT)
    with pytest.raises(DatasetError, match="'velocities' cannot become eef_delta; choose poses"):
        spec(tmp_path, columns={"actions": {"column": "observation.state"}, "action_kind": "velocities"}).open(CONTEXT)


def test_a_gripper_that_rarely_closes_is_taught_to_close(tmp_path):
    """Closed in one row of 200: its 1 % quantile is open, but its known range is 0 … 1."""
    rng = np.random.default_rng(0)
    open_at, closed_at = (WIDOWX.gripper_to_joint(share) for share in (1.0, 0.0))
    fingers = np.full(200, open_at)
    fingers[120] = closed_at
    joints = np.concatenate([0.1 * rng.normal(size=(200, 6)), fingers[:, None]], axis=1).astype(np.float32)
    features = {"observation.state": Feature("float32", (7,), WIDOWX.joint_names)}
    write_shard(tmp_path, 0, [Recording("close", {"observation.state": joints})], features, 5.0)
    finalize(tmp_path, 1, features, 5.0, "widowx")
    context = SourceContext(CONFIG, 0.0, images=False)
    source = spec(tmp_path, robot=in_control_mode(tmp_path, "joint_position")).open(context)
    found = source.statistics["widowx"]
    gripper = list(found.channel_names).index("gripper")
    label = source.chunk(119)[:, gripper]
    assert (found.q01[gripper], found.q99[gripper]) == (0, 1) and label.min() == pytest.approx(0, abs=1e-6)
    sampled = found.unnormalize(source.sample(119, rng).actions)[:, gripper]
    np.testing.assert_allclose(sampled, label, atol=1e-6)
