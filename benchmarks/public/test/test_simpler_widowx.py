# SPDX-License-Identifier: Apache-2.0
"""Simpler-WidowX: start states, the expert's geometry, actions; with its environment made, the simulator itself."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.public.protocol.demonstrations import features
from benchmarks.public.protocol.disturbance import Disturbance
from benchmarks.public.protocol.pick_and_place import Expert, View
from benchmarks.public.protocol.poses import moved
from benchmarks.public.protocol.trials import FIRST_DEMONSTRATION, FIRST_EXPERT, FIRST_INTERVENTION, FIRST_SNAPSHOT
from benchmarks.public.protocol.world_process import ROOT, WorldProcess
from benchmarks.public.simpler_widowx.actions import action_towards, applied
from benchmarks.public.simpler_widowx.benchmark import JOINTS, SIMPLER_WIDOWX
from benchmarks.public.simpler_widowx.expert import DISTURBANCES, GRASPS, PACE
from benchmarks.public.simpler_widowx.simulator import missing_assets
from benchmarks.public.simpler_widowx.tasks import APART, OFFICIAL_STATES, TASKS, Start, training_start
from embodiment_descriptions import Kinematics, load_robot
from embodiment_descriptions.deltas import delta_from_poses

CARROT, CUBE, EGGPLANT = (TASKS[name] for name in ("carrot_on_plate", "stack_cube", "eggplant_in_basket"))
TABLE = 0.0
DOWN = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # the tip's x axis points down
in_simulator = pytest.mark.skipif(
    not SIMPLER_WIDOWX.environment.is_ready or bool(missing_assets()),
    reason="needs `python -m benchmarks.public.simpler_widowx environment`, and mani_skill's assets in $MS_ASSET_DIR",
)


def pose(xyz, rotation=None):
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = np.eye(3) if rotation is None else rotation, xyz
    return found


def from_vector(row):
    return pose(row[:3], Rotation.from_quat(row[3:7]).as_matrix())


def turned(angle):
    return Rotation.from_euler("z", angle).as_matrix()


def official(task):
    """As many start states, where mani_skill's could be."""
    random = np.random.default_rng(5)
    upright = np.array([[1.0, 0, 0, 0]] * 2)
    spots = ((-0.11, -0.10), (0.19, 0.22)) if task is EGGPLANT else ((-0.235, -0.085), (-0.075, 0.075))
    places = [random.uniform(*np.transpose(spots), (2, 2)) for _ in range(OFFICIAL_STATES)]
    return [Start(np.column_stack([xy, task.heights]), upright) for xy in places]


def play(task, object_at, goal_at, steps=60, push=None):
    """The expert in a world where the tip follows at once, and whatever it closes around sticks to it."""
    expert = Expert(GRASPS[task.name], PACE)
    hand, thing, held, phases = pose([0.29, 0.0, 0.135], DOWN), object_at.copy(), None, []
    for step in range(steps):
        action = expert.act(View(hand, hand, thing, goal_at, TABLE))
        phases.append(expert.phase)
        hand = applied(hand, action + (push(step) if push else 0.0))
        if action[6] > 0:
            held = None
        elif held is None and np.linalg.norm(hand[:3, 3] - thing[:3, 3]) < 0.05:
            held = np.linalg.inv(hand) @ thing
        thing = thing if held is None else hand @ held
    return phases, thing, hand


# --- start states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_states_for_training_are_none_of_the_official_ones(task):
    known = official(task)
    starts = [training_start(task, known, FIRST_DEMONSTRATION + number) for number in range(500)]
    away = [np.linalg.norm(s.xyz[0, :2] - other.xyz[0, :2]) for s in starts for other in known]
    assert min(away) >= APART
    assert np.ptp([s.xyz[0, :2] for s in starts], axis=0).min() > 0.035, "they cover the place"
    gaps = [np.linalg.norm(np.diff(s.xyz[:, :2], axis=0)) for s in starts]
    assert min(gaps) >= task.gap
    assert np.allclose([np.linalg.norm(s.quaternions, axis=1) for s in starts], 1.0)


def test_a_state_belongs_to_its_number():
    first, again, other = (
        training_start(CUBE, official(CUBE), n) for n in (FIRST_EXPERT, FIRST_EXPERT, FIRST_EXPERT + 1)
    )
    assert np.array_equal(first.xyz, again.xyz) and not np.array_equal(first.xyz, other.xyz)


# --- actions ----------------------------------------------------------------------------------------------------------


def test_an_action_brings_the_target_to_a_pose():
    target, wanted = pose([0.3, 0.0, 0.1], DOWN), pose([0.27, 0.02, 0.12], turned(0.4) @ DOWN)
    action = action_towards(wanted, target, opened=False)
    assert np.allclose(applied(target, action), wanted)
    assert np.allclose(action, [-0.03, 0.02, 0.02, 0, 0, 0.4, -1], atol=1e-9), "along the root's axes"


