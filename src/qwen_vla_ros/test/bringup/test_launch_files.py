# SPDX-License-Identifier: Apache-2.0
"""The launch files document what they offer, start only what exists, and leave nothing behind.

They need the real `launch` and `launch_ros`, which are in a ROS installation but not in the wheels.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

pytest.importorskip("launch_ros")

import rclpy
import rclpy.node
from catkin_pkg.package import parse_package
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity, LaunchDescriptionSource, LaunchService
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.utilities import perform_substitutions
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare
from launch_ros.utilities import evaluate_parameters
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from sros2_policy import endpoints, refused

from embodiment_descriptions import EmbodimentError, ResourceError, robot_description
from qwen_vla_ros.bringup import any_robot, packages
from qwen_vla_ros.bringup import robot as bringup
from qwen_vla_ros.bringup.arguments import policy_arguments
from qwen_vla_ros.bringup.nodes import policy_node as policy_process
from qwen_vla_ros.bringup.preconditions import ArgumentError
from qwen_vla_ros.policy import policy_node
from qwen_vla_ros.ros.distributions import PROFILE_VARIABLES, distribution
from qwen_vla_ros.ros.environment import WITHOUT_SHARED_MEMORY

REPOSITORY = Path(__file__).resolve().parents[4]
ROBOTS = ("widowx", "aloha", "mobile_base")
READY_TIMEOUT = 300.0  # [s] seconds on an idle machine, minutes on a busy one: the policy prepares every prompt length
OWN_PACKAGES = ("qwen_vla_ros", "qwen_vla_sim")
# Not dependencies of the package: users of that hardware or simulator have them (docs/how-to/bring_up.md).
OPTIONAL_PACKAGES = ("interbotix_xs_sdk", "ros_gz_sim", "ros_gz_bridge")
# The complete suite: a start that lacks one of these is not a start of this launch file.
OWN_SHARES = {"qwen_vla_ros", "embodiment_descriptions"}
COMMON_ARGUMENTS = {
    "hardware", "policy", "device", "accelerate", "quantize", "blending", "namespace", "use_sim_time", "autostart",
    "rviz", "record", "log_level", "seed", "shift", "task", "embodiment_config",
}  # fmt: skip


def load(name: str) -> ModuleType:
    """A launch file as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_launch", REPOSITORY / "launch" / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def robot_of(name: str) -> bringup.Robot:
    """The `Robot` defined in a launch file."""
    (robot,) = [value for value in vars(load(name)).values() if isinstance(value, bringup.Robot)]
    return robot


def context_with(robot: bringup.Robot, **values: str) -> LaunchContext:
    """A start with these arguments and default values for all others."""
    context = LaunchContext()
    for argument in bringup.arguments(robot):
        argument.execute(context) if argument.name not in values else None
    context.launch_configurations.update(values)
    return context


def started(name: str, **values: str) -> list[LaunchDescriptionEntity]:
    """Everything in one start of a robot."""
    robot = robot_of(name)
    return bringup.everything(robot, context_with(robot, **values)).get_sub_entities()


def nodes(entities: list[LaunchDescriptionEntity]) -> set[tuple[str, str]]:
    """(package, executable) of every node."""
    return {(text(n.node_package), text(n.node_executable)) for n in entities if isinstance(n, Node)}


