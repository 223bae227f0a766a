# SPDX-License-Identifier: Apache-2.0
"""LIBERO: tasks, start states, actions and the expert's geometry; with its environment made, the simulator itself."""

import itertools
import json
import subprocess

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.public.libero.actions import IDLE, action_towards, aimed_at, scaled
from benchmarks.public.libero.benchmark import JOINTS, LIBERO
from benchmarks.public.libero.expert import ROOM, WIDEST, Boxes, Planner, kept_upright, least_width, plan
from benchmarks.public.libero.tasks import (
    APART,
    DEMONSTRATED,
    NAMES,
    OFFICIAL_STATES,
    SHIFT,
    STEPS,
    SUITES,
    instruction,
    nearest,
    objects,
    shifts,
)  # fmt: skip
from benchmarks.public.protocol.demonstrations import features
from benchmarks.public.protocol.episode import run_episode
from benchmarks.public.protocol.poses import matrix
from benchmarks.public.protocol.trials import FIRST_DEMONSTRATION, FIRST_INTERVENTION, FIRST_SNAPSHOT
from benchmarks.public.protocol.world_process import ROOT, WorldProcess
from embodiment_descriptions import Kinematics, load_robot
from embodiment_descriptions.deltas import delta_from_poses
from qwen_vla.policies import open_policy

in_simulator = pytest.mark.skipif(
    not LIBERO.environment.is_ready, reason="needs `python -m benchmarks.public.libero environment`"
)
DOWN = Rotation.from_euler("x", np.pi)
CARTON = (0.08, 0.04, 0.14)  # [m] length, width, height
NOTHING = Boxes(np.zeros((0, 4, 4)), np.zeros((0, 3)))
BOWL, PLATE, BASKET = (0.11, 0.11, 0.05), (0.16, 0.16, 0.02), (0.16, 0.17, 0.14)


def box(size, middle, yaw=0.0):
    """A box that stands at a point."""
    pose = matrix(np.array([*middle, size[2] / 2]), Rotation.from_euler("z", yaw))
    return Boxes(pose[None], np.array(size)[None] / 2)


def joined(*boxes):
    return Boxes(np.concatenate([each.poses for each in boxes]), np.concatenate([each.halves for each in boxes]))


def round_thing(size, middle):
    """A thing whose outline is about a circle."""
    return joined(*(box((size[0], 0.01, size[2]), middle, yaw) for yaw in np.linspace(0, np.pi, 24)))


def bowl(x, y=0.0, lean=0.0):
    """A bowl on the table, which leans towards +y by so much [rad]."""
    width, _, height = BOWL
    floor = round_thing((width, width, 0.008), (0.0, 0.0))
    ring = []
    for around in np.linspace(0, 2 * np.pi, 32, endpoint=False):
        middle = (width / 2 - 0.002) * np.array([np.cos(around), np.sin(around)])
        ring.append(box((0.004, 0.012, height), middle, around))
    upright = joined(floor, *ring)
    turned = matrix(np.array([x, y, 0.0]), Rotation.from_euler("x", -lean))
    return Boxes(turned @ upright.poses, upright.halves)


def planned(thing, into, attempt=0, obstacles=NOTHING):
    return plan(thing, into.corners(), obstacles, attempt)


class Table:
    """A scene in which the tip goes a quarter of the way to where an action aims, and what it closes around sticks."""

    object, goal, support = "thing", "goal", "support"

    def __init__(self, thing, support):
        self._boxes = {"thing": thing, "support": support}
        self._hand = matrix(np.array([-0.15, 0.0, 0.27]), DOWN)
        self._thing, self._held, self._closed = np.eye(4), None, 0
        self._reference, self._goal = (
            matrix(np.append(self.middle(name), 0.0), Rotation.identity()) for name in ("thing", "support")
        )

    def middle(self, name):
        corners = self.boxes(name).corners()
        return (corners.min(0) + corners.max(0))[:2] / 2

    def hand(self):
        return self._hand

    def pose(self, name):
        return self._goal if name == "goal" else self._thing @ self._reference

    def boxes(self, name):
        poses, halves = self._boxes[name]
        return Boxes(self._thing @ poses if name == "thing" else poses, halves)

    def obstacles(self):
        return NOTHING

    def step(self, action):
        aim = aimed_at(self._hand, action)
        turn = Rotation.from_matrix(aim[:3, :3] @ self._hand[:3, :3].T).as_rotvec() / 4
        self._hand = matrix(
            self._hand[:3, 3] + (aim - self._hand)[:3, 3] / 4,
            Rotation.from_rotvec(turn) * Rotation.from_matrix(self._hand[:3, :3]),
        )
        self._closed = self._closed + 1 if action[6] > 0 else 0
        if not self._closed:
            self._held = None
        elif self._closed == 5 and self._touches():
            self._held = np.linalg.inv(self._hand) @ self._thing
        if self._held is not None:
            self._thing = self._hand @ self._held

    def lose(self):
        self._held = None

    def lean(self, angle):
        """Turn the object, which then leans towards +y [rad]."""
        middle = matrix(np.append(self.middle("thing"), 0.0), Rotation.identity())
        self._thing = middle @ matrix(np.zeros(3), Rotation.from_euler("x", -angle)) @ np.linalg.inv(middle)

    def _touches(self):
        heights = self.boxes("thing").corners()[:, 2] - self._hand[2, 3]
        return heights.min() < 0 < heights.max() and np.all(np.abs(self.middle("thing") - self._hand[:2, 3]) < 0.07)


