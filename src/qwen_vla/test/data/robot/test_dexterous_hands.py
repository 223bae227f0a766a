# SPDX-License-Identifier: Apache-2.0
"""A dexterous hand: its joints are channels of their own, from the description over the gate to a trained policy."""

import numpy as np
import pytest
import yaml
from accelerate.state import AcceleratorState
from foreign_dataset import LENGTHS, write

from embodiment_descriptions import ActionLayout, ChannelKind, Embodiment, describe
from embodiment_descriptions.errors import EmbodimentError
from qwen_vla import Observation, Policy, QwenVLAConfig
from qwen_vla.data.formats.named_robot import RobotFiles
from qwen_vla.data.motions.motion_source import MotionData, RobotMotions
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla.inspection import inspect
from qwen_vla.training.recipe import Recipe
from qwen_vla.training.trainer import train
from qwen_vla_control.gate.chunk_to_joints import ChunkToJoints

ARM, HAND = ("shoulder", "elbow", "wrist"), ("thumb_turn", "thumb_bend", "index_bend", "middle_bend")
CHANNELS = (*ARM, *HAND)
LIMIT = {**dict.fromkeys(ARM, (-2.5, 2.5)), **dict.fromkeys(HAND, (0.0, 1.6))}
HOME = dict(zip(CHANNELS, (0.1, 0.6, 1.2, 0.2, 0.3, 0.4, 0.5), strict=True))
ROWS = sum(LENGTHS)


def urdf() -> str:
    """Three joints in a row, and a hand of a thumb with two joints and two fingers with one."""
    tree = {"shoulder": ("base", "0 0 0", "0 0 1"), "elbow": ("shoulder", "0 0 0.1", "0 1 0")}
    tree |= {"wrist": ("elbow", "0 0 0.3", "0 1 0"), "thumb_turn": ("wrist", "0.05 0 0.2", "0 0 1")}
    tree |= {"thumb_bend": ("thumb_turn", "0.04 0 0", "0 1 0")}
    tree |= {"index_bend": ("wrist", "0 0.02 0.25", "0 1 0"), "middle_bend": ("wrist", "0 0.04 0.25", "0 1 0")}
    joints = [
        f'<joint name="{name}" type="revolute"><parent link="{parent}_link"/><child link="{name}_link"/>'
        f'<origin xyz="{origin}"/><axis xyz="{axis}"/>'
        f'<limit lower="{LIMIT[name][0]}" upper="{LIMIT[name][1]}" velocity="2" effort="9"/></joint>'
        for name, (parent, origin, axis) in tree.items()
    ]
    palm = '<joint name="palm" type="fixed"><parent link="wrist_link"/><child link="palm_link"/>'
    palm += '<origin xyz="0 0 0.2"/></joint>'
    links = "".join(f'<link name="{link}_link"/>' for link in ("base", "palm", *tree))
    return f'<robot name="grasper">{links}{"".join(joints)}{palm}</robot>'


def configuration(**changes) -> dict:
    arm = {"name": "arm", "joints": list(ARM), "base_link": "base_link", "tip_link": "palm_link", "hand": list(HAND)}
    camera = {"tag": "ego", "topic": "ego/image_raw", "info_topic": "ego/camera_info"}
    fields = {"name": "grasper", "robot_tag": "Grasper", "control_mode": "joint_position", "rate_hz": 5}
    return {**fields, "chunk_size": 16, "arms": [arm], "cameras": [camera], "home": HOME, **changes}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grasper")
    (folder / "grasper.urdf").write_text(urdf())
    (folder / "grasper.yaml").write_text(yaml.safe_dump(configuration()))
    return RobotFiles(urdf=folder / "grasper.urdf", embodiment=folder / "grasper.yaml")