def text(substitutions: object) -> str:
    return substitutions if isinstance(substitutions, str) else perform_substitutions(LaunchContext(), substitutions)


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a complete ROS installation."""
    monkeypatch.setattr(packages, "installed", lambda package: True)


@pytest.mark.parametrize("name", [*ROBOTS, "policy", "robot"])
def test_every_argument_is_documented_and_its_default_is_a_choice(name: str) -> None:
    arguments = {a.name: a for a in load(name).generate_launch_description().get_launch_arguments()}
    if name == "policy":
        assert set(arguments) == {
            "policy", "device", "accelerate", "quantize", "blending", "namespace", "use_sim_time", "autostart",
            "log_level", "embodiment_config",
        }  # fmt: skip
    elif name == "robot":
        own = {"description", "description_arguments", "controllers_file", "controllers"}
        assert set(arguments) == COMMON_ARGUMENTS - {"seed", "shift", "task"} | own
        assert arguments["hardware"].choices == list(any_robot.HARDWARE)
    else:
        assert set(arguments) == COMMON_ARGUMENTS | {"mobile_base": {"nav2"}, "widowx": {"suite"}}.get(name, set())
        assert arguments["hardware"].choices == ["mujoco", "mock", "gazebo", "isaac", "real"]
    for argument in arguments.values():
        assert isinstance(argument, DeclareLaunchArgument) and argument.description
        assert all(type(choice) is str for choice in argument.choices or ())  # as --show-args prints them
        if argument.default_value is None:
            assert (name, argument.name) == ("robot", "embodiment_config")
            continue
        default = perform_substitutions(LaunchContext(), argument.default_value)
        assert argument.choices is None or default in argument.choices


def test_arguments_of_the_policy_are_its_parameters_and_are_passed_on() -> None:
    parameters = {row.name: row for row in policy_node.PARAMETERS}
    shared = [argument for argument in policy_arguments() if argument.name in parameters]
    assert {argument.name for argument in shared} == {"policy", "device", "accelerate", "quantize", "blending"}
    context = LaunchContext()
    context.launch_configurations["autostart"] = "true"
    for argument in shared:
        assert tuple(argument.choices or ()) == parameters[argument.name].choices
        context.launch_configurations[argument.name] = f"given {argument.name}"
    (given,) = evaluate_parameters(context, policy_process("")._Node__parameters)
    assert {name: given[name] for name in parameters if name in given} == {
        argument.name: f"given {argument.name}" for argument in shared
    }


@pytest.mark.parametrize("hardware", bringup.HARDWARE)
@pytest.mark.parametrize("name", ROBOTS)
def test_everything_that_is_started_exists(name: str, hardware: str, everything_installed: None) -> None:
    declared = {d.name for d in parse_package(REPOSITORY / "src" / "qwen_vla_ros").exec_depends}
    scripts = {
        package: {e.name for e in importlib.metadata.distribution(package).entry_points if e.group == "console_scripts"}
        for package in OWN_PACKAGES
    }
    found = nodes(started(name, hardware=hardware, policy="tiny", rviz="true", record="true"))
    for package, executable in found:
        if package in OWN_PACKAGES:
            assert executable in scripts[package]
        else:
            assert package in declared or package in OPTIONAL_PACKAGES, f"qwen_vla_ros/package.xml lacks {package}"
    assert {executable for package, executable in found if package == "qwen_vla_ros"} == scripts["qwen_vla_ros"]
    assert (("qwen_vla_sim", f"{name}_sim") in found) == (hardware == "mujoco")
    assert (("controller_manager", "spawner") in found) == (
        hardware in ("mock", "gazebo", "isaac") or (name, hardware) == ("widowx", "real")
    )


@pytest.mark.parametrize("hardware", bringup.HARDWARE)
@pytest.mark.parametrize("name", ROBOTS)
def test_every_process_ends_with_the_launch_and_has_the_name_of_its_program_in_the_log(
    name: str, hardware: str, everything_installed: None
) -> None:
    for part in started(name, hardware=hardware, rviz="true", record="true"):
        if isinstance(part, Node):
            prefix = part.process_description.prefix
            assert ("--pdeathsig" in text(prefix[:1])) == (shutil.which("setpriv") is not None)
            assert text(part.process_description.name) == text(part.node_executable)


def packages_in(part: object, seen: set[int]) -> set[str]:
    """Every package that a part of a launch description refers to, at any depth."""
    if id(part) in seen or isinstance(part, (str, bytes, int, float, type, Path)):
        return set()
    seen.add(id(part))
    if isinstance(part, FindPackageShare):
        return {text(part.package)}
    own = {text(part.node_package)} if isinstance(part, Node) else set()
    inner = part.items() if isinstance(part, dict) else part if isinstance(part, (list, tuple, set)) else []
    attributes = vars(part).values() if hasattr(part, "__dict__") else []
    return own.union(*(packages_in(entry, seen) for entry in [*inner, *attributes]))


@pytest.mark.parametrize("hardware", bringup.HARDWARE)
@pytest.mark.parametrize("name", ROBOTS)
def test_every_package_is_checked_before_the_first_process(
    name: str, hardware: str, everything_installed: None
) -> None:
    parts = started(name, hardware=hardware, rviz="true", record="true")
    looked_up = set(bringup.needed(robot_of(name), hardware, with_rviz=True))
    optional = {"robot_state_publisher"} if hardware == "mujoco" else set()
    assert packages_in(parts, set()) - OWN_SHARES <= looked_up | optional


@pytest.mark.parametrize("hardware", ["gazebo", "isaac", "real"])
@pytest.mark.parametrize("name", ROBOTS)
def test_the_plugin_of_the_hardware_is_checked_too(name: str, hardware: str) -> None:
    urdf = ElementTree.fromstring(robot_description(name, hardware=hardware))
    plugins = {plugin.text.split("/")[0] for plugin in urdf.iterfind("ros2_control/hardware/plugin")}
    assert plugins <= set(bringup.needed(robot_of(name), hardware, with_rviz=False))


@pytest.mark.parametrize("name, values, missing", [
    ("widowx", {"rviz": "true"}, "rviz2"),
    ("widowx", {"hardware": "real"}, "interbotix_xs_sdk"),
    ("aloha", {"hardware": "real"}, "realsense2_camera"),
    ("mobile_base", {"hardware": "gazebo"}, "ros_gz_sim"),
    ("aloha", {"hardware": "mock"}, "joint_trajectory_controller"),
])  # fmt: skip
def test_a_missing_package_is_reported_with_its_remedy_before_anything_starts(
    name: str, values: dict[str, str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "installed", lambda package: package != missing)
    with pytest.raises(packages.MissingPackages, match=f"not installed: {missing}. "):
        started(name, **values)


@pytest.mark.parametrize("name", ROBOTS)
def test_files_that_are_named_after_a_robot_exist(name: str) -> None:
    for file in (
        f"config/controllers/{name}.yaml", f"config/rviz/{name}.rviz", f"config/gazebo/{name}.sdf",
        f"config/gazebo/{name}_bridge.yaml", f"config/isaac/{name}.yaml",
        f"src/embodiment_descriptions/urdf/{name}/{name}.urdf.xacro",
    ):  # fmt: skip
        assert (REPOSITORY / file).is_file(), file
    configured = (REPOSITORY / "config" / "controllers" / f"{name}.yaml").read_text()
    for controller in (*robot_of(name).controllers, "joint_state_broadcaster"):
        assert f"/**/{controller}:" in configured


def test_a_policy_elsewhere_and_no_recording(everything_installed: None) -> None:
    executables = {executable for _, executable in nodes(started("aloha", policy="none", hardware="real"))}
    assert executables == {"robot_state_publisher", "executor_node", "trajectory_visualizer"}


@pytest.mark.parametrize(
    "hardware, file", [("real", "aloha_real.yaml"), ("mock", "aloha.yaml"), ("mujoco", "aloha.yaml")]
)
def test_the_embodiment_follows_the_hardware(hardware: str, file: str, tmp_path: Path) -> None:
    robot = robot_of("aloha")
    assert Path(bringup.embodiment_config(robot, context_with(robot, hardware=hardware))).name == file
    mine = tmp_path / "mine.yaml"
    mine.touch()
    assert bringup.embodiment_config(robot, context_with(robot, embodiment_config=str(mine))) == str(mine)
    with pytest.raises(ResourceError, match="no_such.yaml: no such embodiment YAML"):
        bringup.embodiment_config(robot, context_with(robot, embodiment_config="no_such.yaml"))


@pytest.mark.parametrize("nav2, expected", [("false", [("cmd_vel_nav", "cmd_vel")]), ("true", [])])
def test_the_base_is_commanded_with_or_without_nav2(nav2: str, expected: list) -> None:
    robot = robot_of("mobile_base")
    assert robot.executor_remappings(context_with(robot, nav2=nav2)) == expected


@pytest.mark.parametrize("distribution, to_be_set", [("jazzy", True), ("kilted", False), ("lyrical", False)])
def test_the_setting_that_nav2_needs_is_documented_where_it_sends_twist(
    distribution: str, to_be_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    (nav2,) = robot_of("mobile_base").arguments
    assert ("enable_stamped_cmd_vel: true" in nav2.description) == to_be_set


def test_the_arguments_warn_of_a_robot_that_moves_on_its_own() -> None:
    (hardware,) = [a for a in bringup.arguments(robot_of("widowx")) if a.name == "hardware"]
    assert "real: the robot (it moves at once: to its sleep pose, and no further)" in hardware.description


def test_without_ros2_control_mock_hardware_is_simulated_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed", lambda package: package != "controller_manager")
    entities = started("widowx", hardware="mock")
    assert ("qwen_vla_sim", "widowx_sim") in nodes(entities)
    assert not [package for package, _ in nodes(entities) if package == "controller_manager"]
    (said,) = [text(e.msg) for e in entities if isinstance(e, LogInfo)]
    assert "ros2_control is not installed" in said and "apt install" in said


def test_gazebo_refuses_a_namespace(everything_installed: None) -> None:
    with pytest.raises(ArgumentError, match="namespace:=lab does not work with hardware:=gazebo"):
        started("widowx", hardware="gazebo", namespace="lab")


@pytest.mark.parametrize("use_sim_time, hardware, expected", [
    ("auto", "mujoco", True), ("auto", "gazebo", True), ("auto", "isaac", True), ("auto", "mock", False),
    ("auto", "real", False), ("true", "real", True), ("false", "mujoco", False),
])  # fmt: skip
def test_time_follows_the_simulator(use_sim_time: str, hardware: str, expected: bool) -> None:
    context = context_with(robot_of("widowx"), use_sim_time=use_sim_time, hardware=hardware)
    assert bringup.uses_simulated_time(context) is expected


EXAMPLES = ("ur5e_2f85", "so101")


def any_context(example: str, **values: str) -> LaunchContext:
    """A start of robot.launch.py for a robot of examples/."""
    folder = REPOSITORY / "examples" / example
    context = LaunchContext()
    given = {"embodiment_config": f"{folder}/{example}.yaml", "description": f"{folder}/{example}.urdf.xacro"} | values
    for argument in any_robot.arguments():
        argument.execute(context) if argument.name not in given else None
    context.launch_configurations.update(given)
    return context


def any_started(example: str, **values: str) -> list[LaunchDescriptionEntity]:
    """Everything in it."""
    return any_robot.everything(any_context(example, **values)).get_sub_entities()


MOCK = {
    "hardware": "mock",
    "controllers_file": str(REPOSITORY / "examples/ur5e_2f85/controllers.yaml"),
    "controllers": "scaled_joint_trajectory_controller robotiq_gripper_controller",
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_any_robot_with_a_description_and_a_yaml_is_brought_up(example: str, everything_installed: None) -> None:
    entities = any_started(example, rviz="true", record="true")
    ours = {"policy_node", "executor_node", "trajectory_visualizer", "episode_recorder"}
    assert {executable for _, executable in nodes(entities)} == ours | {"robot_state_publisher", "rviz2"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_beside_a_running_robot_only_the_nodes_of_the_suite_are_started(example: str) -> None:
    found = nodes(any_started(example, description="", policy="none"))
    assert found == {("qwen_vla_ros", "executor_node"), ("qwen_vla_ros", "trajectory_visualizer")}


def test_any_robot_of_the_suite_is_specified_by_its_name() -> None:
    arguments = nodes(any_started("so101", embodiment_config="widowx", description=""))
    assert ("qwen_vla_ros", "executor_node") in arguments


def test_ros2_control_stands_in_for_a_missing_robot(everything_installed: None) -> None:
    found = nodes(any_started("ur5e_2f85", **MOCK))
    assert {("controller_manager", "ros2_control_node"), ("controller_manager", "spawner")} <= found


def test_the_robots_own_processes_share_no_memory(everything_installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another process that is killed a lock may stay behind in it."""
    for name in PROFILE_VARIABLES:  # those of the tests
        monkeypatch.delenv(name, raising=False)
    own = [entity for entity in any_started("ur5e_2f85", **MOCK) if isinstance(entity, Node) and entity.additional_env]
    assert {text(node.node_executable) for node in own} == {"ros2_control_node", "robot_state_publisher"}
    for node in own:
        changed = {text(key): text(value) for key, value in node.additional_env}
        assert Path(changed[distribution().profile_variable]).name == WITHOUT_SHARED_MEMORY


