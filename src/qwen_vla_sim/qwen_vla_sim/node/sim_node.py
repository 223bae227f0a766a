# SPDX-License-Identifier: Apache-2.0
"""What every simulated robot does as a ROS node: time, parameters, joint states, joint commands, cameras, reset, step.

The robot is behind the topics that the real one has, as its embodiment YAML names them. Every stamp is simulated time,
published on /clock; the nodes around it run with use_sim_time true, as with Gazebo. Simulated time never goes back, not
at a reset either, and stands still while mode is `stepped` and nobody steps.
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces import msg as parameter_messages
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.parameter import Parameter as ParameterValue
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodiment_descriptions import Embodiment, embodiment_file, robot_description
from embodiment_descriptions.commands import KINDS
from qwen_vla_control.node_interface import Endpoint, NodeInterface, Parameter, answer_options
from qwen_vla_msgs.msg import TaskState
from qwen_vla_msgs.srv import ResetWorld
from qwen_vla_rclpy import process_start
from qwen_vla_rclpy.guarded_executor import GuardedExecutor
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.qos import LATCHED, RELIABLE
from qwen_vla_sim.controllers.rejected import CommandRejected
from qwen_vla_sim.controllers.simulated_robot import JointReading, SimulatedRobot
from qwen_vla_sim.node.camera_rig import CameraRig
from qwen_vla_sim.node.controller_manager import ACTIVITY, CONTROLLER_STATE, SWITCH, ControllerManager
from qwen_vla_sim.node.locked_node import LockedNode
from qwen_vla_sim.node.messages import (
    camera_info_message,
    image_message,
    joint_limits_status,
    joint_state_message,
    task_state_message,
)
from qwen_vla_sim.node.misbehavior import MISBEHAVE, JointMisbehavior, Misbehavior
from qwen_vla_sim.node.real_time import Pacer, Schedule
from qwen_vla_sim.robot_world import RobotWorld
from qwen_vla_sim.task import SHIFTS, Shift, shift_of

TICK = 0.01  # [s] simulated: joint states and clock at 100 Hz, the rate of the arm's own driver
LIMITS_RATE = 1.0  # [Hz]
TASK_STATE_RATE = 5.0  # [Hz]
PAUSED_CLOCK_PERIOD = 0.1  # [s] real: a node that starts while the simulation is paused must get the time
LARGEST_COMMAND = 131_072  # [bytes] of a message: a trajectory of several hundred points
CAMERA_TIMEOUT = 10.0  # [s] real: longer than any frame, shorter than a caller's patience
MODES = ("realtime", "stepped")


PARAMETERS = (
    Parameter("seed", 0, "Seed of the first scene; later scenes come from ~/reset", 0, 2**63 - 1, read_only=True),
    Parameter(
        "task",
        "",
        "Task of every scene, e.g. stack_cube; empty: the one that the seed alone selects",
        read_only=True,
    ),
    Parameter(
        "shift",
        "",
        "Kind of scenes: as in training (empty), or with one thing changed",
        read_only=True,
        choices=("", *SHIFTS),
    ),
    Parameter("mode", "realtime", "Whether simulated time runs by itself or only through ~/step", choices=MODES),
    Parameter("realtime_factor", 1.0, "Simulated seconds per real second in mode realtime", 0.01, 100.0),
    Parameter("control_period", 0.2, "Simulated time that one ~/step advances [s]", TICK, 10.0),
    Parameter(
        "embodiment_config",
        "",
        "Another embodiment YAML of this robot: its path; empty: config/embodiments/<robot>.yaml",
        read_only=True,
    ),
    Parameter("publish_clock", True, "Publish simulated time on /clock", read_only=True),
    Parameter("image_rate", 10.0, "Exposures per simulated second [Hz]; 0 switches cameras off", 0, 100, True),
    Parameter("image_width", 320, "Width of the camera images [px]", 16, 1280, read_only=True),
    Parameter("image_height", 240, "Height of the camera images [px]", 16, 960, read_only=True),
    Parameter(
        "interpolate_from_desired_state",
        True,
        "Controllers start a new trajectory from the last set point (true) or from the measured state (false)",
        read_only=True,
    ),
    Parameter(
        "allow_nonzero_velocity_at_trajectory_end",
        False,
        "Controllers accept trajectories whose last point is not at rest",
        read_only=True,
    ),
)

ROBOT_DESCRIPTION = Endpoint("robot_description", String, "URDF of the robot, latched")
JOINT_STATES = Endpoint("<joint_states>", JointState, "Joint positions, velocities and efforts")
IMAGES = Endpoint("<cameras>", Image, "Camera images")
CAMERA_INFO = Endpoint("<camera_info>", CameraInfo, "Calibration of the cameras")
CLOCK = Endpoint("/clock", Clock, "Simulated time")  # every node with use_sim_time listens, whatever its namespace is
POSITIONS = Endpoint(
    "~/positions", JointState, "Where everything in the simulation is (MuJoCo's qpos) at an exposure of the cameras"
)
TASK_STATE = Endpoint("~/task_state", TaskState, "The judge's assessment of the task, latched")
LIMITS = Endpoint("/diagnostics", DiagnosticArray, "How close to its limits the robot was commanded")
COMMANDS = Endpoint(
    "<commands>",
    tuple(name for kind in KINDS if kind.simulated and not kind.moves_base for name in kind.message_types),
    "What the controllers of the robot take, by the `commands` of its YAML",
)
RESET = Endpoint("~/reset", ResetWorld, "Start another scene; responds when all of it is published")
STEP = Endpoint("~/step", Trigger, "Advance by control_period, in mode stepped")


def embodiment_of(robot: str, config: str) -> Embodiment:
    """The robot of that name as its simulator describes it; `config` is another YAML than its own (a path)."""
    return Embodiment.from_urdf(robot_description(robot, hardware="mock"), embodiment_file(config or robot))


class SimNode(LockedNode):
    """A simulated robot on its topics. Physics runs in one thread, rendering in another, callbacks in the executor's.

    A robot's own node says which robot it is, and adds what only that robot has. `failure` is what ended the simulation
    if it ended by itself.
    """

    robot_name = ""  # as in embodiment_descriptions; the node is called <robot_name>_sim
    PARAMETERS = PARAMETERS
    PUBLISHES = (
        ROBOT_DESCRIPTION,
        JOINT_STATES,
        IMAGES,
        CAMERA_INFO,
        POSITIONS,
        CLOCK,
        TASK_STATE,
        LIMITS,
        CONTROLLER_STATE,
        ACTIVITY,
    )
    SUBSCRIBES = (COMMANDS,)

    @classmethod
    def interface(cls) -> NodeInterface:
        """What the node offers."""
        return NodeInterface(
            package="qwen_vla_sim",
            name=f"{cls.robot_name}_sim",
            docstring=sys.modules[cls.__module__].__doc__,
            parameters=cls.PARAMETERS,
            publishes=cls.PUBLISHES,
            subscribes=cls.SUBSCRIBES,
            services=(RESET, STEP, MISBEHAVE, SWITCH),
            example="-p seed:=7 -p realtime_factor:=0.5",
        )

    def make_robot(self, embodiment: Embodiment, options: dict[str, bool]) -> SimulatedRobot:
        """The robot in its world; `options` are those of its trajectory controllers."""
        raise NotImplementedError

    def make_misbehavior(self) -> Misbehavior:
        """What the robot does wrong on purpose."""
        return JointMisbehavior(self, self.robot)

    def read_joints(self) -> JointReading:
        """What the joints report."""
        if isinstance(self.misbehavior, JointMisbehavior):
            return self.misbehavior.reading()
        return self.robot.joints()

    def judge(self, name: str) -> DiagnosticStatus:
        """How close to its limits the robot was commanded so far, as the status of that name."""
        return joint_limits_status(self.robot.limits.peak(), name)

    def create_more(self) -> None:
        """Create the publishers and subscriptions that only this robot has; the robot is there already."""

    def publish_more(self, now_ns: int, stamp: Time, everything: bool) -> None:
        """Publish what only this robot has, after each tick; everything: also what is not due."""

    def __init__(self, **node_options) -> None:
        super().__init__(f"{self.robot_name}_sim", **node_options)
        self.failure: BaseException | None = None
        for row in self.PARAMETERS:
            self.declare_parameter(row.name, row.default, row.descriptor(parameter_messages))
        given = [self.get_parameter(row.name) for row in self.PARAMETERS]
        if not (verdict := self._check(given)).successful:
            raise ValueError(verdict.reason)
        self._apply(given)
        self.add_on_set_parameters_callback(self._check)
        self.add_post_set_parameters_callback(self._apply)

        self.embodiment = embodiment_of(self.robot_name, self.setting("embodiment_config"))
        options = ("interpolate_from_desired_state", "allow_nonzero_velocity_at_trajectory_end")
        self.robot = self.make_robot(self.embodiment, {name: self.setting(name) for name in options})
        self.robot.reset(self.setting("seed"))
        self._steps_per_tick = round(TICK / self.world.timestep)
        self._stop = threading.Event()
        self._image_schedule = Schedule(self.setting("image_rate"))
        self._limits_schedule = Schedule(LIMITS_RATE)
        self._worst = ""  # what the limits' status said last
        self._task_schedule = Schedule(TASK_STATE_RATE)
        self._create_publishers()
        self._rig = self._make_cameras()
        self._create_inputs()
        self._manager = ControllerManager(self, self.robot)
        self.misbehavior = self.make_misbehavior()
        self.create_more()
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()
        self.get_logger().info(f"simulating: {self.world.instruction or self.robot_name}")

    @property
    def world(self) -> RobotWorld:
        """The world of the robot."""
        return self.robot.world

    def setting(self, name: str) -> Any:
        """The value of one of its parameters, of the type of its default."""
        return self.get_parameter(name).value

    @property
    def shift(self) -> Shift | None:
        """What the parameter `shift` says; ValueError when it is none."""
        return shift_of(self.setting("shift"))

    @property
    def task(self) -> str | None:
        """What the parameter `task` says."""
        return self.setting("task") or None

    # ------------------------------------------------------------------ set-up
    def _make_cameras(self) -> CameraRig | None:
        if self.setting("image_rate") == 0 or not self.world.cameras:
            return None
        height, width = (self.setting(f"image_{side}") for side in ("height", "width"))
        topics = {camera.tag: (camera.topic, camera.info_topic) for camera in self.embodiment.cameras}
        self._image_publishers, self._info_publishers, self._infos = {}, {}, {}
        for camera in self.world.cameras:
            topic, info_topic = topics[camera]
            self._image_publishers[camera] = self.create_publisher(IMAGES.kind, topic, qos_profile_sensor_data)
            self._info_publishers[camera] = self.create_publisher(CAMERA_INFO.kind, info_topic, qos_profile_sensor_data)
            intrinsics = self.world.camera_intrinsics(camera, height, width)
            self._infos[camera] = camera_info_message(intrinsics, height, width, self.world.camera_frames[camera])
        return CameraRig(self.world.model, self.world.cameras, height, width, self._publish_image)

    def _create_publishers(self) -> None:
        self._description_publisher = self._publisher(ROBOT_DESCRIPTION, LATCHED)
        self._description_publisher.publish(String(data=self.embodiment.urdf))
        self._joint_publishers = [
            (stream.prefix, self.create_publisher(JOINT_STATES.kind, stream.topic, RELIABLE))
            for stream in self.embodiment.joint_states
        ]
        self._diagnostics_publisher = self._publisher(LIMITS, RELIABLE)
        judged = self.world.task_state() is not None
        self._positions_publisher = self._publisher(POSITIONS, RELIABLE)
        self._task_publisher = self._publisher(TASK_STATE, LATCHED) if judged else None
        wanted = self.setting("publish_clock")
        self._clock_publisher = self._publisher(CLOCK, RELIABLE) if wanted else None

    def _publisher(self, topic: Endpoint, qos: QoSProfile) -> Publisher:
        return self.create_publisher(topic.kind, topic.name, qos)

    def _create_inputs(self) -> None:
        for name, stand_in in self.robot.stand_ins.items():
            kind = message_class(stand_in.message_type)
            callback = partial(self._on_command, name, stand_in.streams)
            self.create_subscription(kind, stand_in.topic, callback, RELIABLE, largest=LARGEST_COMMAND)
        self.create_service(RESET.kind, RESET.name, self._on_reset)
        self.create_service(STEP.kind, STEP.name, self._on_step)

    def _check(self, parameters: list[ParameterValue]) -> SetParametersResult:
        rows = {row.name: row for row in self.PARAMETERS}
        for parameter in parameters:
            if parameter.name in rows and (reason := rows[parameter.name].refusal(parameter.value)):
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _apply(self, parameters: list[ParameterValue]) -> None:
        changed: dict[str, Any] = {parameter.name: parameter.value for parameter in parameters}
        if "mode" in changed:
            with self.lock:  # when this returns, time stands still
                self._stepped = changed["mode"] == "stepped"
        if "realtime_factor" in changed:
            self._factor = changed["realtime_factor"]
        if "control_period" in changed:
            self._ticks_per_step = max(1, round(changed["control_period"] / TICK))

    # ------------------------------------------------------------------ inputs
    def _on_command(self, interface: str, streams: bool, message: Any) -> None:
        try:
            with self.lock:
                self.robot.command(interface, message)
        except CommandRejected as reason:
            often: dict[str, Any] = {"throttle_duration_sec": 1.0} if streams else {}
            self.get_logger().error(f"{interface}: command refused: {reason}", **often)

    def _on_reset(self, request: ResetWorld.Request, response: ResetWorld.Response) -> ResetWorld.Response:
        """New scene; the reply leaves when joint states, task state and images of it are published."""
        try:
            with self.lock:
                self._await_cameras()  # what is still being rendered belongs to the old scene
                self.misbehavior.repair()
                self.robot.reset(request.seed)
                self._tick(everything=True)
        except ValueError as error:
            response.success, response.message = False, str(error)
            return response
        self._await_cameras()
        response.success, response.instruction = True, self.world.instruction
        self.get_logger().info(f"reset to seed {request.seed}: {response.instruction}")
        return response

    def _on_step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Advance by control_period; the reply leaves when everything up to then is published."""
        if not self._stepped:
            response.success = False
            response.message = "time runs by itself; set the parameter mode to 'stepped' to step it"
            return response
        for _ in range(self._ticks_per_step):
            self._tick(lossless=True)
        self._await_cameras()
        response.success, response.message = True, f"{self.world.time:.9g}"
        return response

    def _await_cameras(self) -> None:
        if self._rig and not self._rig.wait_idle(CAMERA_TIMEOUT):
            raise TimeoutError(f"the cameras rendered nothing for {CAMERA_TIMEOUT} s")

    # ----------------------------------------------------------------- physics
    def _run(self) -> None:
        """The physics thread. Whatever stops it stops the node."""
        try:
            self._simulate()
        except Exception as error:
            if self.context.ok():  # else: publishing after the shutdown fails, which is no fault
                self.failure = error
                self.get_logger().fatal(f"simulation stopped: {type(error).__name__}: {error}")
                self.context.try_shutdown()

    def _simulate(self) -> None:
        pacer = Pacer(TICK)
        while not self._stop.is_set():
            if self._rig and self._rig.failure:
                raise self._rig.failure
            if self._tick_unless_stepped():
                pacer.wait(self._stop, self._factor)
            else:
                self._stop.wait(PAUSED_CLOCK_PERIOD)
                pacer.restart()
            if pacer.take_loss():
                self.get_logger().warning(
                    f"slower than real time: {pacer.lost:.1f} s lost so far", throttle_duration_sec=10.0
                )

    def _tick_unless_stepped(self) -> bool:
        """One tick, or, while time stands still, only word of what time it is."""
        with self.lock:
            if self._stepped:
                self._publish_clock(time_message(self.robot.time_ns))
                return False
            self._tick()
            return True

    def _tick(self, *, lossless: bool = False, everything: bool = False) -> None:
        """Advance by TICK, then publish what the sensors see.

        lossless: wait for the cameras where they are still busy with an exposure, which is otherwise left out.
        everything: publish also what is not due.
        """
        with self.lock:
            self.robot.advance(self._steps_per_tick)
            now_ns = self.robot.time_ns
            stamp = time_message(now_ns)
            self._publish_clock(stamp)
            self._publish_joints(stamp)
            self.misbehavior.publish_second(now_ns, stamp)
            self._manager.publish(now_ns, stamp)
            self.publish_more(now_ns, stamp, everything)
            if self._task_publisher and self._task_schedule.due(now_ns, everything):
                state, elapsed = self.world.task_state(), self.robot.episode_time
                if state is not None:
                    self._task_publisher.publish(task_state_message(state, elapsed, stamp, self.frame))
            if self._limits_schedule.due(now_ns, everything):
                self._publish_limits(stamp)
            if self._rig and self._image_schedule.due(now_ns, everything):
                if lossless:
                    self._await_cameras()
                if self._rig.capture(self.world.data, now_ns):
                    self._publish_positions(stamp)
                else:
                    self.get_logger().warning(
                        "cameras are slower than image_rate: an exposure was left out", throttle_duration_sec=10.0
                    )

    # ----------------------------------------------------------------- outputs
    def _publish_clock(self, stamp: Time) -> None:
        if self._clock_publisher:
            self._clock_publisher.publish(Clock(clock=stamp))

    def _publish_limits(self, stamp: Time) -> None:
        status = self.judge(f"{self.get_name()}: limits")
        worst = ", ".join(f"{item.key}: {item.value}" for item in status.values)
        if status.level == DiagnosticStatus.ERROR and worst != self._worst:
            self.get_logger().warning(f"{status.message}; so far: {worst}")
        self._worst = worst
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        self._diagnostics_publisher.publish(message)

    def _publish_joints(self, stamp: Time) -> None:
        reading = self.read_joints()
        for prefix, publisher in self._joint_publishers:
            publisher.publish(joint_state_message(reading, prefix, stamp, self.frame))

    def _publish_positions(self, stamp: Time) -> None:
        """Ground truth from which pictures of the whole scene can be rendered later."""
        message = JointState(position=self.world.data.qpos.tolist())
        message.header.stamp, message.header.frame_id = stamp, self.frame
        self._positions_publisher.publish(message)

    def _publish_image(self, camera: str, stamp_ns: int, image: np.ndarray) -> None:
        """Called in the cameras' thread."""
        stamp, info = time_message(stamp_ns), self._infos[camera]
        info.header.stamp = stamp
        try:
            self._image_publishers[camera].publish(image_message(image, stamp, info.header.frame_id))
            self._info_publishers[camera].publish(info)
        except Exception:
            if self.context.ok():  # a frame that is finished after the shutdown has no reader
                raise

    # ---------------------------------------------------------------- shutdown
    def close(self) -> None:
        """End both threads and free the GL contexts; call it before destroy_node."""
        self._stop.set()
        self._thread.join(CAMERA_TIMEOUT)
        if self._rig:
            self._rig.close()
        self.world.close()


def message_class(name: str) -> Any:
    """A message type by its full name; RuntimeError where it is not installed."""
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"this robot is commanded with {name}, and {package} is not installed, or too old; install it from apt or "
            "from source, or choose an embodiment YAML that commands the robot otherwise"
        ) from error


def run(make_node: type[SimNode], args: list[str] | None = None) -> int:
    """Run a simulator until SIGINT or SIGTERM (exit status 0) or until the simulation fails (1)."""
    answer_options(make_node.interface(), args)
    process_start.init(args)
    executor, node = GuardedExecutor(), None
    try:
        node = process_start.made(make_node)
        executor.add_node(node)
        gc.freeze()  # what was loaded stays: looking through it for garbage would hold up the simulation
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # a signal during start-up invalidates what is being created: that is a clean end
            raise
    finally:
        executor.shutdown()
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 1 if node is not None and node.failure else 0
