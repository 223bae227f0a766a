# SPDX-License-Identifier: Apache-2.0
"""Instructions match the arm's motion: they are parsed here independently and compared with the tip's path."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodiment_descriptions import load_robot
from qwen_vla.data.motions.motion_templates import TEMPLATES, Planner
from qwen_vla.data.motions.paraphrases import corpus, paraphrase

MILLIMETERS = {"mm": 1, "cm": 10, "centimeter": 10, "centimeters": 10, "m": 1000}
TEENS = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
NUMBERS = f"two three four five six seven eight nine ten {TEENS}".split()
WORDS = {word: number for number, word in enumerate(NUMBERS, 2)}
# REP-103, said independently of the code under test.
FORWARD, LEFT, UP = np.eye(3)
WAYS = [
    (r"in the positive x direction|forwards?\b|ahead|to the front", FORWARD),
    (r"in the negative x direction|backwards?\b|\bback\b|to the rear", -FORWARD),
    (r"in the positive y direction|to the left|leftwards|\bleft\b", LEFT),
    (r"in the negative y direction|to the right|rightwards|\bright\b", -LEFT),
    (r"in the positive z direction|upwards?\b|\bup\b", UP),
    (r"in the negative z direction|downwards?\b|\bdown\b", -UP),
]
CENTERS = [("in front of it|ahead of it", FORWARD), ("behind it", -FORWARD), ("left of it", LEFT)]
CENTERS += [("right of it", -LEFT), ("above it", UP), ("below it", -UP)]
# A viewer looks along this; what turns clockwise for him turns by the right-hand rule about it.
LOOKS = {"seen from above": -UP, "seen from behind the robot": FORWARD, "seen from the robot's left": -LEFT}
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def planner():
    return Planner(load_robot("widowx"), 0, 4.0)


def drawn(planner, template, seed, arm_name=None):
    rng = np.random.default_rng(seed)
    motion = planner.draw(template, rng)
    joints, openings = motion.sample(50)
    return paraphrase(motion, arm_name, rng), planner.poses(joints), openings, motion


def meters(text):
    (number, unit), *others = re.findall(r"([\d.]+|[a-z]+) (mm|cm|centimeters?|m)\b", text)
    assert not others, text
    return (WORDS[number] if number in WORDS else float(number)) * MILLIMETERS[unit] / 1000


def direction(text, table=WAYS):
    text = text.replace("a right angle", "90 degrees")
    found = [way for words, way in table if re.search(words, text)]
    assert len(found) == 1, f"{len(found)} directions in {text!r}"
    return found[0]


def displacement(text):
    return meters(text) * direction(re.sub(r", .*| in [\d.]+ s.*", "", text))


def turned(poses):
    return Rotation.from_matrix(poses[-1, :3, :3] @ poses[0, :3, :3].T)


fast = settings(deadline=None, max_examples=25)


@fast
@given(seeds)
def test_moves(planner, seed):
    text, poses, openings, _ = drawn(planner, "move", seed)
    np.testing.assert_allclose(poses[-1, :3, 3] - poses[0, :3, 3], displacement(text), atol=2e-4, err_msg=text)
    assert Rotation.from_matrix(poses[:, :3, :3] @ poses[0, :3, :3].T).magnitude().max() < 0.01
    off_the_line = np.cross(poses[:, :3, 3] - poses[0, :3, 3], displacement(text) / np.linalg.norm(displacement(text)))
    assert np.abs(off_the_line).max() < 1e-3 and np.ptp(openings) < 1e-9


@fast
@given(seeds)
def test_turns(planner, seed):
    text, poses, _, _ = drawn(planner, "turn", seed)
    turn = turned(poses)
    degrees = re.search(r"(-?\d+) degrees", text)
    angle = int(degrees[1]) if degrees else 90
    np.testing.assert_allclose(np.degrees(turn.magnitude()), abs(angle), atol=0.05, err_msg=text)
    top = turn.apply(UP)
    if about := re.search(r"(?:about|around) the ([xyz]) axis", text):
        expected = Rotation.from_euler(about[1], angle, degrees=True)
        assert (expected.inv() * turn).magnitude() < 1e-3, text
    elif "seen from above" in text or "swivel" in text:
        leftwards = "counter-clockwise" in text or "to the left" in text
        assert turn.as_rotvec()[2] * (1 if leftwards else -1) > 0, text
    else:  # the top of the tool leans somewhere
        assert top @ direction(text) == pytest.approx(np.sin(np.radians(angle)), abs=1e-3), text
    assert np.abs(poses[:, :3, 3] - poses[0, :3, 3]).max() < 2e-3


@fast
@given(seeds)
def test_reaches(planner, seed):
    text, poses, _, _ = drawn(planner, "reach", seed)
    if "workspace" in text:
        share = (poses[-1, :3, 3] - planner.low) / (planner.high - planner.low)
        assert ("far" in text) == (share[0] > 0.5) and ("near" in text) == (share[0] < 0.5), text
        expected = "left" if share[1] > 2 / 3 else "right" if share[1] < 1 / 3 else "center"
        assert expected in text
        assert ("high" in text) == (share[2] > 0.5) and ("low" in text.replace("slow", "")) == (share[2] < 0.5), text
        return
    unit = re.search(r"\d\)? (mm|cm|centimeters|m)\b", text)[1]
    numbers = re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"(in|within|taking) [\d.]+ s.*", "", text))
    np.testing.assert_allclose(poses[-1, :3, 3] * 1000, np.array(numbers, float) * MILLIMETERS[unit], atol=0.5)


@fast
@given(seeds)
def test_arcs(planner, seed):
    text, poses, _, _ = drawn(planner, "arc", seed)
    radius, to_center = meters(re.sub(r"(in|within|taking) [\d.]+ s.*", "", text)), direction(text, CENTERS)
    spokes = poses[:, :3, 3] - poses[0, :3, 3] - radius * to_center
    np.testing.assert_allclose(np.linalg.norm(spokes, axis=1), radius, atol=1e-3, err_msg=text)
    looks = next(way for words, way in LOOKS.items() if words in text)
    clockwise = -1 if "counter-clockwise" in text else 1
    steps = np.arctan2(np.cross(spokes[:-1], spokes[1:]) @ looks, np.sum(spokes[:-1] * spokes[1:], axis=1))
    whole = 90 if "quarter" in text or "of 90" in text else 180 if "half" in text or "of 180" in text else 360
    np.testing.assert_allclose(np.degrees(steps.sum()), clockwise * whole, atol=0.5, err_msg=text)


@fast
@given(seeds)
def test_grippers(planner, seed):
    text, poses, openings, _ = drawn(planner, "gripper", seed)
    number = re.search(r"(\d+) (?:percent|%)", text)
    closes = re.search(r"close|shut|grip with", text)
    expected = int(number[1]) / 100 if number else 0.0 if closes else 1.0
    assert openings[-1] == pytest.approx(expected) and abs(openings[-1] - openings[0]) >= 0.5, text
    assert np.ptp(poses, axis=0).max() < 1e-9


@fast
@given(seeds)
def test_sequences(planner, seed):
    text, poses, openings, _ = drawn(planner, "sequence", seed)
    body = re.sub(r",? (in|within|taking) [\d.]+ s(econds)?$", "", text)
    parts = re.split(r", then | and then |, after that |, next ", body)
    place, start = np.zeros(3), poses[0, :3, 3]
    for part in parts:
        if re.search(r"start|straight back", part):
            place = np.zeros(3)
        elif not re.search(r"open|close|shut|grip with|let go|release|opening", part):
            place = place + displacement(part)
    np.testing.assert_allclose(poses[-1, :3, 3] - start, place, atol=3e-4, err_msg=text)
    assert len(parts) >= 2
    if re.search(r"close|shut|grip with| 0 ", body):
        assert openings[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("template", TEMPLATES)
def test_times_that_are_said_are_kept_and_arms_are_named(planner, template):
    said = 0
    for seed in range(30):
        text, poses, _, motion = drawn(planner, template, seed, "left")
        assert "left " in text
        if match := re.search(r"(?:in|within|taking) ([\d.]+) s", text):
            assert float(match[1]) == pytest.approx((len(poses) - 1) / 50, abs=0.051 + 1 / 50)
            said += 1
    assert said > 0


def test_there_are_many_ways_to_say_it(planner):
    motion = planner.draw("move", np.random.default_rng(0))
    assert len({paraphrase(motion, None, np.random.default_rng(seed)) for seed in range(500)}) > 250


def test_slow_motions_are_slower(planner):
    motions = [planner.draw("move", np.random.default_rng(seed)) for seed in range(60)]
    speed = {pace: [] for pace in ("quickly", "", "slowly")}
    for motion in motions:
        if motion.steps[0].centimeters >= 8:  # short ones last a minimum anyway
            speed[motion.pace].append(motion.steps[0].centimeters / motion.duration)
    assert min(speed["quickly"]) > max(speed["slowly"])


def test_the_corpus_has_every_word(planner):
    words = set(re.findall(r"[a-z']+|\d|[^\w\s]", " ".join(corpus(["left"]))))
    for template in TEMPLATES:
        for seed in range(40):
            text, *_ = drawn(planner, template, seed, "left")
            assert set(re.findall(r"[a-z']+|\d|[^\w\s]", text)) <= words, text
