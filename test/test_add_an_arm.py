# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/describe_a_robot.md as it stands there: an arm outside the tree is one YAML and its description.

The page's files lie in a folder of their own, and its commands run in their order, each on what those before it left.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from test_rosbag import START, Bag, S

from embodiment_descriptions import Embodiment, load_robot, resource_path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs/how-to/describe_a_robot.md").read_text()
BAGS = ("monday", "tuesday")
SECONDS = 4
TAUGHT = "open the drawer"


def blocks(language: str) -> list[str]:
    """The blocks of a language on the page, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]
EMBODIMENT, RECIPE = blocks("yaml")
(LIFT,) = blocks("python")


def command(*words: str) -> str:
    """The only command of the page with these words in it."""
    (found,) = [line for line in COMMANDS if all(word in line for word in words)]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the page's files, the description copied as the page does, and a checkout's examples and model."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("examples", "checkpoints"):
        (folder / name).symlink_to(REPOSITORY / name)
    for line in COMMANDS[:2]:
        shell(line, folder)
    for name, text in (("my_robot.yaml", EMBODIMENT), ("training.yaml", RECIPE), ("lift.py", LIFT)):
        (folder / "my_robot" / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def robot(folder) -> Embodiment:
    return load_robot(folder / "my_robot/my_robot.yaml")


@pytest.fixture(scope="module")
def motion(robot) -> np.ndarray:
    """Where the joints are in every hundredth of a second: they sway around home, and the gripper begins to close."""
    times = np.arange(100 * SECONDS)[:, None] / 100
    home = np.array([robot.home[name] for name in robot.joint_names])
    positions = home + 0.05 * np.sin(times + np.arange(len(home)))
    positions[:, -1] = np.clip(times[:, 0] - 2, 0, 0.5)
    return positions


@pytest.fixture(scope="module")
def converted(folder, robot, motion) -> Path:
    """The data set that the page's command makes of two recordings of the robot."""
    rng = np.random.default_rng(0)
    for name in BAGS:
        with Bag(folder / "bags" / name, lag=0) as bag:
            for number, positions in enumerate(motion):
                now = START + number * S // 100
                bag.joints(now, positions, robot.joint_names)
                if number % 10 == 0:
                    bag.image(robot.cameras[0].topic, now, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    shell(command("qwen-vla convert"), folder)
    return folder / "out/data/my_robot"


@pytest.fixture(scope="module")
def trained(folder, converted) -> Path:
    shell(command("qwen-vla train"), folder)
    return folder / "out/train/my_robot/model"


def shell(line: str, folder: Path, *allowed: int) -> str:
    """Run a line of the page; what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words, surroundings = ["bash", "-c", line], {**os.environ, "PATH": path}
    done = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True)
    assert done.returncode in (0, *allowed), f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_it_is_described(folder):
    said = shell(command("qwen-vla describe"), folder)
    assert said.startswith("my_robot  (robot tag: My Robot)\n") and "was guessed" not in said
    assert re.search(r"^gripper +finger_joint: closed 0.8, open 0$", said, re.MULTILINE)
    (prompt,) = re.findall(rf"^prompt for '{TAUGHT}':\n(.*)$", said, re.MULTILINE)
    assert prompt == load_robot(folder / "my_robot/my_robot.yaml").prompt(TAUGHT)
    assert prompt.startswith("The robot is My Robot with single arm. The control frequency is 5 Hz.")


def test_every_part_of_it_is_what_the_suites_example_has(robot):
    example = load_robot(resource_path("examples/ur5e_2f85/ur5e_2f85.yaml"))
    assert robot.limits == example.limits and robot.commands == example.commands and robot.arms == example.arms


def findings(folder: Path, *words: str) -> dict[tuple[str, str], dict]:
    """What the doctor finds, by heading and subject. It may fail for want of memory, disk or the like."""
    line = command("qwen-vla doctor", *words)
    shell(line, folder, 2)
    report = json.loads((folder / shlex.split(line)[-1]).read_text())
    assert report["robot"] == "my_robot"
    return {(finding["area"], finding["subject"]): finding for finding in report["findings"]}


def test_the_doctor_looks_at_what_needs_no_robot(folder):
    found = findings(folder, "mock://hold")
    assert found["Model", "policy"]["level"] == "ok", found
    if find_spec("control_msgs"):
        assert found["ROS setup", "command messages"]["fact"] == "control_msgs, trajectory_msgs"
    else:  # not among the wheels
        missing = found["ROS setup", "control_msgs"]
        assert missing["fact"] == "not installed, but required to command my_robot" and "apt" in missing["remedy"]


def test_it_is_launched_with_the_description_beside_its_yaml(folder, robot, monkeypatch):
    pytest.importorskip("launch_ros")
    from launch import LaunchContext
    from launch_ros.actions import Node

    from qwen_vla_ros.bringup import any_robot

    monkeypatch.chdir(folder)
    given = dict(word.split(":=", 1) for word in shlex.split(command("ros2 launch")) if ":=" in word)
    context = LaunchContext()
    declared = {argument.name: argument for argument in any_robot.arguments()}
    assert set(given) <= set(declared)
    for name in set(declared) - set(given):
        declared[name].execute(context)
    context.launch_configurations.update(given)
    started = [entity for entity in any_robot.everything(context).get_sub_entities() if isinstance(entity, Node)]
    executables = [node.node_executable for node in started]
    assert executables == [
        "robot_state_publisher", "ros2_control_node", "spawner", "executor_node", "trajectory_visualizer"
    ]  # fmt: skip
    urdf = any_robot.description(folder / "my_robot/my_robot.yaml", context)
    assert Embodiment.from_urdf(urdf, folder / "my_robot/my_robot.yaml") == robot
    assert "mock_components/GenericSystem" in urdf


def test_recordings_of_it_become_a_data_set_that_brings_it(converted, robot, motion):
    from qwen_vla.data.formats.lerobot import LeRobotEpisodes, LeRobotReader

    reader = LeRobotReader(converted)
    assert set(reader.tasks) == {TAUGHT} and reader.rate_hz == robot.rate_hz
    assert reader.info["robot_type"] == "my_robot" and reader.features["observation.state"] == robot.joint_names
    assert len(reader.episodes) == len(BAGS) and len(reader) >= len(BAGS) * (SECONDS - 1) * robot.rate_hz
    assert LeRobotEpisodes.robot(converted) == robot
    rows = reader.frames["observation.state"]
    distance = np.abs(motion[:, None] - rows[None]).max(axis=2).min(axis=0)
    assert distance.max() < 0.01, "every row is where the joints were"


def test_the_model_learns_its_prompt_and_its_channels(folder, trained, robot):
    from qwen_vla.policies import Observation, open_policy
    from qwen_vla_control.gate import Chunk, gate_of
    from qwen_vla_control.gate.chunk_schema import check_schema

    policy = open_policy(str(trained), robot)
    images = {tag: np.zeros((48, 64, 3), np.uint8) for tag in policy.camera_tags}
    state = np.array([robot.home[name] for name in policy.state_names])
    chunk = policy.infer(Observation(images, TAUGHT, state=state), seed=1)
    assert chunk.channel_names == robot.channel_names and chunk.data.shape == (16, 7)
    assert check_schema(Chunk.predicted(chunk, robot.base_frame), gate_of(robot).schema) == []
    model = {subject: finding for (area, subject), finding in findings(folder, "out/train").items() if area == "Model"}
    assert model["prompt"]["level"] == "ok", model
    assert not [finding for finding in model.values() if finding["level"] == "fail"], model


@pytest.mark.parametrize("line", [line for line in COMMANDS if "lift.py" in line])
def test_the_gate_judges_chunks_for_it(folder, line):
    expected = line.split("# ")[1].removesuffix("…")
    assert shell(line, folder).startswith(expected)


def test_every_command_of_the_page_is_run_here():
    programs = [line.split()[0:2] for line in COMMANDS]
    assert programs[:2] == [["mkdir", "-p"], ["cp", "examples/ur5e_2f85/ur5e_2f85.urdf.xacro"]]
    assert [name for _, name in programs[2:]] == [
        "describe", "launch", "doctor", "convert", "train", "doctor", "my_robot/lift.py", "my_robot/lift.py"
    ]  # fmt: skip
