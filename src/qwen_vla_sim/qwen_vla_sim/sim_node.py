"""ROS node `widowx_sim`: a simulated WidowX 250s behind the topics that the real one has.

Every stamp is simulated time, published on /clock; the nodes around it run with use_sim_time true, as with Gazebo.
Simulated time never goes back, not at a reset either, and stands still while mode is `stepped` and nobody steps.
"""

from __future__ import annotations

import array
import gc
import sys
import threading
from functools import partial

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from embodiment_descriptions import robot_description
from qwen_vla_msgs.msg import TaskState
from qwen_vla_msgs.srv import ResetWorld
from qwen_vla_sim.camera_rig import CameraRig
from qwen_vla_sim.joint_trajectory_controller import (
    NANOSECONDS,
    JointTrajectory,
    TrajectoryPoint,
    TrajectoryRejected,
)
from qwen_vla_sim.real_time import Pacer, Schedule
from qwen_vla_sim.simulated_robot import SimulatedRobot
from qwen_vla_sim.world import CAMERAS, WidowXWorld

TICK = 0.01  # [s] simulated: joint states and clock at 100 Hz, the rate of the arm's own driver
TASK_STATE_RATE = 5.0  # [Hz]
PAUSED_CLOCK_PERIOD = 0.1  # [s] real: a node that starts while the simulation stands still must learn the time
CAMERA_TIMEOUT = 10.0  # [s] real: longer than any frame, shorter than a caller's patience
BASE_FRAME = "base_link"
MODES = ("realtime", "stepped")

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _integer(low: int, high: int) -> dict:
    return {"integer_range": [IntegerRange(from_value=low, to_value=high, step=1)]}


def _real(low: float, high: float) -> dict:
    return {"floating_point_range": [FloatingPointRange(from_value=low, to_value=high, step=0.0)]}


# name: (default, description, descriptor fields)
PARAMETERS: dict[str, tuple[object, str, dict]] = {
    "seed": (
        0,
        "Seed of the first scene; later scenes come from ~/reset.",
        {"read_only": True, **_integer(0, 2**63 - 1)},
    ),
    "mode": (
        "realtime",
        "Whether simulated time runs by itself or only through ~/step.",
        {"additional_constraints": f"one of: {', '.join(MODES)}"},
    ),
    "realtime_factor": (1.0, "Simulated seconds per real second in mode realtime.", _real(0.01, 100.0)),
    "control_period": (0.2, "Simulated time that one ~/step advances [s].", _real(TICK, 10.0)),
    "publish_clock": (True, "Publish simulated time on /clock.", {"read_only": True}),
    "image_rate": (
        10.0,
        "Exposures per simulated second [Hz]; 0 switches cameras off.",
        {"read_only": True, **_real(0, 100)},
    ),
    "image_width": (320, "Width of the camera images [px].", {"read_only": True, **_integer(16, 1280)}),
    "image_height": (240, "Height of the camera images [px].", {"read_only": True, **_integer(16, 960)}),
    "interpolate_from_desired_state": (
        True,
        "Controllers join a new trajectory to the last set point (true) or to the measured state (false).",
        {"read_only": True},
    ),
    "allow_nonzero_velocity_at_trajectory_end": (
        False,
        "Controllers accept trajectories whose last point is not at rest.",
        {"read_only": True},
    ),
}


def time_message(nanoseconds: int) -> Time:
    """Time message of a count of nanoseconds."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


def trajectory_from_message(message: JointTrajectoryMessage) -> JointTrajectory:
    """The message as the controllers take it; nothing is checked here."""
    points = [
        TrajectoryPoint(_nanoseconds(p.time_from_start), p.positions, p.velocities, p.accelerations, p.effort)
        for p in message.points
    ]
    return JointTrajectory(tuple(message.joint_names), points, _nanoseconds(message.header.stamp))


def _nanoseconds(time) -> int:
    return time.sec * NANOSECONDS + time.nanosec


def image_message(image: np.ndarray, stamp: Time, frame: str) -> Image:
    """An rgb8 message of an (H, W, 3) uint8 RGB array."""
    height, width = image.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp, message.header.frame_id = stamp, frame
    message.data = array.array("B", image.tobytes())  # the one type that rclpy does not check byte by byte
    return message


def camera_info_message(intrinsics: np.ndarray, height: int, width: int, frame: str) -> CameraInfo:
    """An ideal pinhole camera: `intrinsics` is K, 3x3 [px]; no distortion, no rectification."""
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = frame
    info.k = intrinsics.ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([intrinsics, np.zeros((3, 1))]).ravel()
    return info


def optical_pose(world: WidowXWorld, camera: str) -> Pose:
    """Pose of a camera's optical frame in base_link: x right, y down, z forward (REP-103)."""
    index = world.model.camera(camera).id
    axes = world.data.cam_xmat[index].reshape(3, 3) * [1, -1, -1]  # MuJoCo's camera: x right, y up, z backward
    x, y, z = (float(value) for value in world.data.cam_xpos[index])
    qx, qy, qz, qw = (float(value) for value in Rotation.from_matrix(axes).as_quat(canonical=True))
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


