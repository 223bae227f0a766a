# SPDX-License-Identifier: Apache-2.0
"""A wrong description is refused with what is wrong, its value and the remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from embodiment_descriptions import Embodiment, EmbodimentError, ResourceError, expand_xacro, load_robot, resource_path
from embodiment_descriptions.config import load_config
from embodiment_descriptions.urdf import parse_urdf

URDF_FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "malformed": (lambda t: t.replace("</robot>", ""), "not well-formed XML, line 1"),
    "empty": (lambda t: "", "the URDF is empty; was its file written"),
    "not a robot": (lambda t: "<sdf/>", "<robot> as its root element; this document has <sdf>"),
    "nameless": (lambda t: t.replace(' name="small"', ""), "<robot> element has no name"),
    "no links": (lambda t: '<robot name="small"/>', "has no links"),
    "joint missing": (lambda t: t.replace('"j2"', '"elbow"'), "no joint 'j2'"),
    "no limit": (
        lambda t: t.replace('<limit lower="-2.0" upper="2.0" velocity="3.0" effort="10.0"/>', "", 1),
        "joint 'j1' has no usable velocity limit",
    ),
    "no positions": (
        lambda t: t.replace('lower="-2.0" upper="2.0" ', "", 1),
        "joint 'j1' has no usable position limits .lower=None, upper=None.",
    ),
    "limits swapped": (lambda t: t.replace('lower="-2.0"', 'lower="3.0"', 1), "lower=3.0, upper=2.0"),
    "velocity zero": (lambda t: t.replace('velocity="3.0"', 'velocity="0"', 1), "'j1' has no usable velocity limit"),
    "limit not a number": (lambda t: t.replace('"-2.0"', '"&quot;-2.0&quot;"', 1), "limit lower='\"-2.0\"' is not a"),
    "limit not finite": (lambda t: t.replace('velocity="3.0"', 'velocity="inf"', 1), "velocity='inf' is not a finite"),
    "type unknown": (lambda t: t.replace('"revolute"', '"hinge"', 1), "'j1' has the type 'hinge'"),
    "cannot move": (lambda t: t.replace('"j2" type="revolute"', '"j2" type="fixed"'), "'j2' cannot be commanded"),
    "mimic": (
        lambda t: t.replace('<parent link="upper"/>', '<mimic joint="j1"/><parent link="upper"/>', 1),
        "'j2' cannot be commanded: it mimics 'j1'",
    ),
    "mimics nobody": (
        lambda t: t.replace('<child link="tip"/>', '<child link="tip"/><mimic joint="j9"/>').replace(
            "fixed", "revolute"
        ),
        "joint 'end' mimics 'j9'; it has: j1, j2, j3, slide, end",
    ),
    "mimic factor": (
        lambda t: t.replace('<parent link="upper"/>', '<mimic joint="j1" multiplier="x"/><parent link="upper"/>', 1),
        "joint 'j2': mimic multiplier='x' is not a finite number",
    ),
    "mimics itself": (
        lambda t: t.replace('<parent link="upper"/>', '<mimic joint="j2"/><parent link="upper"/>', 1),
        "joints mimic each other: j2 <- j2",
    ),
    "link missing": (lambda t: t.replace('<link name="lower"/>', ""), "joint 'j2' names the link 'lower'"),
    "parent missing": (lambda t: t.replace('<parent link="base"/>', ""), "joint 'j1' names no parent link"),
    "duplicate link": (lambda t: t.replace("<joint", '<link name="tip"/><joint', 1), "more than one link tip"),
    "duplicate joint": (lambda t: t.replace('"j2"', '"j1"'), "more than one joint j1"),
    "loop": (lambda t: t.replace('<parent link="base"/>', '<parent link="wrist"/>'), "has a loop: "),
    "two parents": (
        lambda t: t.replace('<child link="tip"/>', '<child link="upper"/>'),
        "is the child of two joints, 'j1'",
    ),
    "two roots": (lambda t: t.replace("<joint", '<link name="loose"/><joint', 1), "not one tree: base, loose"),
    "tip missing": (lambda t: t.replace('"tip"', '"tool"'), "no link 'tip'"),
}


@pytest.mark.parametrize("fault", URDF_FAULTS)
def test_wrong_urdf(fault: str, small: tuple[str, dict]) -> None:
    urdf, config = small
    Embodiment.from_urdf(urdf, config)
    spoil, message = URDF_FAULTS[fault]
    assert spoil(urdf) != urdf
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(spoil(urdf), config)


def test_all_problems_are_named_at_once(small: tuple[str, dict]) -> None:
    urdf, config = small
    spoiled = urdf.replace('velocity="3.0"', "", 1).replace('"j2"', '"elbow"').replace('upper="0.04"', "")
    config["base"] = {"kind": "differential", "link": "basis"}
    with pytest.raises(EmbodimentError) as refused:
        Embodiment.from_urdf(spoiled, config)
    first, *problems = str(refused.value).splitlines()
    assert first == "the URDF of 'small' has 4 problems:"
    said = (
        "no joint 'j2'",
        "'j1' has no usable velocity limit",
        "'slide' has no usable position lim",
        "no link 'basis'",
    )
    assert all(text in problem for text, problem in zip(said, problems, strict=True)), problems
    with pytest.raises(
        EmbodimentError, match="has 2 problems:\n  joint 'j1' names no parent.*\n  joint 'j3' has the type"
    ):
        parse_urdf(urdf.replace('<parent link="base"/>', "").replace('"j3" type="revolute"', '"j3" type="hinge"'))


def in_arm(**changes: object) -> Callable[[dict], dict]:
    return lambda c: c | {"arms": [c["arms"][0] | changes]}


def gripper(**changes: object) -> Callable[[dict], dict]:
    return lambda c: in_arm(gripper=c["arms"][0]["gripper"] | changes)(c)


YAML_FAULTS: dict[str, tuple[Callable[[dict], dict], str]] = {
    "unknown key": (lambda c: c | {"rate": 5}, "rate: unknown key; did you mean 'rate_hz'"),
    "unknown key inside": (in_arm(tip="tip"), r"arms.0.tip: unknown key; did you mean 'tip_link'"),
    "missing key": (lambda c: {k: v for k, v in c.items() if k != "robot_tag"}, "robot_tag: missing"),
    "rate zero": (lambda c: c | {"rate_hz": 0}, r"rate_hz: .*greater than 0 \(got 0\)"),
    "rate not finite": (lambda c: c | {"rate_hz": float("nan")}, "rate_hz"),
    "mode": (lambda c: c | {"control_mode": "torque"}, r"control_mode: .*eef_delta.*\(got 'torque'\)"),
    "no arm": (lambda c: c | {"arms": []}, "a robot needs arms or a base"),
    "no camera": (lambda c: c | {"cameras": []}, "cameras: .*at least 1"),
    "camera tag": (lambda c: c | {"cameras": [c["cameras"][0] | {"tag": "Cam 1"}]}, "camera tag 'Cam 1' must be"),
    "duplicate camera": (lambda c: c | {"cameras": c["cameras"] * 2}, "camera tag ego is named more than once"),
    "base needed": (lambda c: c | {"control_mode": "base_velocity"}, "needs a base; describe it under `base`"),
    "base link": (
        lambda c: c | {"base": {"kind": "differential", "link": "basis"}},
        "no link 'basis'; did you mean 'base'",
    ),
    "joint unknown": (in_arm(joints=["j1", "j2", "j33"]), "no joint 'j33'; did you mean 'j3'"),
    "joint left out": (in_arm(joints=["j1", "j3"]), "are j1, j2, j3, but the configuration lists j1, j3"),
    "joints out of order": (in_arm(joints=["j2", "j1", "j3"]), "from base to tip"),
    "duplicate joint": (in_arm(joints=["j1", "j2", "j2"]), "joint j2 is named more than once"),
    "wrong base": (in_arm(base_link="finger"), "'tip' is not below link 'finger'"),
    "unknown base": (in_arm(base_link="basis"), "no link 'basis'; did you mean 'base'"),
    "gripper joint": (gripper(joint="slider"), "no joint 'slider'; did you mean 'slide'"),
    "gripper range": (gripper(open=0.0), "a gripper needs a range"),
    "gripper limits": (gripper(open=0.05), "gripper open: slide = 0.05 is outside its limits 0.0 .. 0.04"),
    "home joint": (lambda c: c | {"home": {"j9": 0.0}}, "home names the joint 'j9'"),
    "home incomplete": (lambda c: c | {"home": {"j1": 0.0}}, "home lacks j2, j3, slide"),
    "home outside": (
        lambda c: c | {"home": {"j1": 9.0, "j2": 0.0, "j3": 0.0, "slide": 0.0}},
        "home: j1 = 9.0 is outside its limits -2.0 .. 2.0",
    ),
    "limits of nobody": (lambda c: c | {"joint_limits": {"j4": {"velocity": 1}}}, "joint_limits names the joint 'j4'"),
    "limits wider": (
        lambda c: c | {"joint_limits": {"j1": {"velocity": 3.5}}},
        "joint_limits: 'j1' velocity 3.5 is wider than the URDF's 3; correct the URDF instead",
    ),
    "limits wider below": (
        lambda c: c | {"joint_limits": {"j1": {"lower": -2.5}}},
        "'j1' lower -2.5 is wider than .*-2",
    ),
    "limits swapped": (
        lambda c: c | {"joint_limits": {"j1": {"lower": 1, "upper": 0}}},
        "'j1' has no usable position limits .lower=1.0, upper=0.0.",
    ),
    "limit of a limit": (lambda c: c | {"joint_limits": {"j1": {"velocity": 0}}}, "joint_limits.j1.velocity: .*than 0"),
    "workspace": (
        lambda c: c | {"safety": {"workspace": {"min": [0, 0, 1], "max": [1, 1, 1]}}},
        "must be below max",
    ),
    "speed share": (lambda c: c | {"safety": {"max_joint_speed_fraction": 1.5}}, "less than or equal to 1"),
    "robot name": (lambda c: c | {"name": "My Robot"}, r"name: .*\(got 'My Robot'\)"),
}


@pytest.mark.parametrize("fault", YAML_FAULTS)
def test_wrong_yaml(fault: str, small: tuple[str, dict]) -> None:
    urdf, config = small
    spoil, message = YAML_FAULTS[fault]
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(urdf, spoil(config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a\n", "is not valid YAML"),
        ("- a\n- b\n", "must be a mapping of keys"),
        ("name: a\nname: b\n", "key name is given more than once"),
        ("!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_text_that_is_not_a_configuration(text: str, message: str, small: tuple[str, dict]) -> None:
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(small[0], text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mine.yaml is not valid YAML: it is empty$"),
        (b"# only a comment\n", "mine.yaml is not valid YAML: it is empty$"),
        (b"name: caf\xe9\n", "mine.yaml is not valid YAML: .* 0xe9 .*; save it as UTF-8$"),
        (b"- a\n", "mine.yaml must be a mapping of keys .*, not a list; docs/how-to/describe_a_robot.md shows one$"),
        (b"stage: sft\n", "mine.yaml describes no robot: .*; docs/how-to/describe_a_robot.md shows one$"),
    ],
)
def test_a_file_that_is_no_configuration(content: bytes, message: str, small: tuple[str, dict], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_urdf(small[0], tmp_path / "mine.yaml")


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_urdf_is_called_empty(text: str) -> None:
    with pytest.raises(EmbodimentError, match="the URDF is empty; was its file written to the end?"):
        Embodiment.from_urdf(text)


def test_yaml_file_missing(small: tuple[str, dict], tmp_path: Path) -> None:
    with pytest.raises(EmbodimentError, match="cannot read .*none.yaml: No such file"):
        Embodiment.from_urdf(small[0], tmp_path / "none.yaml")


def test_unknown_robot_lists_the_known() -> None:
    with pytest.raises(EmbodimentError, match="unknown robot 'widow'; known robots: .*widowx"):
        load_robot("widow")


def test_missing_resource_names_every_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(ResourceError) as raised:
        resource_path("config/embodiments/nobody.yaml")
    assert str(tmp_path / "share" / "qwen_vla_ros" / "config" / "embodiments" / "nobody.yaml") in str(raised.value)
    with pytest.raises(ResourceError, match="not a path inside the suite"):
        resource_path("../outside.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<robot", "unclosed token"),
        ('<robot name="r" xmlns:xacro="http://ros.org/wiki/xacro"><xacro:nowhere/></robot>', "xacro:nowhere"),
        ('<robot name="r" xmlns:xacro="http://ros.org/wiki/xacro"><link name="${1/0}"/></robot>', "division by zero"),
    ],
)
def test_wrong_xacro(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.urdf.xacro"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EmbodimentError, match=f"cannot expand .*wrong.urdf.xacro: .*{message}"):
        expand_xacro(path)


def test_a_yaml_that_is_about_something_else_is_told_from_a_robot_with_wrong_keys() -> None:
    with pytest.raises(EmbodimentError, match="describes no robot: it has none of the keys arms, base, cameras"):
        load_config("stage: sft\nsteps: 10\n")
