# SPDX-License-Identifier: Apache-2.0
"""Synthetic motions: physically possible, the same for the same seed, and whole; for robots of the suite and others."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import load_robot, pose_from_delta
from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.formats.named_robot import RobotFiles
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.motions.motion_files import MotionFiles, choose_robot
from qwen_vla.data.motions.motion_source import MotionData, RobotMotions
from qwen_vla.data.motions.motion_templates import (
    DIRECTIONS,
    MAX_TIP_SPEED,
    TEMPLATES,
    MotionError,
    Planner,
    minimum_jerk,
)
from qwen_vla.data.samples import SourceContext

CONFIG = QwenVLAConfig.preset("tiny")
RATE = 50.0


def spec(**more):
    return MotionData(**{"kind": "motions", "robots": ["widowx"], "count": 40, **more})


def open_source(held_out=0.1, steps=150, **more):
    return spec(**more).open(SourceContext(CONFIG, held_out, trajectory_steps=steps))


def small_arm(prefix, root):
    """Links, joints and configuration of an arm of three joints and a gripper."""
    limit = '<limit lower="-2.5" upper="2.5" velocity="2" effort="9"/>'
    links = [f"{prefix}{part}" for part in ("shoulder", "upper", "lower", "finger", "tip")]
    joints, above = [], root
    for name, link, axis, offset in zip("abc", links, ("0 0 1", "0 1 0", "0 1 0"), ("0", "0.1", "0.3"), strict=False):
        joints.append(
            f'<joint name="{prefix}{name}" type="revolute"><parent link="{above}"/><child link="{link}"/>'
            f'<origin xyz="0 0 {offset}"/><axis xyz="{axis}"/>{limit}</joint>'
        )
        above = link
    joints.append(
        f'<joint name="{prefix}slide" type="prismatic"><parent link="{above}"/><child link="{prefix}finger"/>'
        '<axis xyz="0 1 0"/><limit lower="0" upper="0.04" velocity="0.1" effort="5"/></joint>'
    )
    joints.append(
        f'<joint name="{prefix}end" type="fixed"><parent link="{above}"/><child link="{prefix}tip"/>'
        '<origin xyz="0 0 0.3"/></joint>'
    )
    gripper = {"joint": f"{prefix}slide", "closed": 0.0, "open": 0.04}
    names = [f"{prefix}{name}" for name in "abc"]
    arm = {"joints": names, "base_link": root, "tip_link": f"{prefix}tip", "gripper": gripper}
    return links, joints, arm


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """Files of a user's robot with two arms of three joints each."""
    folder = tmp_path_factory.mktemp("twin")
    arms, links, joints, home = [], ["base"], [], {}
    for side in ("left", "right"):
        more_links, more_joints, arm = small_arm(f"{side}_", "base")
        links += more_links
        joints += more_joints
        arms.append({"name": side, **arm})
        home |= {f"{side}_a": 0.0, f"{side}_b": 0.6, f"{side}_c": 1.2, f"{side}_slide": 0.02}
    body = "".join(f'<link name="{link}"/>' for link in links) + "".join(joints)
    (folder / "twin.urdf").write_text(f'<robot name="twin">{body}</robot>')
    camera = {"tag": "ego", "topic": "ego/image_raw", "info_topic": "ego/camera_info"}
    config = {"name": "twin", "robot_tag": "Twin", "rate_hz": 10, "chunk_size": 8, "arms": arms, "home": home}
    (folder / "twin.yaml").write_text(yaml.safe_dump({**config, "cameras": [camera]}))
    return RobotFiles(urdf=folder / "twin.urdf", embodiment=folder / "twin.yaml")


@pytest.fixture(scope="module")
def planner():
    return Planner(load_robot("widowx"), 0, 3.0)


@pytest.fixture(scope="module")
def source():
    return open_source()


@pytest.mark.parametrize("template", TEMPLATES)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_motions_are_physically_possible(planner, template, seed):
    motion = planner.draw(template, np.random.default_rng(seed))
    joints, openings = motion.sample(RATE)
    kinematics = planner.kinematics
    assert (joints >= kinematics.lower).all() and (joints <= kinematics.upper).all()
    assert kinematics.speed_fractions(joints[1:], joints[0], 1 / RATE).max() < 0.95
    poses = planner.poses(joints)
    places = poses[:, :3, 3]
    assert (places >= planner.low - 1e-3).all() and (places <= planner.high + 1e-3).all()
    speed = np.linalg.norm(np.diff(places, axis=0), axis=1) * RATE
    assert speed.max() < 1.03 * MAX_TIP_SPEED
    assert ((openings >= 0) & (openings <= 1)).all()
    np.testing.assert_allclose(joints[0], planner.start, atol=1e-9)
    assert len(joints) - 1 == motion.count(RATE) <= 3.0 * RATE


