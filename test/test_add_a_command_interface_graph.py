# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/add_a_command_interface.md as it stands there: its one module in a package of its own, and its commands.

A real executor_node sends to the module's stand-in in the real simulator, and episode_recorder records what it sends.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from embodiment_descriptions import load_robot, resource_path
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_msgs.srv import StartEpisode
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.ros.spinning_node import SpinningNode
from qwen_vla_ros.simulation.child_processes import LAUNCHER

PAGE = Path(__file__).resolve().parents[1] / "docs/how-to/add_a_command_interface.md"
WIDOWX = load_robot("widowx")
PATIENCE = 120.0  # [s] generous: the machine may be busy
BIN = Path(sys.executable).parent


def block(language: str) -> str:
    """The only block of a language on the page."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return text


NODES, (DOCTOR, CONVERT) = block("sh").splitlines(), block("bash").splitlines()


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The folder in which the page's package is installed, with nothing but itself; no network."""
    folder, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("joint_state_command")
    (source / "joint_state_command.py").write_text(block("python"))
    (source / "pyproject.toml").write_text(block("toml"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", folder, source], check=True)
    return folder


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Path:
    """The folder with the page's YAML."""
    folder = tmp_path_factory.mktemp("robot")
    shutil.copy(resource_path("config/embodiments/widowx.yaml"), folder)
    (folder / "widowx_servos.yaml").write_text(block("yaml"))
    return folder


def arguments(line: str) -> list[str]:
    """A command of the page, without `ros2 run PACKAGE`."""
    words = shlex.split(line)
    program, *rest = words[3:] if words[:2] == ["ros2", "run"] else words
    return [str(BIN / program), *rest]


def run(line: str, folder: Path, path: str = "") -> subprocess.CompletedProcess:
    """A command of the page in a folder, with `path` to find more packages in."""
    environment = ros_environment() | {"PYTHONPATH": path}
    return subprocess.run(arguments(line), cwd=folder, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def nodes(folder: Path, package: Path) -> Iterator[Callable[[], None]]:
    """The page's nodes while they run; returns what fails when one has ended."""
    environment, running = ros_environment() | {"PYTHONPATH": str(package)}, {}
    with ExitStack() as ends:
        for line in NODES:
            program = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *arguments(line)]
            log = ends.enter_context(open(folder / f"{len(running)}.log", "w"))
            running[log.name] = subprocess.Popen(
                program, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            ends.callback(running[log.name].wait)
            ends.callback(running[log.name].kill)

        def check() -> None:
            ended = [name for name, process in running.items() if process.poll() is not None]
            assert not ended, "\n".join(Path(name).read_text() for name in ended)

        yield check


class Policy(SpinningNode):
    """A policy's heartbeat and chunks; hears what executor_node thinks of them, and what it commands.

    Attributes:
        commanded: set-points in the order of their arrival.
        joints: measured positions by name.
    """

    def __init__(self) -> None:
        super().__init__("policy", int(os.environ["ROS_DOMAIN_ID"]), use_sim_time=True)
        self.commanded: list[JointState] = []
        self.reports: list[ChunkReport] = []
        self.joints: dict[str, float] = {}
        self._number = 0
        self._heartbeat = self.node.create_publisher(Header, "policy_node/heartbeat", 10)
        self._chunks = self.node.create_publisher(ActionChunk, "policy_node/action_chunk", 10)
        self.node.create_timer(0.05, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.hear(JointState, "joint_command", self.commanded.append, 200)
        self.hear(JointState, "joint_states", self._measure, 10)
        self.hear(ChunkReport, "executor_node/chunk_report", self.reports.append, 50)

    def _measure(self, message: JointState) -> None:
        self.joints = dict(zip(message.name, message.position, strict=True))

    def _beat(self) -> None:
        self._heartbeat.publish(Header(stamp=self.node.get_clock().now().to_msg()))

    def now(self) -> float:
        """Simulated time [s]."""
        return self.node.get_clock().now().nanoseconds / 1e9

    def until(self, condition: Callable, what: str):
        return self.wait(condition, what, PATIENCE)

    def ask(self, kind: type, service: str, request):
        return self.call(self.node.create_client(kind, service), request, PATIENCE)

    def verdicts(self) -> list[int]:
        return [report.verdict for report in self.reports if report.chunk_id == self._number]

    def stands_where_it_was_told(self) -> bool:
        last = self.commanded[-1]
        return all(abs(self.joints[name] - to) < 0.02 for name, to in zip(last.name, last.position, strict=True))

    def advance(self) -> int:
        """Send a chunk that goes 8 cm along the tool and half closes the gripper; returns the first verdict."""
        self._number += 1
        rows = np.zeros((16, 7), np.float32)
        rows[:, 0], rows[:, 6] = 0.005 * np.arange(1, 17), np.linspace(1.0, 0.5, 16)
        message = ActionChunk(
            chunk_id=self._number,
            embodiment=WIDOWX.name,
            control_mode=WIDOWX.control_mode,
            channel_names=list(WIDOWX.channel_names),
            instruction="go down",
            horizon=16,
            execution_horizon=8,
            period=WIDOWX.period,
            data=rows.reshape(-1).tolist(),
        )
        message.header.stamp, message.header.frame_id = self.node.get_clock().now().to_msg(), "base_link"
        self._chunks.publish(message)
        return self.until(self.verdicts, "verdict on a chunk")[0]


def play(policy: Policy) -> JointState:
    """Record an episode of one motion, to its end; returns the last set-point."""
    policy.until(lambda: policy.node.count_subscribers("joint_command"), "the stand-in")
    policy.until(lambda: policy.node.count_publishers("executor_node/chunk_report"), "executor_node")
    policy.until(lambda: policy.node.count_subscribers("policy_node/action_chunk"), "executor_node to listen")
    policy.until(lambda: policy.joints, "joint states")
    recording = policy.ask(StartEpisode, "episode_recorder/start", StartEpisode.Request(instruction="go down"))
    assert recording.success, recording.message
    # Of a node that has just become active, or on a busy computer, a chunk comes too late.
    assert any(policy.advance() == ChunkReport.ACCEPTED for _ in range(20)), policy.reports
    policy.until(lambda: ChunkReport.COMPLETED in policy.verdicts(), "the end of the motion")
    policy.until(policy.stands_where_it_was_told, "the joints to get there")
    ended = policy.now()  # rows of the data set say where the joints were told to be one period later
    policy.until(lambda: policy.now() > ended + 1.0, "a second of simulated time")
    assert policy.stands_where_it_was_told()
    last = policy.commanded[-1]  # only now: another topic than the verdict's, which may have overtaken it
    stopped = policy.ask(Trigger, "episode_recorder/stop", Trigger.Request())
    assert stopped.success, stopped.message
    return last


def test_a_robot_is_commanded_simulated_examined_and_recorded_through_it(package, robot):
    with nodes(robot, package) as check:
        with Policy() as policy:
            policy.check = check
            last = play(policy)
        examined = run(DOCTOR, robot, str(package))
    told = dict(zip(last.name, last.position, strict=True))
    moved = {name: told[name] - WIDOWX.home[name] for name in told}
    assert max(map(abs, moved.values())) > 0.1 and moved["left_finger"] < -0.002

    findings = {one["subject"]: one for one in json.loads((robot / "out/doctor.json").read_text())["findings"]}
    assert findings["joint_command"]["level"] == "ok", examined.stdout
    converted = run(CONVERT, robot, str(package))
    assert converted.returncode == 0, converted.stderr
    frames = LeRobotReader(robot / "out/data/servos").frames
    np.testing.assert_allclose(frames["action"][-1], [told[name] for name in WIDOWX.joint_names], atol=1e-5)
    reached = frames["observation.state"][1:]
    assert np.abs(frames["action"][:-1] - reached).max() > 1e-3, "measured positions would be no proof"


def test_without_the_package_the_kinds_that_there_are_are_named(robot):
    refused = run(NODES[0], robot)
    assert refused.returncode == 1
    assert "no command interface is called 'joint_state'; installed: 'base_velocity', " in refused.stderr
    assert "install the package that adds it" in refused.stderr


def test_a_kind_without_a_stand_in_is_refused_by_the_simulator(robot, tmp_path, package):
    shutil.copytree(package, tmp_path / "installed")
    module = tmp_path / "installed" / "joint_state_command.py"
    module.write_text(module.read_text().replace('"joint_state_command:simulated_servos"', '""'))
    refused = run(NODES[0], robot, str(tmp_path / "installed"))
    assert refused.returncode == 1
    assert "command interface 'joint_state' has no stand-in in the simulator" in refused.stderr