def test_a_row_moves_along_the_axes_of_the_tip():
    assert np.allclose(moved(pose([0.3, 0.0, 0.1], DOWN), np.array([0.05, 0, 0, 0, 0, 0]))[:3, 3], [0.3, 0.0, 0.05])
    assert np.allclose(moved(pose([0, 0, 0], DOWN), np.array([0, 0, 0, 0.3, 0, 0]))[:3, :3], turned(-0.3) @ DOWN)


# --- the expert -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "height"), [(CARROT, 0.019), (CUBE, 0.015)])
def test_the_expert_brings_the_object_over_its_destination(task, height):
    goal = pose([0.36, -0.06, 0.0])
    phases, thing, hand = play(task, pose([0.24, 0.08, height], turned(0.3)), goal)
    assert list(dict.fromkeys(phases)) == ["above", "down", "close", "lift", "carry", "lower", "open", "up", "rest"]
    assert np.linalg.norm(thing[:2, 3] - goal[:2, 3]) < 0.02
    release = GRASPS[task.name].release
    assert thing[2, 3] == pytest.approx(height + release, abs=0.01), "let go over the destination"
    assert hand[2, 3] == pytest.approx(GRASPS[task.name].height + release + PACE.above, abs=0.01)


def test_steps_are_limited_and_slow_in_descents():
    expert, hand = Expert(GRASPS["carrot_on_plate"], PACE), pose([0.29, 0.0, 0.30], DOWN)
    for _ in range(20):
        action = expert.act(View(hand, hand, pose([0.24, 0.08, 0.019]), pose([0.36, 0, 0]), TABLE))
        assert np.linalg.norm(action[:3]) <= (PACE.slow_step if expert.phase == "down" else PACE.step) + 1e-9
        hand = applied(hand, action)


@pytest.mark.parametrize("angle", [-1.2, 0.0, 0.7, 1.5, 3.0])
def test_the_fingers_close_across_a_long_object_and_along_the_sides_of_a_cube(angle):
    for task, period in ((CARROT, np.pi), (CUBE, np.pi / 2)):
        expert = Expert(GRASPS[task.name], PACE)
        hand, thing = pose([0.3, 0, 0.1], DOWN), pose([0.3, 0, 0.02], turned(angle))
        error = expert.yaw_error(View(hand, hand, thing, thing, TABLE))
        fingers = turned(error) @ hand[:3, 1]
        between = np.arctan2(fingers[1], fingers[0]) - angle
        wanted = np.pi / 2 if task is CARROT else 0.0
        assert abs(error - expert.grasp.turn) <= period / 2 + 1e-9
        assert np.sin((between - wanted) * np.pi / period) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("quarters", range(4))
def test_for_a_thing_along_or_across_the_table_the_hand_always_turns_the_same_way(quarters):
    """Half of the official carrots and spoons lie where it could turn either way by a right angle."""
    hand = pose([0.3, 0, 0.1], DOWN)
    for task in ("carrot_on_plate", "spoon_on_towel", "stack_cube"):
        things = [pose([0.3, 0, 0.02], turned(quarters * np.pi / 2 + aside)) for aside in (-0.3, 0.0, 0.3)]
        turns = [Expert(GRASPS[task], PACE).yaw_error(View(hand, hand, thing, thing, TABLE)) for thing in things]
        assert np.allclose(np.diff(turns), 0.3)


def test_an_object_that_is_lost_is_grasped_again():
    expert = Expert(GRASPS["carrot_on_plate"], PACE, phase="lift", point=np.array([0.24, 0.08, 0.022]))
    hand = pose([0.24, 0.08, 0.09], DOWN)
    expert.act(View(hand, hand, pose([0.24, 0.08, 0.019]), pose([0.36, 0, 0]), TABLE))
    assert expert.phase == "above"


def test_a_hand_over_the_grasp_goes_down_at_once_and_one_beside_it_rises_first():
    """Where a policy hovered: going up, to come down the same way, would contradict every other demonstration."""
    thing, goal = pose([0.24, 0.08, 0.019]), pose([0.36, 0, 0])
    for away, phase, sign in ((0.5, "down", -1), (2.0, "above", 1)):
        expert, hand = Expert(GRASPS["carrot_on_plate"], PACE), pose([0.24 + away * PACE.near, 0.08, 0.04], DOWN)
        hand[:3, :3] = turned(expert.yaw_error(View(hand, hand, thing, goal, TABLE))) @ hand[:3, :3]
        action = expert.act(View(hand, hand, thing, goal, TABLE))
        assert expert.phase == phase and np.sign(action[2]) == sign


