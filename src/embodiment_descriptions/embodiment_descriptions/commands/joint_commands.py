# SPDX-License-Identifier: Apache-2.0
"""The kinds of command interfaces that move joints and come with the suite."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from embodiment_descriptions.commands.command_interface import ActionCommand, TopicCommand
from embodiment_descriptions.schema import Finite, Name, Positive, Strict

Joints = Annotated[tuple[Name, ...], Field(min_length=1)]
ROS_SIDES, READERS, STAND_INS = (
    "qwen_vla_ros.executor.command_interfaces",
    "qwen_vla.data.formats.rosbag_commands",
    "qwen_vla_sim.controllers.stand_ins",
)
SPAWN = "ros2 control list_controllers; then ros2 run controller_manager spawner {controller}"
XS_SDK = "start the xs_sdk of the robot in its namespace (interbotix_xsarm_control)"


class JointTrajectoryCommand(TopicCommand):
    """A JointTrajectoryController, streamed to through its topic (trajectory_msgs/JointTrajectory)."""

    message_types: ClassVar = ("trajectory_msgs/msg/JointTrajectory",)
    start_hint: ClassVar = SPAWN
    ros_side: ClassVar = f"{ROS_SIDES}.joint_trajectory:JointTrajectoryBackend"
    recorded: ClassVar = f"{READERS}:joint_trajectory"
    simulated: ClassVar = f"{STAND_INS}:TrajectoryStandIn"

    backend: Literal["joint_trajectory"]
    joints: Joints

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return self.joints


class ForwardCommand(TopicCommand):
    """A forward_command_controller of positions: std_msgs/Float64MultiArray in the order of `joints`, without names."""

    message_types: ClassVar = ("std_msgs/msg/Float64MultiArray",)
    start_hint: ClassVar = SPAWN
    ros_side: ClassVar = f"{ROS_SIDES}.setpoints:forward_command"
    recorded: ClassVar = f"{READERS}:forward_command"
    simulated: ClassVar = f"{STAND_INS}:forward_command"

    backend: Literal["forward_command"]
    joints: Joints

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return self.joints


class GripperActionCommand(ActionCommand):
    """A gripper controller with an action: `parallel` takes ParallelGripperCommand, `classic` GripperCommand."""

    message_types: ClassVar = ("control_msgs/action/ParallelGripperCommand", "control_msgs/action/GripperCommand")
    only_grippers: ClassVar = True
    start_hint: ClassVar = SPAWN
    ros_side: ClassVar = f"{ROS_SIDES}.gripper_action:GripperActionBackend"
    recorded: ClassVar = f"{READERS}:measured_positions"

    backend: Literal["gripper_action"]
    joint: Name = Field(description="of the gripper")
    kind: Literal["parallel", "classic"]
    max_rate_hz: Positive = Field(default=5.0, description="goals are sent at most this often [Hz]")
    dead_band: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.001, description="a smaller change of the goal is not sent [m or rad]"
    )
    max_effort: Positive | None = Field(
        default=None, description="greatest force or torque [N or Nm]; unset: 0 in the goal, no force for some grippers"
    )

    @property
    def types(self) -> tuple[str, ...]:
        """The action of its `kind`."""
        return (dict(zip(("parallel", "classic"), self.message_types, strict=True))[self.kind],)

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return (self.joint,)


class XsGroupCommand(TopicCommand):
    """A joint group of an Interbotix xs_sdk (JointGroupCommand), values in the order of `joints`."""

    message_types: ClassVar = ("interbotix_xs_msgs/msg/JointGroupCommand",)
    start_hint: ClassVar = XS_SDK
    ros_side: ClassVar = f"{ROS_SIDES}.setpoints:xs_group"
    recorded: ClassVar = f"{READERS}:xs_group"
    simulated: ClassVar = f"{STAND_INS}:xs_group"

    backend: Literal["xs_group"]
    group: Name = Field(description="such as arm")
    joints: Joints

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return self.joints


class GripperCalibration(Strict):
    """Motor angles [rad] at which a gripper is closed and open; they differ from robot to robot."""

    closed: Finite = Field(description="[rad]")
    open: Finite = Field(description="[rad]")

    @model_validator(mode="after")
    def _is_a_range(self) -> "GripperCalibration":
        if math.isclose(self.closed, self.open, abs_tol=1e-9):
            raise ValueError(f"closed and open are both {self.open}; a gripper needs a range")
        return self


class XsSingleCommand(TopicCommand):
    """One motor of an Interbotix xs_sdk (JointSingleCommand), called `name` there; moves the gripper joint `joint`."""

    message_types: ClassVar = ("interbotix_xs_msgs/msg/JointSingleCommand",)
    only_grippers: ClassVar = True
    start_hint: ClassVar = XS_SDK
    ros_side: ClassVar = f"{ROS_SIDES}.setpoints:xs_single"
    recorded: ClassVar = f"{READERS}:xs_single"
    simulated: ClassVar = f"{STAND_INS}:XsMotor"

    backend: Literal["xs_single"]
    joint: Name = Field(description="of the gripper")
    name: Name = Field(description="of the motor, such as gripper")
    calibration: GripperCalibration

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return (self.joint,)