@pytest.mark.parametrize("template", TEMPLATES)
def test_motions_begin_and_end_at_rest(planner, template):
    motion = planner.draw(template, np.random.default_rng(5))
    joints, openings = motion.sample(1000.0)
    for path in (joints, openings[:, None]):
        speed = np.abs(np.diff(path, axis=0)) * 1000
        assert max(speed[0].max(), speed[-1].max()) < 0.02 * max(speed.max(), 1e-6) + 1e-9


def test_minimum_jerk_rests_at_both_ends():
    time, step = np.linspace(0, 1, 2001), 1 / 2000
    share = minimum_jerk(time)
    speed, acceleration = np.gradient(share, step), np.gradient(np.gradient(share, step), step)
    np.testing.assert_allclose(share[[0, 1000, -1]], [0, 0.5, 1])
    assert speed.max() == pytest.approx(1.875, abs=1e-5) and (np.diff(share) > 0).all()
    assert np.abs([speed[0], speed[-1]]).max() < 1e-5 and np.abs(acceleration[[2, -3]]).max() < 0.2


def test_the_rate_changes_nothing_but_the_samples(planner):
    motion = planner.draw("sequence", np.random.default_rng(3))
    fine, coarse = motion.sample(50.0)[0], motion.sample(5.0)[0]
    np.testing.assert_allclose(coarse[:-1], fine[::10][: len(coarse) - 1], atol=1e-12)
    np.testing.assert_allclose(coarse[-1], fine[-1], atol=1e-12)


def test_actions_lead_from_the_start_to_where_the_arm_goes():
    robot = RobotMotions(spec(), 0, 150)
    planner = robot.planners[0]
    for number in range(12):
        motion = robot.motion(number)
        joints, openings = motion.sample(RATE)
        actions = robot.actions(motion)
        assert actions.shape == (len(joints) - 1, 7) and actions.dtype == np.float32
        poses = pose_from_delta(planner.pose, actions[:, :6].astype(float))
        np.testing.assert_allclose(poses, planner.poses(joints[1:]), atol=1e-5)
        np.testing.assert_allclose(actions[:, 6], openings[1:], atol=1e-6)


def test_samples_are_whole_motions_and_say_their_length(source):
    assert (len(source.training), len(source.held_out)) == (36, 4) and source.camera_tags == ()
    for index in (*source.training[:12], *source.held_out):
        sample = source.sample(int(index), np.random.default_rng(int(index)))
        assert not sample.images and sample.valid.all() and 1 < len(sample.actions) <= 150
        assert np.abs(sample.actions).max() <= 1
        assert f"The control frequency is 50 Hz. Please predict the next {len(sample.actions)} control" in sample.text


def test_the_same_seed_gives_the_same_data_and_another_one_other(source):
    one, same, other = source, open_source(), open_source(seed=1)
    for index in range(8):
        first, second = (source.sample(index, np.random.default_rng(0)) for source in (one, same))
        assert first.text == second.text
        np.testing.assert_array_equal(first.actions, second.actions)
    assert any(one.robots[0].motion(i).steps != other.robots[0].motion(i).steps for i in range(8))
    assert one.statistics["widowx_motions"].to_json() == same.statistics["widowx_motions"].to_json()


def test_a_motion_is_said_in_many_ways(source):
    assert len({source.sample(0, np.random.default_rng(seed)).text for seed in range(50)}) > 20


def test_statistics_do_not_cut_off_rare_channels():
    source = open_source(count=80)
    quantiles, robot = source.statistics["widowx_motions"], source.robots[0]
    assert (quantiles.q01 <= 1e-6).all() and (quantiles.q99 >= -1e-6).all()  # standing still is never clipped
    turns = [robot.actions(robot.motion(n))[-1] for n in range(1, 72, 6)]
    kept = [np.linalg.norm(quantiles.unnormalize(quantiles.normalize(turn)) - turn) < 0.35 for turn in turns]
    assert np.mean(kept) > 0.8


def test_templates_take_turns():
    tasks = open_source(held_out=0.0, count=12).tasks
    assert sorted(set(tasks)) == sorted(f"widowx {template}" for template in TEMPLATES)
    assert {template: list(tasks).count(template) for template in set(tasks)} == dict.fromkeys(set(tasks), 2)


def test_at_the_robots_own_rate_motions_fit_the_models_horizon():
    source = open_source(steps=None, rate_hz="embodiment")
    lengths = [len(source.sample(int(i), np.random.default_rng(0)).actions) for i in source.training[:18]]
    assert max(lengths) <= CONFIG.horizon and source.embodiments["widowx_motions"].period == 0.2