@pytest.mark.parametrize("angle", np.linspace(-3.0, 3.0, 9))
def test_of_turns_that_make_no_difference_the_preferred_one_is_made(angle):
    expert = Expert(replace(GRASPS["carrot_on_plate"], turn=0.4), PACE)
    hand, thing = pose([0.3, 0, 0.1], DOWN), pose([0.3, 0, 0.02], turned(angle))
    view = View(hand, hand, thing, thing, TABLE)
    assert abs(expert.yaw_error(view) - 0.4) <= np.pi / 2 + 1e-9
    other = Expert(GRASPS["carrot_on_plate"], PACE).yaw_error(view)
    assert np.sin(expert.yaw_error(view) - other) == pytest.approx(0.0, abs=1e-9), "a half turn, or none"


def test_an_object_goes_down_only_over_its_place():
    """A hand that came fast has gone past it, and turns back at this height."""
    grasp, point = GRASPS["carrot_on_plate"], np.array([0.24, 0.08, 0.022])
    for beyond, sinks in ((0.5, True), (2.0, False)):
        expert = Expert(grasp, PACE, phase="lower", point=point)
        hand, goal = pose([0.36 + beyond * PACE.near, 0.0, 0.102], DOWN), pose([0.36, 0.0, 0.0])
        thing = pose([*hand[:2, 3], 0.099])
        action = expert.act(View(hand, hand, thing, goal, TABLE))
        assert (action[2] < -0.005) == sinks and action[0] < 0


def test_what_is_near_is_approached_with_all_that_is_left():
    """With a share of it, a controller that gives way to friction stops short, and only time ends the descent."""
    expert = Expert(GRASPS["carrot_on_plate"], replace(PACE, gain=0.25), phase="down")
    thing = pose([0.24, 0.08, 0.019])
    for height, share in ((0.008, 1.0), (0.03, 0.25)):
        hand = pose([0.24, 0.08, 0.022 + height], DOWN)
        action = expert.act(View(hand, hand, thing, thing, TABLE))
        assert action[2] == pytest.approx(-share * height)


def test_a_push_is_corrected():
    goal = pose([0.36, -0.06, 0.0])
    shove = {3: [0, 0.04, 0, 0, 0, 0, 0], 9: [0.03, 0, 0.02, 0, 0, 0.2, 0], 18: [0, -0.05, 0, 0, 0, 0, 0]}
    phases, thing, _ = play(
        CARROT, pose([0.24, 0.08, 0.019]), goal, push=lambda step: np.array(shove.get(step, [0.0] * 7))
    )
    assert phases[-1] == "rest" and np.linalg.norm(thing[:2, 3] - goal[:2, 3]) < 0.02


def test_disturbances_are_rare_repeatable_and_spare_the_fingers():
    action = np.array([0.01, 0, 0, 0, 0, 0, -1.0])

    def offsets(seed, phase):
        disturbance = Disturbance(DISTURBANCES, seed)
        return np.array([disturbance.applied(action, phase) - action for _ in range(200)])

    carry = offsets(3, "carry")
    disturbed = np.any(carry != 0, axis=1)
    assert np.array_equal(carry, offsets(3, "carry")) and 0.05 < disturbed.mean() < 0.4
    assert not np.any(carry[:, 3:]), "what is carried is neither turned nor dropped"
    assert not np.any(offsets(3, "close")) and np.all(offsets(3, "down")[:, 2] >= 0), "nor pushed into the table"


# --- robot and data ---------------------------------------------------------------------------------------------------


def test_the_robot_stands_where_the_tasks_begin():
    robot = load_robot(str(SIMPLER_WIDOWX.robot))
    assert tuple(robot.joint_names) == JOINTS
    kinematics = Kinematics(robot, 0)
    tip = kinematics.forward(np.array([robot.home[name] for name in kinematics.joint_names]))
    assert np.allclose(tip[:3, 3], [0.292, -0.006, 0.135], atol=2e-3), "as measured in mani_skill"
    assert np.allclose(tip[:3, :3], DOWN, atol=0.08)


def test_the_protocol_is_the_official_one():
    trials = SIMPLER_WIDOWX.trials(SIMPLER_WIDOWX.tasks, SIMPLER_WIDOWX.episodes)
    assert len(trials) == 4 * 24 * 4 and [task.steps for task in TASKS.values()] == [60, 60, 60, 120]


def test_demonstrations_have_labels_of_object_destination_and_tip():
    found = features(SIMPLER_WIDOWX)
    assert found["annotation.points"].shape == (9,) and found["annotation.objects"].dtype == "int64"
    assert len(found["action"].names) == 8


# --- the simulator ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    process = WorldProcess(SIMPLER_WIDOWX.environment.python, SIMPLER_WIDOWX.module)
    yield process
    process.close()