def test_the_description_of_a_missing_robot_is_beside_its_yaml(tmp_path: Path) -> None:
    def description(folder: Path, **values: str) -> str:
        return any_robot.description(folder / "ur5e_2f85.yaml", any_context("ur5e_2f85", **MOCK | values))

    example = REPOSITORY / "examples/ur5e_2f85"
    urdf = description(example)
    assert "mock_components/GenericSystem" in urdf and description(example, description="") == urdf
    assert "GenericSystem" not in description(example, description="", description_arguments="hardware:=none")
    assert description(example, description="", hardware="running") == "", "its own bring-up publishes it"
    shutil.copy(example / "ur5e_2f85.yaml", tmp_path)
    with pytest.raises(
        EmbodimentError, match=f"needs description:=, .*; there is none beside {tmp_path}/ur5e_2f85.yaml"
    ):
        description(tmp_path, description="")
    for name in ("left", "right"):
        shutil.copy(example / "ur5e_2f85.urdf.xacro", tmp_path / f"{name}.urdf.xacro")
    with pytest.raises(EmbodimentError, match="several descriptions beside it"):
        description(tmp_path, description="")


@pytest.mark.parametrize("values, said", [
    ({"embodiment_config": "no_such.yaml"}, "no_such.yaml: no such embodiment YAML"),
    ({"description": "no_such.urdf"}, "description:=no_such.urdf: there is no such file"),
    ({"description_arguments": "hardware=mock"}, "'hardware=mock' is not of the form name:=value"),
    ({"hardware": "mock"}, "hardware:=mock needs controllers_file:= and controllers:="),
    ({"description": "examples/so101/so101.urdf.xacro"}, "shoulder_pan_joint"),
])  # fmt: skip
def test_errors_in_a_robots_files_are_reported_before_anything_starts(values: dict[str, str], said: str) -> None:
    with pytest.raises((EmbodimentError, ResourceError, ArgumentError), match=re.escape(said)):
        any_started("ur5e_2f85", **values)