@pytest.fixture(scope="module")
def robot():
    return Embodiment.from_urdf(urdf(), configuration())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Every joint moves in its own way; (rows, joints) as well as the folder."""
    steps = np.arange(ROWS)[:, None] / 5 + np.arange(len(CHANNELS))
    values = np.array([HOME[name] for name in CHANNELS]) + 0.15 * np.sin(steps)
    root = tmp_path_factory.mktemp("data") / "grasps"
    columns = {name: (values, list(CHANNELS)) for name in ("observation.state", "action")}
    return write(root, columns, robot="grasper", cameras=("ego",)), values


def test_every_joint_of_a_hand_is_a_channel_behind_those_of_its_arm(robot):
    layout = robot.layout
    assert layout.names == robot.joint_names == CHANNELS
    assert [layout.channels[column].kind for column in layout.joints] == [ChannelKind.JOINT] * 3 + [
        ChannelKind.HAND
    ] * 4
    assert list(layout.motion("")) == [0, 1, 2] and list(layout.arm("")) == list(range(7))
    assert ActionLayout.parse(robot.control_mode, CHANNELS, dict.fromkeys(CHANNELS, False)).names == CHANNELS
    text = describe(robot)
    assert "hand          thumb_turn, thumb_bend, index_bend, middle_bend" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("thumb_")] == ["hand", "hand"]


def test_parts_of_an_action_are_put_together_as_they_were_taken_apart(robot):
    rows = np.random.default_rng(0).normal(size=(5, 7))
    (part,) = robot.layout.decode(rows).arms
    np.testing.assert_array_equal(part.motion, rows[:, :3])
    np.testing.assert_array_equal(part.hand, rows[:, 3:])
    np.testing.assert_array_equal(robot.layout.encode(robot.layout.decode(rows)), rows)


def test_the_gate_sends_the_fingers_where_the_chunk_says(robot):
    home = np.array([HOME[name] for name in CHANNELS])
    rows = home + np.linspace(0, 0.1, 4)[:, None] * np.arange(1, 8)
    np.testing.assert_allclose(ChunkToJoints(robot).path(rows, home), rows)


def test_a_hand_that_no_channel_moves_is_refused_by_the_gate():
    by_pose = Embodiment.from_urdf(urdf(), configuration(control_mode="eef_delta"))
    assert by_pose.channel_names == ("x", "y", "z", "rx", "ry", "rz")
    with pytest.raises(ValueError, match="'grasper' has a dexterous hand, which no eef_delta channel moves"):
        ChunkToJoints(by_pose)


def test_joints_of_a_hand_are_checked_against_the_urdf():
    arm = configuration()["arms"][0]
    with pytest.raises(EmbodimentError, match="has no joint 'pinky_bend'"):
        Embodiment.from_urdf(urdf(), configuration(arms=[{**arm, "hand": ["pinky_bend"]}]))
    with pytest.raises(EmbodimentError, match="joint wrist is named more than once"):
        Embodiment.from_urdf(urdf(), configuration(arms=[{**arm, "hand": ["wrist"]}]))


def test_hands_rest_while_synthetic_motions_move_their_arm(files):
    spec = MotionData(kind="motions", robots=(files,), count=4, templates=("move",), control_mode="joint_position")
    motions = RobotMotions(spec, 0, 150)
    actions = motions.actions(motions.motion(0))
    np.testing.assert_allclose(actions[:, 3:], np.tile([HOME[name] for name in HAND], (len(actions), 1)), atol=1e-6)
    assert np.ptp(actions[:, :3], axis=0).max() > 0.01


def test_recordings_of_a_hand_are_inspected_and_become_chunks(files, recorded):
    folder, values = recorded
    findings = inspect(folder, robot=str(files.embodiment.with_name("grasper.yaml")))
    assert findings.ok, [f"{problem.where}: {problem.what}" for problem in findings.problems]
    spec = RobotData(kind="robot", path=str(folder), robot=files)
    source = spec.open(SourceContext(QwenVLAConfig.preset("tiny"), 0.0))
    np.testing.assert_allclose(source.chunk(2)[:8], values[2:10], atol=1e-6)
    assert source.embodiments["grasper"].channel_names == CHANNELS


def test_a_policy_of_a_hand_is_trained_and_acts(files, recorded, tmp_path):
    fields = {"stage": "sft", "name": "grasper", "output": tmp_path / "out", "steps": 3, "batch_size": 4, "threads": 1}
    data = [{"kind": "robot", "path": str(recorded[0]), "robot": files.model_dump(mode="json")}]
    optimizer = {"backbone_lr": 1e-3, "expert_lr": 1e-3, "warmup_steps": 1}
    losses = {"action": 1.0, "language": 0.0}
    settings = {"data": data, "optimizer": optimizer, "losses": losses, "held_out_share": 0.0}
    try:
        train(Recipe.model_validate(fields | settings))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    policy = Policy.from_pretrained(tmp_path / "out/model")
    chunk = policy.infer(Observation({"ego": np.zeros((96, 96, 3), np.uint8)}, "close the hand"), seed=0)
    assert chunk.channel_names == CHANNELS and chunk.data.shape == (16, 7) and np.isfinite(chunk.data).all()
