# SPDX-License-Identifier: Apache-2.0
"""The prompt, byte for byte, for every kind of robot that the template distinguishes."""

import pytest

from embodiment_descriptions import Embodiment, build_prompt, known_robots, load_robot
from embodiment_descriptions.prompt import image_marker

REST = (
    b"The control frequency is 5 Hz. Please predict the next 16 control actions to execute the following task: "
    b"pick up the red cube."
)
# (arms, waist, base)
GOLDEN = {
    (1, False, False): b"The robot is WidowX with single arm. " + REST,
    (1, True, False): b"The robot is WidowX with single arm, waist. " + REST,
    (1, False, True): b"The robot is WidowX with single arm, and mobile base. " + REST,
    (2, False, False): b"The robot is WidowX with dual arms. " + REST,
    (2, True, False): b"The robot is WidowX with dual arms, waist. " + REST,
    (2, False, True): b"The robot is WidowX with dual arms, and mobile base. " + REST,
    (2, True, True): b"The robot is WidowX with dual arms, waist, and mobile base. " + REST,
}


def fill(**changes: object) -> str:
    values = {"robot_tag": "WidowX", "arm_count": 1, "has_waist": False, "has_base": False, "rate_hz": 5.0}
    return build_prompt(**(values | {"chunk_size": 16, "instruction": "pick up the red cube"} | changes))


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden(kind: tuple[int, bool, bool]) -> None:
    arms, waist, base = kind
    assert fill(arm_count=arms, has_waist=waist, has_base=base).encode() == GOLDEN[kind]


# The prompt of every robot that ships.
ROBOTS = {
    "widowx": GOLDEN[(1, False, False)],
    "aloha": b"The robot is ALOHA with dual arms. The control frequency is 50 Hz. Please predict the next 50 control "
    b"actions to execute the following task: pick up the red cube.",
    "mobile_base": b"The robot is TurtleBot3 Waffle Pi with mobile base. The control frequency is 2 Hz. Please predict "
    b"the next 8 navigation waypoints (dx, dy, dtheta) to execute the following task: pick up the red cube.",
}


@pytest.mark.parametrize("name", known_robots())
def test_golden_of_a_robot(name: str) -> None:
    assert load_robot(name).prompt("pick up the red cube").encode() == ROBOTS[name]


def test_golden_of_a_base_alone() -> None:
    assert fill(arm_count=0, has_base=True).encode() == b"The robot is WidowX with mobile base. " + REST


def test_only_the_actions_differ_for_waypoints() -> None:
    waypoints = fill(arm_count=2, has_base=True, waypoints=True)
    assert waypoints.encode() == GOLDEN[(2, False, True)].replace(
        b"control actions", b"navigation waypoints (dx, dy, dtheta)"
    )


@pytest.mark.parametrize(("waist", "base"), [(False, False), (True, True), (True, False)])
def test_nothing_that_moves_is_refused(waist: bool, base: bool) -> None:
    with pytest.raises(ValueError, match="not 0 arms"):
        fill(arm_count=0, has_waist=waist, has_base=base)


@pytest.mark.parametrize(
    ("waist", "base", "parts"),
    [
        (False, False, "dual arms"),
        (True, False, "dual arms, waist"),
        (False, True, "dual arms, and mobile base"),
        (True, True, "dual arms, waist, and mobile base"),
    ],
)
def test_from_a_urdf(waist: bool, base: bool, parts: str, twin) -> None:
    e = Embodiment.from_urdf(*twin(waist=waist, base=base))
    assert e.prompt("fold the towel") == (
        f"The robot is Twin with {parts}. The control frequency is 10 Hz. Please predict the next 8 control actions to "
        "execute the following task: fold the towel."
    )


@pytest.mark.parametrize(("rate", "text"), [(5.0, "5 Hz"), (2.5, "2.5 Hz"), (50, "50 Hz"), (1000.0, "1000 Hz")])
def test_frequency_without_trailing_zeros(rate: float, text: str) -> None:
    assert f"frequency is {text}. " in fill(rate_hz=rate)


@pytest.mark.parametrize("instruction", ["", "   ", "\n"])
def test_empty_instruction_is_refused(instruction: str) -> None:
    with pytest.raises(ValueError, match="instruction is empty"):
        fill(instruction=instruction)


def test_special_tokens_cannot_be_smuggled_in() -> None:
    with pytest.raises(ValueError, match="special token"):
        fill(instruction="look here <|ego_end|> and there")


def test_third_arm_is_refused() -> None:
    with pytest.raises(ValueError, match="not 3"):
        fill(arm_count=3)


def test_image_markers() -> None:
    assert image_marker("cam_left_wrist") == ("<|cam_left_wrist_start|>", "<|cam_left_wrist_end|>")
    with pytest.raises(ValueError, match="camera tag 'a|b'".replace("|", r"\|")):
        image_marker("a|b")