# Another package's launch file like ALOHA's: what it declares, and what it includes, with the choices of those files.
VENDOR = """
import json, pathlib
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource

FOLDER = pathlib.Path(__file__).parent

def keep(context):
    texts = {{name: value for name, value in context.launch_configurations.items() if type(value) is str}}
    (FOLDER / "seen.json").write_text(json.dumps(texts))

def generate_launch_description():
    files = [FOLDER / name for name in ["{included}"] if name]
    return LaunchDescription([
        {arguments}
        OpaqueFunction(function=keep),
        *[IncludeLaunchDescription(PythonLaunchDescriptionSource(str(file))) for file in files],
    ])
"""
SWITCHES = ("launch_leaders", "use_cameras", "is_mobile", "use_base", "use_aloha_rviz", "use_gravity_compensation")


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ament prefix with ALOHA's bring-up; returns the folder where it stores what it received."""
    folder = tmp_path / "share" / "aloha" / "launch"
    folder.mkdir(parents=True)
    marker = tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "aloha"
    marker.parent.mkdir(parents=True)
    marker.touch()

    def declared(name: str, default: str) -> str:
        return f"DeclareLaunchArgument({name!r}, default_value={default!r}, choices=('true', 'false')),\n        "

    inner = VENDOR.format(arguments=declared("use_sim_time", "false") + declared("use_rviz", "false"), included="")
    outer = "".join(declared(name, "true") for name in SWITCHES)
    (folder / "xsarm_control.launch.py").write_text(inner)
    (folder / "aloha_bringup.launch.py").write_text(VENDOR.format(arguments=outer, included="xsarm_control.launch.py"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}:{os.environ.get('AMENT_PREFIX_PATH', '')}")
    return folder


@pytest.mark.parametrize("values", [{}, {"use_sim_time": "auto", "rviz": "false", "device": "cpu"}])
def test_the_bring_up_of_a_real_aloha_starts_with_only_its_own_arguments(vendor: Path, values: dict[str, str]) -> None:
    robot = robot_of("aloha")
    service = LaunchService(noninteractive=True)
    description = [*bringup.arguments(robot), OpaqueFunction(function=robot.real)]
    include = IncludeLaunchDescription(
        LaunchDescriptionSource(LaunchDescription(description)), launch_arguments=values.items()
    )
    service.include_launch_description(LaunchDescription([include]))
    assert service.run() == 0
    seen = json.loads((vendor / "seen.json").read_text())
    assert seen["use_sim_time"] == "false"
    assert seen["is_mobile"] == seen["launch_leaders"] == seen["use_base"] == "false"
    assert seen["use_cameras"] == "true"
    assert not {"device", "seed", "embodiment_config", "policy"} & set(seen)


LAUNCH = """
import sys, launch
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
service = launch.LaunchService(noninteractive=True)
arguments = [argument.split(":=") for argument in sys.argv[2:]]
include = IncludeLaunchDescription(AnyLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
service.include_launch_description(launch.LaunchDescription([include]))
sys.exit(service.run())
"""


def launch(folder: Path, name: str, *arguments: str, **options: object) -> subprocess.Popen:
    """A launch file, run by launch's own service in a process group of its own; its logs go to the folder."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, REPOSITORY / "launch" / f"{name}.launch.py", *arguments],
        env=os.environ | {"ROS_LOG_DIR": str(folder)},
        start_new_session=True,
        **options,
    )


@pytest.mark.parametrize("name, arguments, said", [
    ("widowx", ["rviz:=true"], "rviz2"),
    ("aloha", ["hardware:=real"], "interbotix_xs_sdk"),
    ("widowx", ["seed:=-1"], "seed:=-1: a seed must be an integer"),
    ("widowx", ["suite:=widowx_pick", "shift:=colour"], "shift:=colour: the suite widowx_pick has none"),
    ("mobile_base", ["embodiment_config:=no_such.yaml"], "no_such.yaml: no such embodiment YAML"),
    ("aloha", ["device:=cuda:99"], "device:=cuda:99: "),
    ("policy", ["policy:=no_such"], "policy:=no_such: no checkpoint directory at no_such"),
    ("robot", ["embodiment_config:=widowx", "hardware:=mock"], "hardware:=mock needs controllers_file:="),
])  # fmt: skip
def test_an_impossible_start_is_one_line_and_starts_nothing(
    name: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    if said in ("rviz2", "interbotix_xs_sdk") and packages.installed(said):
        pytest.skip(f"{said} is installed here")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with launch(tmp_path, name, *arguments, **pipes) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len([line for line in output.splitlines() if said in line]) == 1, output
    assert "process started" not in output and "Traceback" not in output


@pytest.fixture(params=[(name, hardware) for name in ROBOTS for hardware in ("mujoco", "mock")], ids="-".join)
def launched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The name of a robot and its running launch file."""
    name, hardware = request.param
    process = launch(tmp_path, name, f"hardware:={hardware}")
    yield name, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], bool], executor: SingleThreadedExecutor, what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        executor.spin_once(timeout_sec=0.1)


