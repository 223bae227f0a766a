# SPDX-License-Identifier: Apache-2.0
"""Conversion between plain values and the messages of the simulated robots."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import Pose
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image, JointState

from qwen_vla_msgs.msg import TaskState as TaskStateMessage
from qwen_vla_rclpy.messages import planar_pose_message, pose_message
from qwen_vla_sim.controllers.limit_monitor import Peak, VelocityMonitor
from qwen_vla_sim.controllers.simulated_robot import JointReading
from qwen_vla_sim.robot_world import RobotWorld
from qwen_vla_sim.task import TaskState

TOLERANCE = 1e-6  # of a speed limit [1], beyond a position limit [rad | m]


def joint_state_message(reading: JointReading, prefix: str, stamp: Time, frame: str) -> JointState:
    """The joints whose names begin with `prefix`, named without it."""
    chosen = [i for i, name in enumerate(reading.names) if name.startswith(prefix)]
    message = JointState(
        name=[reading.names[i][len(prefix) :] for i in chosen],
        position=[reading.positions[i] for i in chosen],
        velocity=[reading.velocities[i] for i in chosen],
        effort=[reading.efforts[i] for i in chosen],
    )
    message.header.stamp, message.header.frame_id = stamp, frame
    return message


def joint_limits_status(peak: Peak, name: str) -> DiagnosticStatus:
    """The worst set point so far; an error if a limit was exceeded by more than rounding."""
    values = {
        "largest share of a speed limit": f"{peak.speed_share:.4f}",
        "fastest joint": peak.fastest_joint,
        "farthest beyond a position limit": f"{peak.excess:.6f}",
        "farthest joint": peak.farthest_joint,
        "longest step": f"{peak.step:.6f}",
        "stepping joint": peak.stepping_joint,
        "longest catch-up of a servo": f"{peak.catch_up:.6f}",
        "catching-up joint": peak.catching_joint,
        "longest step to a false measurement": f"{peak.misled:.6f}",
        "misled joint": peak.misled_joint,
    }
    return _limits_status(name, peak.speed_share > 1.0 + TOLERANCE or peak.excess > TOLERANCE, values)


def velocity_limits_status(monitor: VelocityMonitor, name: str) -> DiagnosticStatus:
    """The fastest velocity commanded so far; an error if a limit was exceeded by more than rounding."""
    values = {
        "velocities commanded": str(monitor.count),
        "largest share of the speed limit": f"{monitor.linear_share:.4f}",
        "largest share of the turning limit": f"{monitor.angular_share:.4f}",
    }
    return _limits_status(name, max(monitor.linear_share, monitor.angular_share) > 1.0 + TOLERANCE, values)


def _limits_status(name: str, exceeded: bool, values: dict[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name,
        level=DiagnosticStatus.ERROR if exceeded else DiagnosticStatus.OK,
        message="a command exceeded a limit" if exceeded else "ok",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def image_message(image: np.ndarray, stamp: Time, frame: str) -> Image:
    """An rgb8 message of an (H, W, 3) uint8 RGB array."""
    height, width = image.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp, message.header.frame_id = stamp, frame
    message.data = array.array("B", image.tobytes())  # the one type that rclpy does not check byte by byte
    return message


def camera_info_message(intrinsics: np.ndarray, height: int, width: int, frame: str) -> CameraInfo:
    """CameraInfo of an ideal pinhole camera: `intrinsics` is K, 3x3 [px]; no distortion, no rectification."""
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = frame
    info.k = intrinsics.ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([intrinsics, np.zeros((3, 1))]).ravel()
    return info


def optical_pose(world: RobotWorld, camera: str) -> Pose:
    """Pose of a camera's optical frame in the world: x right, y down, z forward (REP-103)."""
    index = world.model.camera(camera).id
    pose = np.eye(4)
    pose[:3, :3] = world.data.cam_xmat[index].reshape(3, 3) * [1, -1, -1]  # MuJoCo's camera: x right, y up, z backward
    pose[:3, 3] = world.data.cam_xpos[index]
    return pose_message(pose)


def odometry_message(pose: np.ndarray, twist: np.ndarray, stamp: Time, frame: str, child_frame: str) -> Odometry:
    """Odometry of a planar base: pose (x, y, heading) [m, rad] in `frame`, twist (forward, yaw) [m/s, rad/s]."""
    message = Odometry(child_frame_id=child_frame)
    message.header.stamp, message.header.frame_id = stamp, frame
    message.pose.pose = planar_pose_message(pose)
    message.twist.twist.linear.x, message.twist.twist.angular.z = float(twist[0]), float(twist[1])
    return message


def task_state_message(state: TaskState, sim_time: float, stamp: Time, frame: str) -> TaskStateMessage:
    """The task's state, `sim_time` [s] after the last reset."""
    message = TaskStateMessage(
        instruction=state.instruction,
        task=state.task,
        target=state.target,
        success=bool(state.success),
        distance=float(state.distance),
        failure=state.failure,
        sim_time=sim_time,
        metric_names=list(state.metrics),
        metrics=[float(value) for value in state.metrics.values()],
    )
    message.header.stamp, message.header.frame_id = stamp, frame
    return message