def test_too_little_time_is_refused_with_a_way_out():
    with pytest.raises(DataError, match=r"16 steps at 50 Hz are 0\.32 s, too short .*rate_hz: embodiment"):
        open_source(steps=None)


def test_statistics_of_a_checkpoint_are_kept(source):
    known = source.statistics
    context = SourceContext(CONFIG, 0.1, normalization=known, trajectory_steps=150)
    assert spec(seed=9).open(context).statistics["widowx_motions"] is known["widowx_motions"]


def test_two_arms_of_a_users_robot(twin):
    """Three joints cannot hold an orientation: turns are left out; the arm that is not named stands still."""
    source = open_source(robots=[twin], count=20)
    robot = source.robots[0]
    assert "turn" not in robot.templates and {"move", "reach", "gripper"} <= set(robot.templates)
    moved = set()
    for number in range(20):
        motion = robot.motion(number)
        actions = robot.actions(motion).reshape(-1, 2, 7)
        sample = source.sample(number, np.random.default_rng(number))
        names = [name for name in ("left", "right") if f" {name} " in sample.text]
        assert ("left", "right")[motion.arm] in names
        resting = actions[:, 1 - motion.arm]
        assert np.abs(resting[:, :6]).max() < 1e-9 and np.ptp(resting[:, 6]) < 1e-9
        assert np.ptp(actions[:, motion.arm], axis=0).max() > 0.01
        moved.add(motion.arm)
    assert moved == {0, 1} and "Twin with dual arms" in source.sample(0, np.random.default_rng(0)).text


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A user's robot with one arm of three joints."""
    folder = tmp_path_factory.mktemp("single")
    links, joints, arm = small_arm("", "base")
    body = "".join(f'<link name="{link}"/>' for link in ["base", *links]) + "".join(joints)
    (folder / "single.urdf").write_text(f'<robot name="single">{body}</robot>')
    camera = {"tag": "ego", "topic": "ego/image_raw", "info_topic": "ego/camera_info"}
    home = {"a": 0.3, "b": 0.6, "c": 1.2, "slide": 0.02}
    config = {"name": "single", "robot_tag": "Single", "rate_hz": 10, "chunk_size": 8, "cameras": [camera]}
    (folder / "single.yaml").write_text(yaml.safe_dump({**config, "arms": [{"name": "arm", **arm}], "home": home}))
    return RobotFiles(urdf=folder / "single.urdf", embodiment=folder / "single.yaml")


def test_six_arms_of_four_robots_move_as_they_are_told(twin, single):
    """The WidowX, both arms of ALOHA, and three of a user's: every straight move ends where its centimeters say."""
    robots = ("widowx", "aloha", twin, single)
    source = open_source(robots=robots, count=12, templates=("move", "gripper"), control_mode="eef_delta")
    assert set(source.statistics) == {f"{name}_motions" for name in ("widowx", "aloha", "twin", "single")}
    arms = set()
    for index in sorted((*source.training, *source.held_out)):
        robot, motion = source.robots[index // 12], source.robots[index // 12].motion(int(index % 12))
        arms.add((robot.embodiment.name, motion.arm))
        sample = source.sample(index, np.random.default_rng(index))
        actions = source.statistics[robot.dataset].unnormalize(sample.actions).reshape(len(sample.actions), -1, 7)
        last, start = actions[-1, motion.arm], robot.planners[motion.arm].pose
        if motion.template == "gripper":
            assert last[6] == pytest.approx(motion.steps[0].percent / 100, abs=1e-3)
        else:
            (step,) = motion.steps
            expected = np.array(DIRECTIONS[step.direction]) * step.centimeters / 100
            np.testing.assert_allclose(start[:3, :3] @ last[:3], expected, atol=2e-3)
    assert arms == {("widowx", 0), ("aloha", 0), ("aloha", 1), ("twin", 0), ("twin", 1), ("single", 0)}


def test_a_motion_has_the_same_scale_in_text_to_action_and_afterwards():
    """At 50 Hz in T2A and at 5 Hz in CPT: at the same time of the same motion the labels are the same numbers."""
    trajectories = open_source(steps=160, held_out=0.0)
    context = SourceContext(CONFIG, 0.0, normalization=trajectories.statistics)
    chunks, own = spec(rate_hz=5).open(context), spec(rate_hz=5).open(SourceContext(CONFIG, 0.0))
    differs = []
    for index in range(12):
        fine = trajectories.sample(index, np.random.default_rng(0)).actions[9::10]
        coarse = chunks.sample(index, np.random.default_rng(0)).actions[: len(fine)]
        np.testing.assert_allclose(coarse, fine, atol=1e-5)
        differs.append(np.abs(own.sample(index, np.random.default_rng(0)).actions[: len(fine)] - fine).max())
    assert max(differs) > 100 * 1e-5, "statistics of their own would not do"


def test_joint_positions_instead_of_poses(twin):
    robot = RobotMotions(spec(robots=[twin], control_mode="joint_position"), 0, 150)
    motion = robot.motion(0)
    actions, (joints, _) = robot.actions(motion), motion.sample(RATE)
    assert actions.shape[1] == len(robot.embodiment.channel_names) == 8
    np.testing.assert_allclose(actions[:, 4 * motion.arm : 4 * motion.arm + 3], joints[1:], atol=1e-6)


def test_moves_of_a_small_arm_are_straight(twin):
    robot = RobotMotions(spec(robots=[twin], templates=("move",)), 0, 150)
    for number in range(5):
        motion = robot.motion(number)
        places = robot.paths(motion)[motion.arm].poses[:, :3, 3]
        way = (places[-1] - places[0]) / np.linalg.norm(places[-1] - places[0])
        assert np.linalg.norm(np.cross(places - places[0], way), axis=1).max() < 1e-3


def test_what_an_arm_cannot_do_says_so():
    with pytest.raises(MotionError, match=r"arm 'arm' of 'widowx' cannot execute any 'arc' motion .* 0.01 s"):
        Planner(load_robot("widowx"), 0, 0.01).draw("arc", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"robots": []}, "robots"),
        ({"rate_hz": 0}, "rate_hz must be positive"),
        ({"templates": ["dance"]}, "templates"),
        ({"robots": ["widowx", "other"], "statistics": "mine"}, "can be set only for a single robot"),
    ],
)
def test_impossible_specifications_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        spec(**wrong)