def assert_allowed(watcher: rclpy.node.Node) -> None:
    """The policy file allows every node what it does: on the robot's computer, and the policy's on its own."""
    on_the_gpu = [name for name in watcher.get_node_names() if name.startswith(("policy_node", "launch_ros_"))]
    assert len(on_the_gpu) == 2
    for name, namespace in watcher.get_node_names_and_namespaces():
        if name == watcher.get_name():
            continue
        for (kind, verb), names in endpoints(watcher, name, namespace).items():
            assert not refused("robot", kind, verb, names), name
            if name == "policy_node":
                assert not refused("policy", kind, verb, names), name
            if name.startswith("launch_ros_"):  # there it only starts policy_node
                other = {n for n in names if n.startswith(("/executor_node/", "/episode_recorder/"))}
                assert not refused("policy", kind, verb, names - other), name


def test_all_nodes_become_active_and_ctrl_c_ends_them_all(launched: tuple[str, subprocess.Popen]) -> None:
    name, process = launched
    managed = ["policy_node", "executor_node"]
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    node = rclpy.create_node("watcher", context=context)
    executor.add_node(node)
    try:
        clients = [node.create_client(GetState, f"{node_name}/get_state") for node_name in managed]

        def active() -> bool:
            assert process.poll() is None, "launch ended on its own"
            for client in clients:
                if not client.service_is_ready():
                    return False
                future = client.call_async(GetState.Request())
                executor.spin_until_future_complete(future, timeout_sec=1.0)
                if not future.done() or future.result().current_state.id != State.PRIMARY_STATE_ACTIVE:
                    return False
            return True

        wait_until(active, executor, f"{managed} are active", READY_TIMEOUT)
        wait_until(
            lambda: "trajectory_visualizer" in node.get_node_names(),
            executor,
            "trajectory_visualizer in the graph",
            READY_TIMEOUT,
        )
        assert_allowed(node)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        rclpy.shutdown(context=context)
    with pytest.raises(ProcessLookupError):  # no process is left in its session
        os.killpg(process.pid, 0)
