# SPDX-License-Identifier: Apache-2.0
"""Where a robot says where it is: topics of joint states and of odometry."""

from pydantic import Field

from embodiment_descriptions.schema import Name, Positive, Strict


class JointStates(Strict):
    """A topic of sensor_msgs/JointState; the URDF's name of a joint is `prefix` + the name in the message."""

    topic: Name = "joint_states"
    prefix: str = Field(default="", description="such as follower_left/")
    max_age_s: Positive = Field(default=0.5, description="older joint states stop what relies on them [s]")


class Odometry(Strict):
    """The topic of nav_msgs/Odometry of a mobile base."""

    topic: Name = "odom"
    max_age_s: Positive = Field(default=0.5, description="older odometry stops the base [s]")