@in_simulator
def test_official_states_are_mani_skills_and_training_states_are_apart_from_them():
    code = """
import json, sys
from benchmarks.public.simpler_widowx.simulator import prepare
prepare()
from benchmarks.public.simpler_widowx.scene import Scene
from benchmarks.public.simpler_widowx.tasks import TASKS, training_start
apart = {}
for number, task in enumerate(TASKS.values()):
    scene = Scene(task)
    official = scene.official_starts()
    places = [start.xyz[0, :2] for start in official]
    starts = [training_start(task, official, 1000000 + 1000 * number + i).xyz[0, :2] for i in range(300)]
    nearest = min(float(((a - b) ** 2).sum() ** 0.5) for a in starts for b in places)
    apart[task.name] = [nearest, len({(*s.xyz.ravel(), *s.quaternions.ravel()) for s in official})]
print(json.dumps(apart))
"""
    done = subprocess.run(
        [SIMPLER_WIDOWX.environment.python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    apart = json.loads(done.stdout.splitlines()[-1])
    assert set(apart) == set(TASKS)
    assert all(nearest >= APART and count == OFFICIAL_STATES for nearest, count in apart.values())


@in_simulator
def test_the_experts_poses_as_chunks_of_a_policy_do_the_task(world):
    start = FIRST_EXPERT + 1000
    frames = world.demonstrate("carrot_on_plate", start, None)["frames"]
    tips, poses = ([from_vector(row) for row in frames[name]] for name in ("observation.eef_pose", "action"))
    openings, step, at = frames["action"][:, 7], {"over": False}, 0
    world.start("carrot_on_plate", start)
    while not step["over"]:
        rows = [min(at + i, len(poses) - 1) for i in range(4)]
        chunk = [np.append(delta_from_poses(tips[rows[0]], poses[row]), openings[row]) for row in rows]
        step = world.execute(np.array(chunk), False)
        at += len(rows)
    assert step["success"] and step["seconds"] == pytest.approx(12.0)


@in_simulator
def test_a_demonstration_has_images_and_their_labels(world):
    shown = world.demonstrate("stack_cube", FIRST_DEMONSTRATION + 2000, [144, 192])
    frames = shown["frames"]
    count = len(frames["action"])
    assert frames["observation.images.ego"].shape == (count, 144, 192, 3)
    assert frames["annotation.points"].shape == (count, 9) and frames["annotation.fresh"][0] == 1
    image, points = frames["observation.images.ego"][0].astype(int), frames["annotation.points"][0].reshape(3, 3)
    assert np.all(points[:, 2] > 0)
    (green, yellow, _) = (image[int(v * 144), int(u * 192)] for u, v, _ in points)
    assert green.argmax() == 1 and yellow.argmin() == 2 and yellow.min() < yellow.max() - 40, (
        "blocks are at their labels"
    )


@in_simulator
def test_snapshots_have_one_labeled_frame_with_the_arm_anywhere_on_its_way(world):
    tips = []
    for start in range(FIRST_SNAPSHOT + 2000, FIRST_SNAPSHOT + 2006):
        frames = world.snapshot("stack_cube", start, [144, 192])["frames"]
        assert {len(rows) for rows in frames.values()} == {1} and frames["annotation.fresh"][0] == 1
        image, points = frames["observation.images.ego"][0].astype(int), frames["annotation.points"][0].reshape(3, 3)
        if points[0, 2] > 0 and np.linalg.norm(points[0, :2] - points[2, :2]) > 0.15:  # the hand is not over it
            (u, v, _) = points[0]
            assert image[int(v * 144), int(u * 192)].argmax() == 1, "the green block is at its label"
        tips.append(frames["observation.eef_pose"][0, :3])
    assert np.ptp(tips, axis=0).max() > 0.05


@in_simulator
def test_the_expert_goes_on_from_where_a_policy_has_led(world):
    """Which closed the fingers on nothing; while they close, it is not known."""
    world.start("carrot_on_plate", FIRST_INTERVENTION + 1000)
    shut = np.tile([0.02, 0, 0, 0, 0, 0, 0.0], (PACE.closing, 1))
    assert not world.execute(shut, False)["free"]
    step = world.execute(shut[:2], False)
    assert step["free"] and step["elapsed"] == pytest.approx((PACE.closing + 2) / 60)
    shown = world.take_over([144, 192])
    assert shown["success"] and shown["frames"]["action"][0, 7] == 1, "it opens them first"
    np.testing.assert_allclose(shown["frames"]["observation.state"][0], step["observation"]["state"], atol=1e-6)
    assert not world.execute(np.array([[0, 0, 0, 0, 0, 0, 1.0]]), False)["free"], "nothing is left to do"