def play(scene, steps=280, at=None):
    """The expert in that scene; `at`: calls by step."""
    expert, phases = Planner(scene), []
    for step in range(steps):
        action = scaled(expert.act())
        assert np.abs(action).max() <= 1.0
        phases.append(expert.phase)
        (at or {}).get(step, lambda: None)()
        scene.step(action)
        if expert.phase == "up":
            break
    return phases


# --- tasks and start states -------------------------------------------------------------------------------------------


def test_the_protocol_is_the_official_one():
    trials = LIBERO.trials(LIBERO.tasks, LIBERO.episodes)
    assert len(LIBERO.tasks) == 40 and len(trials) == 4 * 10 * 50 and len({trial.start for trial in trials}) == 2000
    assert STEPS == {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
    assert list(LIBERO.groups) == list(SUITES) and len(LIBERO.selected(("few",))) == 8


def test_a_sentence_is_the_name_of_its_task_without_the_scene():
    assert instruction("put_the_bowl_on_the_stove") == "put the bowl on the stove"
    assert instruction(SUITES["libero_10"][2]) == "turn on the stove and put the moka pot on it"
    assert all(instruction(task)[0].islower() for task in LIBERO.tasks)


def test_the_expert_is_asked_only_for_what_it_can_do():
    assert LIBERO.demonstrable(()) == DEMONSTRATED and len(DEMONSTRATED) == 20
    assert LIBERO.demonstrable(("libero_object",)) == SUITES["libero_object"]
    with pytest.raises(ValueError, match="libero's scripted expert cannot do 'turn_on_the_stove'; it can do pick_up"):
        LIBERO.demonstrable(("turn_on_the_stove",))


def test_every_demonstrated_task_names_what_is_moved_and_where():
    found = [objects(task) for task in DEMONSTRATED]
    assert set(itertools.chain(*found)) == set(NAMES)
    assert objects("pick_up_the_bbq_sauce_and_place_it_in_the_basket") == ("bbq sauce", "basket")


def test_states_differ_from_all_official_ones_if_one_thing_does():
    official = np.random.default_rng(0).uniform(0, 1, (OFFICIAL_STATES, 5, 2))
    assert nearest(official, official[7]) == 0.0
    moved = official[7].copy()
    moved[3] += [0.003, 0.004]
    assert nearest(official, moved) == pytest.approx(0.005)
    found = np.concatenate([shifts(np.random.default_rng(seed), 5) for seed in range(200)])
    assert np.abs(found).max() <= SHIFT and np.linalg.norm(found, axis=1).max() > APART


# --- actions ----------------------------------------------------------------------------------------------------------


def test_an_action_aims_at_a_pose_and_a_pose_gives_the_action():
    hand = matrix(np.array([0.1, -0.2, 0.3]), DOWN * Rotation.from_euler("xyz", [0.1, -0.2, 0.7]))
    action = np.array([0.5, -1.0, 0.2, 0.1, -0.4, 0.9, -1.0])
    assert np.allclose(action_towards(aimed_at(hand, action), hand, opened=True), action)
    assert np.allclose(aimed_at(hand, action)[:3, 3], [0.125, -0.25, 0.31]), "5 cm, along the axes of the base"
    assert np.allclose(action_towards(hand, hand, opened=True), IDLE)


def test_what_is_too_far_for_an_action_is_cut_to_what_the_controller_takes():
    hand = matrix(np.zeros(3), DOWN)
    action = action_towards(matrix(np.array([0.3, 0, -0.02]), Rotation.identity()), hand, opened=False)
    assert np.allclose(action[[0, 2]], [1.0, -0.4]) and np.abs(action).max() == 1.0 and action[6] == 1.0


# --- the expert -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("yaw", [0.0, 0.4, 1.5, -1.0])
def test_a_thing_is_held_across_its_least_width_near_its_top(yaw):
    carton, basket = box(CARTON, (0.1, -0.2), yaw), box(BASKET, (0.0, 0.26))
    found = planned(carton, basket)
    assert abs(np.cos(least_width(carton.corners()) - yaw)) < 0.05, "a right angle to its length"
    assert abs(found.frame[:2, 0] @ [np.cos(yaw), np.sin(yaw)]) > 0.99 and found.grasp.across
    assert np.allclose(found.frame[:3, 3], [0.1, -0.2, 0.14 - 0.035], atol=1e-3)
    flat = planned(box((0.08, 0.04, 0.02), (0.1, -0.2)), basket)
    assert flat.frame[2, 3] == pytest.approx(0.012), "but the fingers stay above the table"


def test_another_attempt_grasps_elsewhere():
    carton, basket = box(CARTON, (0, 0)), box(BASKET, (0, 0.26))
    assert [planned(carton, basket, attempt).grasp.along for attempt in range(4)] == [0.0, 0.025, -0.025, 0.0]
    thing, plate = bowl(0), round_thing(PLATE, (0, 0.2))
    assert len({tuple(planned(thing, plate, attempt).frame[:2, 0].round(3)) for attempt in range(4)}) == 4


def test_what_is_wider_than_the_hand_is_held_by_its_rim():
    assert BOWL[0] > WIDEST
    found = planned(bowl(0.1, -0.2), round_thing(PLATE, (0.0, 0.2)))
    place = found.frame[:3, 3] + found.grasp.along * found.frame[:3, 0]
    assert np.allclose(place, [0.1, -0.2 + 0.055 - 0.004, 0.05 - 0.025], atol=2e-3)
    assert not found.grasp.across and found.grasp.lift >= 0.08


def test_a_bowl_is_held_where_the_hand_has_room():
    """A drawer whose walls stand closer to the bowl than the open fingers reach, but not in its corners."""
    thing, plate = bowl(0.0), round_thing(PLATE, (0.0, 0.3))
    walls = [box((0.2, 0.01, 0.05), (0.0, side * 0.095)) for side in (-1, 1)]
    walls += [box((0.01, 0.19, 0.05), (side * 0.1, 0.0)) for side in (-1, 1)]
    angles = [np.arctan2(*planned(thing, plate, attempt, joined(*walls)).frame[1::-1, 0]) for attempt in range(4)]
    assert np.allclose(np.abs(np.sin(2 * np.array(angles))), 1.0, atol=0.3), "in the corners"
    free = planned(thing, plate, 0, joined(walls[0]))
    assert np.allclose(free.frame[:2, 0], [0, 1], atol=1e-9), "on the side away from the only wall"


def test_a_bowl_that_leans_is_held_on_the_side_that_is_up():
    """As on the ramekin: on the other side, a finger comes down onto it."""
    plate = round_thing(PLATE, (0.0, 0.3))
    for thing, side in ((bowl(0.0), 1), (bowl(0.0, lean=0.2), -1)):
        found = planned(thing, plate)
        assert np.allclose(found.frame[:2, 0], [0, side]) and found.room(thing) > ROOM


def test_a_bowl_in_a_drawer_is_held_in_the_same_place_wherever_it_stands():
    """Not where the hand has most room: a policy cannot tell when that changes to the other side."""
    plate = round_thing(PLATE, (0.0, 0.3))
    walls = [box((0.01, 0.4, 0.05), (side * 0.12, 0.0)) for side in (-1, 1)]
    walls = joined(*walls, *(box((0.4, 0.01, 0.05), (0.0, side * 0.095)) for side in (-1, 1)))
    for x in np.arange(-0.02, 0.021, 0.005):
        found = planned(bowl(x), plate, 0, walls)
        assert np.allclose(found.frame[:2, 0], [-(0.5**0.5), 0.5**0.5]) and found.room(walls) > ROOM


def test_a_wall_between_the_fingers_points_is_not_overlooked():
    """Thinner than the points of the hand are apart, it stands where the outer finger comes down."""
    thing, plate = bowl(0.0), round_thing(PLATE, (0.0, 0.3))
    for away in np.arange(0.085, 0.11, 0.001):
        wall = box((0.2, 0.001, 0.06), (0.0, away))
        found = planned(thing, plate, 0, wall)
        assert not np.allclose(found.frame[:2, 0], [0, 1]) and found.room(wall) > ROOM


@pytest.mark.parametrize(("height", "aside", "lift"), [(0.10, 0.0, 0.18), (0.10, 0.2, 0.10), (0.01, 0.0, 0.10)])
def test_a_bowl_is_carried_over_what_stands_in_its_way(height, aside, lift):
    """Twice 4 cm over the wall, if it passes it; otherwise over the plate, which is 2 cm high."""
    thing, plate = bowl(0.0), round_thing(PLATE, (0.0, 0.3))
    wall = box((0.1, 0.005, height), (aside, 0.15))
    found = planned(thing, plate, 0, joined(wall, plate))
    assert found.grasp.lift == pytest.approx(lift, abs=0.012) and found.grasp.lift >= lift
    assert found.grasp.release == pytest.approx(0.03)


def test_without_room_anywhere_the_widest_place_is_taken():
    thing, plate = bowl(0.0), round_thing(PLATE, (0.0, 0.3))
    beams = (box((0.3, 0.02, 0.1), (0.0, 0.0), yaw) for yaw in (0.0, 0.3))
    walls = joined(*beams, round_thing((0.25, 0.2, 0.1), (0, 0)))
    assert planned(thing, plate, 0, walls).room(walls) == pytest.approx(
        max(planned(thing, plate, attempt, walls).room(walls) for attempt in range(16))
    )


def test_the_distance_from_boxes_is_negative_inside_and_infinite_without():
    two = joined(box((0.2, 0.2, 0.2), (0.0, 0.0)), box((0.1, 0.1, 0.1), (1.0, 0.0), 0.7))
    assert two.distance(np.array([[0.0, 0.0, 0.13], [0.0, 0.2, 0.1]])) == pytest.approx(-0.07)
    assert two.distance(np.array([[0.4, 0.4, 0.1]])) == pytest.approx(0.3 * 2**0.5)
    assert NOTHING.distance(np.zeros((1, 3))) == np.inf


@pytest.mark.parametrize(
    ("thing", "into"),
    [
        (box(CARTON, (0.1, -0.2), 0.3), box(BASKET, (0.0, 0.26))),
        (bowl(-0.05), round_thing(PLATE, (0.06, 0.2))),
    ],
    ids=["carton into basket", "bowl onto plate"],
)
def test_the_expert_brings_a_thing_to_its_place(thing, into):
    scene = Table(thing, into)
    phases = play(scene)
    assert list(dict.fromkeys(phases)) == ["above", "down", "close", "lift", "carry", "lower", "open", "up"]
    assert np.linalg.norm(scene.middle("thing") - scene.middle("support")) < 0.02
    assert scene.hand()[:3, 2] @ [0, 0, -1] > 0.99, "the hand points down"


def test_what_is_lost_is_grasped_again():
    scene = Table(box(CARTON, (0.1, -0.2)), box(BASKET, (0.0, 0.26)))
    phases = play(scene, steps=500, at={100: scene.lose})
    assert phases[100] in ("lift", "carry") and "above" in phases[101:] and phases[-1] == "up"
    assert np.linalg.norm(scene.middle("thing") - scene.middle("support")) < 0.02


def test_what_falls_by_itself_is_grasped_as_it_lies_then():
    """As a bowl that slides off a ramekin while the hand comes."""
    plate = round_thing(PLATE, (0.0, 0.3))
    scene = Table(bowl(0.1), plate)
    planner = Planner(scene)
    planner.act()
    assert planner._view().object[1, 0] == pytest.approx(1.0)
    scene.lean(0.2)
    planner.act()
    assert np.allclose(planner._view().object, planned(scene.boxes("thing"), plate).frame)
    assert planner._view().object[1, 0] == pytest.approx(-1.0)


def test_a_tilted_hand_is_turned_back():
    tilted = matrix(np.zeros(3), Rotation.from_euler("x", 0.1) * DOWN)
    turn = kept_upright(np.zeros(7), tilted)
    assert np.allclose(turn, [0, 0, 0, -np.sin(0.1), 0, 0, 0], atol=1e-9)


# --- robot and data ---------------------------------------------------------------------------------------------------

MEASURED = [0.00227535492, -0.169962055, -0.00261420059, -2.44013652, 0.000125455503, 2.21456174, 0.784459665]


def test_the_robot_is_the_simulators():
    robot = load_robot(str(LIBERO.robot))
    assert tuple(robot.joint_names) == JOINTS and robot.rate_hz == 20
    tip = Kinematics(robot, 0).forward(np.array(MEASURED))
    assert np.allclose(tip[:3, 3], [0.4513769, -0.0000919, 0.2662608], atol=1e-4), "as measured in the simulator"


def test_demonstrations_have_labels_in_both_images():
    found = features(LIBERO)
    assert found["annotation.points"].shape == (2 * 3 * 3,)
    assert {name for name in found if "images" in name} == {"observation.images.ego", "observation.images.cam_wrist"}


# --- the simulator ----------------------------------------------------------------------------------------------------

TASK = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
NUMBER = 1000 * LIBERO.tasks.index(TASK)


@pytest.fixture(scope="module")
def world():
    process = WorldProcess(LIBERO.environment.python, LIBERO.module)
    yield process
    process.close()


def in_environment(code):
    """What a program in the benchmark's environment prints last, as JSON."""
    prepared = "from benchmarks.public.protocol.world_server import use_software_rendering\nuse_software_rendering()\n"
    command = [LIBERO.environment.python, "-c", prepared + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def chunks_of(frames, ahead=20, executed=10):
    """Chunks [N, 20, 7] of a policy that predicts a demonstration, of which so many rows are executed."""
    tips, poses = (
        [matrix(row[:3], Rotation.from_quat(row[3:7])) for row in frames[name]]
        for name in ("observation.eef_pose", "action")
    )
    opening = frames["action"][:, 7]
    chunks = []
    for first in range(0, len(poses), executed):
        rows = [min(first + i, len(poses) - 1) for i in range(ahead)]
        chunks.append([[*delta_from_poses(tips[first], poses[row]), opening[row]] for row in rows])
    return np.array(chunks)


@in_simulator
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_images_sentences_and_states_are_the_packages():
    found = in_environment("""
import json, os
import numpy as np
from libero.libero import benchmark, get_libero_path
from libero.libero.envs.env_wrapper import OffScreenRenderEnv
from benchmarks.public.libero.actions import IDLE
from benchmarks.public.libero.scene import CAMERAS, Scene
from benchmarks.public.libero.tasks import SUITES, instruction
suites = {name: benchmark.get_benchmark(name)() for name in SUITES}
same = {name: [task.name for task in suite.tasks] == list(SUITES[name]) for name, suite in suites.items()}
said = all(task.language == instruction(task.name) for suite in suites.values() for task in suite.tasks)
suite = suites["libero_spatial"]
env = OffScreenRenderEnv(bddl_file_name=suite.get_task_bddl_file_path(3), camera_heights=256, camera_widths=256)
scene = Scene(SUITES["libero_spatial"][3])
scene.reset_official(4)
for _ in range(20):
    scene.step(-IDLE)  # what the fingers did before does not matter
state = suite.get_task_init_states(3)[5]
env.seed(0)
env.reset()
seen = env.set_init_state(state)
scene._put(state)
theirs = {tag: seen[f"{name}_image"][::-1, ::-1].astype(int) for tag, name in CAMERAS.items()}
away = [int(np.abs(image - scene.image(tag)).max()) for tag, image in theirs.items()]
for _ in range(10):
    seen = env.step(IDLE)[0]
scene.reset_official(5)
data = env.env.sim.data
older = data.qpos[:8] - 0.002 * data.qvel[:8]
told = np.append(seen["robot0_joint_pos"], seen["robot0_gripper_qpos"][:1])
moved = [float(np.abs(q - p).max()) for q, p in ((data.qpos[:8], scene.joints()), (older, told))]
print(json.dumps([same, said, away, moved]))
""")
    assert all(found[0].values()) and found[1], "names, order and sentences"
    assert found[2] == [0, 0], "pixels"
    assert max(found[3]) < 1e-9, "the same motion, which the package's observation tells one step of 2 ms later"


@in_simulator
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_our_own_start_states_are_apart_from_the_official_ones_and_repeat():
    found = in_environment("""
import json
from benchmarks.public.libero.scene import Scene
from benchmarks.public.libero.tasks import SUITES, nearest
apart, joints, repeated = [], [], []
for task in (SUITES["libero_object"][0], *SUITES["libero_spatial"][4:6]):  # in the last, a bowl slides off a ramekin
    scene = Scene(task)
    for seed in (500000, 500001, 1000000, 1000001, 500000):
        scene.reset(seed)
        apart.append(nearest(scene.official_places(), scene.places()[:, :2]))
        joints.append(scene.places().round(9).tolist())
    repeated.append(joints[-1] == joints[-5])
    scene.close()
print(json.dumps([apart, repeated, len({str(places) for places in joints})]))
""")
    assert min(found[0]) > 0.5 * APART, "after they settled, too"
    assert found[1] == [True] * 3 and found[2] == 12


@in_simulator
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_that_predicts_the_demonstration_succeeds_and_one_that_holds_does_not(world, tmp_path):
    robot = load_robot(str(LIBERO.robot))
    (trial,) = LIBERO.trials([TASK], 1)
    shown = world.demonstrate(TASK, trial.start, None)
    assert shown["success"] and shown["instruction"] == instruction(TASK)
    chunks = chunks_of(shown["frames"])
    np.save(tmp_path / "chunks.npy", np.roll(chunks, trial.start * 1000 % len(chunks), axis=0))
    row = run_episode(world, open_policy(f"mock://{tmp_path / 'chunks.npy'}", robot), trial)
    assert row.success and row.seconds == pytest.approx(len(shown["frames"]["action"]) / 20, abs=0.5)
    held = run_episode(world, open_policy("mock://hold", robot), trial)
    assert not held.success and held.seconds == pytest.approx(280 / 20) and held.failure == "did not reach the object"


@in_simulator
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_demonstration_has_small_images_whose_labels_are_on_the_things(world):
    start = FIRST_DEMONSTRATION + NUMBER
    seen, shown = world.start(TASK, start), world.demonstrate(TASK, start, [128, 128])["frames"]
    count = len(shown["action"])
    for tag in ("ego", "cam_wrist"):
        small = seen["images"][tag].reshape(128, 2, 128, 2, 3).mean((1, 3))
        assert np.abs(small - shown[f"observation.images.{tag}"][0]).mean() < 6.0
    assert shown["annotation.points"].shape == (count, 18) and shown["annotation.fresh"][:5].ravel().tolist() == [
        1,
        0,
        0,
        0,
        1,
    ]
    tip = shown["annotation.points"][0].reshape(2, 3, 3)[1, 2]
    assert tip[0] == pytest.approx(0.5, abs=0.05) and 0.7 < tip[1] < 0.95, "between the fingers, at the lower edge"
    assert tip[2] > 0.05
    kinematics = Kinematics(load_robot(str(LIBERO.robot)), 0)
    tips = np.array([kinematics.forward(joints[:7])[:3, 3] for joints in shown["observation.state"]])
    poses = shown["observation.eef_pose"][:, :3]
    offset = poses - tips
    error = np.abs(offset - np.median(offset, axis=0)).max(axis=1)
    step = np.linalg.norm(np.gradient(poses, axis=0), axis=1) * 0.002 / 0.05  # MuJoCo's poses are a step older
    assert np.all(error < 1e-4 + 1.5 * step), "the description's kinematics are the simulator's"


@in_simulator
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_snapshot_has_one_labeled_frame(world):
    frames = world.snapshot(TASK, FIRST_SNAPSHOT + NUMBER, [128, 128])["frames"]
    assert {len(rows) for rows in frames.values()} == {1} and frames["annotation.fresh"][0] == 1
    assert frames["observation.images.ego"].shape == (1, 128, 128, 3) and frames["annotation.points"].shape == (1, 18)


@in_simulator
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_expert_goes_on_from_where_a_policy_has_led(world):
    """Which closed the fingers on nothing; while they close, it is not known."""
    world.start(TASK, FIRST_INTERVENTION + NUMBER)
    aside = np.tile([0, 0.05, 0, 0, 0, 0, 0.0], (30, 1))
    assert not world.execute(aside[:5], False)["free"]
    step = world.execute(aside, False)
    assert step["free"] and step["elapsed"] == pytest.approx(35 / 280)
    shown = world.take_over([96, 96])
    assert shown["success"] and shown["frames"]["action"][0, 7] == 1, "it opens them first"
    np.testing.assert_allclose(shown["frames"]["observation.state"][0], step["observation"]["state"], atol=1e-6)