def test_two_robots_of_one_name_are_refused():
    with pytest.raises(DataError, match="duplicate robot names: widowx, widowx"):
        open_source(robots=["widowx", "widowx"])


def test_a_missing_urdf_is_named(tmp_path):
    with pytest.raises(DataError, match=r"mine\.urdf: no such URDF"):
        open_source(robots=[choose_robot(str(tmp_path / "mine.urdf"), tmp_path / "mine.yaml")])


def test_a_urdf_needs_its_configuration_and_a_robot_of_the_suite_brings_one(tmp_path):
    with pytest.raises(ValueError, match="limits and home pose of its arms with --config"):
        choose_robot("mine.urdf")
    with pytest.raises(ValueError, match="'widowx' has its own"):
        choose_robot("widowx", tmp_path / "widowx.yaml")
    assert choose_robot("widowx") == "widowx" and choose_robot("lab/mine.yaml") == "lab/mine.yaml"


def test_a_robot_of_the_users_is_named_by_its_yaml_or_by_both_files(twin):
    by_path, by_files = (open_source(robots=[robot], count=4) for robot in (str(twin.embodiment), twin))
    assert list(by_path.texts()) == list(by_files.texts()) and by_path.embodiments == by_files.embodiments


def test_the_tokenizer_sees_prompts_and_all_words(source):
    texts = list(source.texts())
    assert any(text.startswith("The robot is WidowX") for text in texts) and any("swivel" in text for text in texts)


def test_written_motions_are_a_data_set_with_a_picture(tmp_path, twin):
    for name, robot in (("widowx", "widowx"), ("twin", twin)):
        out = tmp_path / name
        summary = MotionFiles(out, robot, count=3, seed=3).write()
        reader, motions = LeRobotReader(out), MotionFiles(out, robot, count=3, seed=3).motions()
        assert summary["episodes"] == len(reader.tasks) == 3 and reader.fps == RATE
        first, end = reader.episodes[2]
        path = motions.paths(motions.motion(2))[motions.motion(2).arm]
        assert end - first == len(path.joints)
        states, actions = (reader.frames[key][first:end] for key in ("observation.state", "action"))
        column = motions.embodiment.joint_names.index(motions.planners[motions.motion(2).arm].kinematics.joint_names[0])
        np.testing.assert_allclose(states[:, column], path.joints[:, 0], atol=1e-6)
        poses = reader.frames["observation.eef_pose"][first:end]
        np.testing.assert_allclose(actions[:-1, :7], poses[1:, :7], atol=1e-6)  # told now, reached one period later
        assert (out / "motions.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((out / "collection.json").read_text())["seed"] == 3
    with pytest.raises(DatasetError, match="contains another collection"):
        MotionFiles(out, robot, count=6).write()
