"""How a robot is commanded and where it reports its state: the topics, actions and joints of its YAML.

One entry of `commands` is one command interface; its `backend` gives the kind. Joint names are those of the URDF
throughout.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from embodiment_descriptions.schema import Finite, Name, Positive, Strict, require_unique

Joints = Annotated[tuple[Name, ...], Field(min_length=1)]


class JointStates(Strict):
    """A topic of sensor_msgs/JointState; a joint's URDF name is `prefix` + its name in the message."""

    topic: Name = "joint_states"
    prefix: str = Field(default="", description="such as follower_left/")
    max_age_s: Positive = Field(default=0.5, description="older joint states stop what depends on them [s]")


class Odometry(Strict):
    """The topic of nav_msgs/Odometry of a mobile base."""

    topic: Name = "odom"
    max_age_s: Positive = Field(default=0.5, description="older odometry stops the base [s]")


class JointTrajectoryCommand(Strict):
    """A JointTrajectoryController, commanded by streaming to its topic (trajectory_msgs/JointTrajectory)."""

    backend: Literal["joint_trajectory"]
    topic: Name
    joints: Joints

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return self.joints


class ForwardCommand(Strict):
    """A forward_command_controller of positions: std_msgs/Float64MultiArray in the order of `joints`, without names."""

    backend: Literal["forward_command"]
    topic: Name
    joints: Joints

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return self.joints


class GripperActionCommand(Strict):
    """A gripper controller with an action: `parallel` takes ParallelGripperCommand, `classic` GripperCommand."""

    backend: Literal["gripper_action"]
    action: Name
    joint: Name = Field(description="of the gripper")
    kind: Literal["parallel", "classic"]
    max_rate_hz: Positive = Field(default=5.0, description="goals are sent at most this often [Hz]")
    dead_band: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.001, description="a smaller change of the goal is not sent [m or rad]"
    )

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return (self.joint,)


class XsGroupCommand(Strict):
    """A joint group of an Interbotix xs_sdk (JointGroupCommand), values in the order of `joints`."""

    backend: Literal["xs_group"]
    topic: Name
    group: Name = Field(description="such as arm")
    joints: Joints

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return self.joints


class GripperCalibration(Strict):
    """Motor angles [rad] at which a gripper is closed and open; they vary from robot to robot."""

    closed: Finite = Field(description="[rad]")
    open: Finite = Field(description="[rad]")

    @model_validator(mode="after")
    def _is_a_range(self) -> "GripperCalibration":
        if math.isclose(self.closed, self.open, abs_tol=1e-9):
            raise ValueError(f"closed and open are both {self.open}; a gripper needs a range")
        return self


class XsSingleCommand(Strict):
    """One motor of an Interbotix xs_sdk (JointSingleCommand), called `name` there; moves the gripper joint `joint`."""

    backend: Literal["xs_single"]
    topic: Name
    joint: Name = Field(description="of the gripper")
    name: Name = Field(description="of the motor, such as gripper")
    calibration: GripperCalibration

    @property
    def commanded(self) -> tuple[str, ...]:
        """Joints of the URDF that this interface moves."""
        return (self.joint,)


class BaseVelocityCommand(Strict):
    """Velocities of a base; `auto` uses the message type of the subscriber in the graph."""

    backend: Literal["base_velocity"]
    topic: Name = "cmd_vel_nav"
    message: Literal["auto", "twist", "twist_stamped"] = "auto"


class Nav2FollowPathCommand(Strict):
    """Waypoints as a path for Nav2's controller server (nav2_msgs/FollowPath)."""

    backend: Literal["nav2_follow_path"]
    action: Name = "follow_path"


class Nav2PoseCommand(Strict):
    """The last waypoint as a goal for Nav2's navigator (nav2_msgs/NavigateToPose)."""

    backend: Literal["nav2_pose"]
    action: Name = "navigate_to_pose"


JointCommand = JointTrajectoryCommand | ForwardCommand | GripperActionCommand | XsGroupCommand | XsSingleCommand
BaseCommand = BaseVelocityCommand | Nav2FollowPathCommand | Nav2PoseCommand
Command = Annotated[JointCommand | BaseCommand, Field(discriminator="backend")]


def check_commands(commands: tuple[Command, ...], joints: list[str], grippers: list[str], has_base: bool) -> None:
    """Check that every joint is commanded by one interface, and a base by at most one.

    An empty list is allowed: such a robot can be described and used as a data source, but not driven.

    Args:
        commands: the interfaces.
        joints: all joints to be commanded.
        grippers: those of them that are grippers.
        has_base: the robot has a base.

    Raises:
        ValueError: names the joint or the interface.
    """
    arms = [command for command in commands if isinstance(command, JointCommand)]
    bases = [command for command in commands if isinstance(command, BaseCommand)]
    named = [joint for command in arms for joint in command.commanded]
    require_unique("commanded joint", named)
    unknown = [joint for joint in named if joint not in joints]
    if unknown:
        raise ValueError(f"commands name {', '.join(unknown)}, which neither arms nor waist list")
    left_out = [joint for joint in joints if joint not in named]
    if commands and left_out:
        raise ValueError(f"no entry of commands moves {', '.join(left_out)}")
    for command in arms:
        if isinstance(command, GripperActionCommand | XsSingleCommand) and command.joint not in grippers:
            raise ValueError(f"{command.backend} moves grippers, and {command.joint!r} is not one of an arm")
    if bases and not has_base:
        raise ValueError(f"commands drive a base ({bases[0].backend}), but `base` describes none")
    if len(bases) > 1:
        raise ValueError(f"the base is commanded more than once: {', '.join(command.backend for command in bases)}")
    if commands and has_base and not bases:
        raise ValueError("no entry of commands drives the base; add one with the backend base_velocity")