class WidowXSim(Node):
    """The simulated robot on its topics. Physics runs in one thread, rendering in another, callbacks in the executor's.

    `failure` is what ended the simulation if it ended by itself.
    """

    def __init__(self, **node_options) -> None:
        super().__init__("widowx_sim", **node_options)
        self.failure: BaseException | None = None
        self._lock = threading.RLock()  # the robot, the mode, and the order of what is published about them
        for name, (default, description, fields) in PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(description=description, **fields))
        given = [self.get_parameter(name) for name in ("mode", "realtime_factor", "control_period")]
        if not (verdict := self._check(given)).successful:
            raise ValueError(verdict.reason)
        self._apply(given)
        self.add_on_set_parameters_callback(self._check)
        self.add_post_set_parameters_callback(self._apply)

        self._robot = self._make_robot()
        self._steps_per_tick = round(TICK / self._robot.world.timestep)
        self._stop = threading.Event()
        self._image_schedule = Schedule(self.get_parameter("image_rate").value)
        self._task_schedule = Schedule(TASK_STATE_RATE)
        self._create_publishers()
        self._rig = self._make_cameras()
        self._create_inputs()
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()
        self.get_logger().info(f"simulating: {self._robot.world.instruction}")

    # ------------------------------------------------------------------ set-up
    def _make_robot(self) -> SimulatedRobot:
        options = ("interpolate_from_desired_state", "allow_nonzero_velocity_at_trajectory_end")
        robot = SimulatedRobot(WidowXWorld(), **{name: self.get_parameter(name).value for name in options})
        robot.reset(self.get_parameter("seed").value)
        return robot

    def _make_cameras(self) -> CameraRig | None:
        if self.get_parameter("image_rate").value == 0:
            return None
        height, width = (self.get_parameter(f"image_{side}").value for side in ("height", "width"))
        world = self._robot.world
        self._image_publishers, self._info_publishers, self._infos = {}, {}, {}
        for camera in CAMERAS:
            self._image_publishers[camera] = self.create_publisher(
                Image, f"{camera}/image_raw", qos_profile_sensor_data
            )
            info_topic = f"{camera}/camera_info"
            self._info_publishers[camera] = self.create_publisher(CameraInfo, info_topic, qos_profile_sensor_data)
            intrinsics = world.camera_intrinsics(camera, height, width)
            self._infos[camera] = camera_info_message(intrinsics, height, width, f"{camera}_optical_frame")
        return CameraRig(world.model, CAMERAS, height, width, self._publish_image)

    def _create_publishers(self) -> None:
        self._description_publisher = self.create_publisher(String, "robot_description", LATCHED)
        self._description_publisher.publish(String(data=robot_description("widowx", hardware="mock")))
        self._joint_publisher = self.create_publisher(JointState, "joint_states", RELIABLE)
        self._task_publisher = self.create_publisher(TaskState, "~/task_state", LATCHED)
        self._camera_pose_publisher = self.create_publisher(PoseStamped, "~/ego_camera_pose", LATCHED)
        self._publish_camera_pose(time_message(self._robot.time_ns))
        # Every node with use_sim_time listens to /clock, whatever its namespace is.
        wanted = self.get_parameter("publish_clock").value
        self._clock_publisher = self.create_publisher(Clock, "/clock", RELIABLE) if wanted else None

    def _create_inputs(self) -> None:
        for controller in self._robot.controllers:
            topic = f"{controller}/joint_trajectory"
            self.create_subscription(JointTrajectoryMessage, topic, partial(self._on_trajectory, controller), RELIABLE)
        self.create_service(ResetWorld, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/step", self._on_step)

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "mode" and parameter.value not in MODES:
                reason = f"mode '{parameter.value}' is not one of: {', '.join(MODES)}"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _apply(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == "mode":
                with self._lock:  # when this returns, time stands still
                    self._stepped = parameter.value == "stepped"
            elif parameter.name == "realtime_factor":
                self._factor = parameter.value
            elif parameter.name == "control_period":
                self._ticks_per_step = max(1, round(parameter.value / TICK))

    # ------------------------------------------------------------------ inputs
    def _on_trajectory(self, controller: str, message: JointTrajectoryMessage) -> None:
        try:
            with self._lock:
                self._robot.command(controller, trajectory_from_message(message))
        except TrajectoryRejected as reason:
            self.get_logger().error(f"{controller}: trajectory refused: {reason}")

    def _on_reset(self, request: ResetWorld.Request, response: ResetWorld.Response) -> ResetWorld.Response:
        """New scene; the reply leaves when joint states, task state and images of it are published."""
        try:
            with self._lock:
                self._await_cameras()  # what is still being rendered belongs to the old scene
                self._robot.reset(request.seed)
                self._tick(everything=True)
                self._publish_camera_pose(time_message(self._robot.time_ns))
        except ValueError as error:
            response.success, response.message = False, str(error)
            return response
        self._await_cameras()
        response.success, response.instruction = True, self._robot.world.instruction
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
        response.success, response.message = True, f"{self._robot.world.time:.9g}"
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
                self.get_logger().warn(
                    f"slower than real time: {pacer.lost:.1f} s lost so far", throttle_duration_sec=10.0
                )

    def _tick_unless_stepped(self) -> bool:
        """One tick, or, while time stands still, only word of what time it is."""
        with self._lock:
            if self._stepped:
                self._publish_clock(time_message(self._robot.time_ns))
                return False
            self._tick()
            return True

    def _tick(self, *, lossless: bool = False, everything: bool = False) -> None:
        """Advance by TICK, then publish what the sensors see.

        lossless: wait for the cameras where they are still busy with an exposure, which is otherwise left out.
        everything: publish also what is not due.
        """
        with self._lock:
            self._robot.advance(self._steps_per_tick)
            now_ns = self._robot.time_ns
            stamp = time_message(now_ns)
            self._publish_clock(stamp)
            self._publish_joints(stamp)
            if self._task_schedule.due(now_ns, everything):
                self._publish_task_state(stamp)
            if self._rig and self._image_schedule.due(now_ns, everything):
                if lossless:
                    self._await_cameras()
                if not self._rig.capture(self._robot.world.data, now_ns):
                    self.get_logger().warn(
                        "cameras are slower than image_rate: an exposure was left out", throttle_duration_sec=10.0
                    )

    # ----------------------------------------------------------------- outputs
    def _publish_clock(self, stamp: Time) -> None:
        if self._clock_publisher:
            self._clock_publisher.publish(Clock(clock=stamp))

    def _publish_joints(self, stamp: Time) -> None:
        joints = self._robot.joints()
        message = JointState(
            name=joints.names, position=joints.positions, velocity=joints.velocities, effort=joints.efforts
        )
        message.header.stamp, message.header.frame_id = stamp, BASE_FRAME
        self._joint_publisher.publish(message)

    def _publish_task_state(self, stamp: Time) -> None:
        state = self._robot.world.task_state()
        message = TaskState(
            instruction=state.instruction,
            target=f"{state.target} cube",
            success=bool(state.success),
            grasped=bool(state.grasped),
            distance=state.distance,
            lift=state.lift,
            sim_time=self._robot.episode_time,
        )
        message.header.stamp, message.header.frame_id = stamp, BASE_FRAME
        self._task_publisher.publish(message)

    def _publish_camera_pose(self, stamp: Time) -> None:
        """Ground truth for whoever draws into the images of `ego`: the camera stands still between two resets."""
        message = PoseStamped(pose=optical_pose(self._robot.world, CAMERAS[0]))
        message.header.stamp, message.header.frame_id = stamp, BASE_FRAME
        self._camera_pose_publisher.publish(message)

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
        self._robot.world.close()


def main(args: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM (exit status 0) or until the simulation fails (1)."""
    rclpy.init(args=args)
    node = None
    try:
        node = WidowXSim()
        gc.freeze()  # what was loaded stays: looking through it for garbage would hold up the simulation
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # a signal during start-up invalidates what is being created: that is a clean end
            raise
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 1 if node is not None and node.failure else 0


if __name__ == "__main__":
    sys.exit(main())
