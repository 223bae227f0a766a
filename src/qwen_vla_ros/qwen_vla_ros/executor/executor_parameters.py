# SPDX-License-Identifier: Apache-2.0
"""The ROS interface of executor_node: its parameters, topics and services."""

from __future__ import annotations

from nav_msgs.msg import Odometry
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import Trigger

from qwen_vla_control.motion.blending import DECAY, Blending, CrossFade
from qwen_vla_control.node_interface import Endpoint, NodeInterface, Parameter
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_ros.executor.command_interfaces.robot_commands import BASE_PATH, COMMAND_GOALS, COMMAND_TOPICS
from qwen_vla_ros.executor.controller_restart import SWITCH
from qwen_vla_ros.executor.controller_watch import ACTIVITY, CONTROLLER_STATE
from qwen_vla_ros.ros.lifecycle import COMMON_PARAMETERS, DIAGNOSTICS, ROBOT_DESCRIPTION

PARAMETERS = (
    Parameter("chunk_topic", "policy_node/action_chunk", "Chunks of the policy (ActionChunk)", read_only=True),
    Parameter("heartbeat_topic", "policy_node/heartbeat", "Heartbeat of the policy (Header)", read_only=True),
    Parameter("instruction_topic", "policy_node/instruction", "Current instruction (String, latched)", read_only=True),
    Parameter("estop_topic", "estop", "Emergency stop (Bool, true while pressed); latches", read_only=True),
    Parameter("estop_required", False, "Nothing moves unless the emergency stop is received", read_only=True),
    Parameter("estop_timeout", 0.5, "Silence of a required emergency stop that stops the robot [s]", 0.02, 10.0, True),
    Parameter(
        "heartbeat_timeout",
        0.4,
        "Time without a heartbeat after which the robot holds [s, steady]",
        0.15,
        10.0,
        safety=True,
    ),
    Parameter(
        "joint_state_timeout", 0.5, "Silence of joint_states after which the robot holds [s]", 0.02, 10.0, safety=True
    ),
    Parameter(
        "clock_timeout", 1.0, "How long ROS time may stop before the robot holds [s, steady]", 0.1, 10.0, safety=True
    ),
    Parameter("max_observation_age", 1.0, "Chunks from an older observation are refused [s]", 0.01, 60.0, safety=True),
    Parameter(
        "max_stamp_lead",
        0.1,
        "Chunks whose observation is farther in the future are refused [s]",
        0.0,
        10.0,
        safety=True,
    ),
    Parameter(
        "max_anchor_gap", 0.1, "Largest time between an observation and its joint state [s]", 0.0, 1.0, safety=True
    ),
    Parameter(
        "following_tolerance", 0.1, "How far a joint may be from its commands of the last 0.3 s [rad]", 0.01, 1.0, True
    ),
    Parameter(
        "max_refusals", 5, "Refusals in a row after which a motion of the policy is aborted", 1, 1000, safety=True
    ),
    Parameter(
        "hold_time",
        0.1,
        "Time for the controllers to come to rest when holding, longer where joints lag far behind [s]",
        0.02,
        1.0,
        safety=True,
    ),
    Parameter(
        "blending",
        str(Blending.SYNCHRONOUS),
        "When a chunk replaces the previous one: after it was executed, or during; as in policy_node",
        read_only=True,
        choices=tuple(Blending),
    ),
    Parameter(
        "cross_fade",
        str(CrossFade.LINEAR),
        "How the weight of the old chunk decays while a new one replaces it",
        read_only=True,
        choices=tuple(CrossFade),
    ),
    Parameter("ensembling_decay", DECAY, "Temporal ensembling: m of the weights exp(-m i)", 1e-4, 10.0, True),
    Parameter("home_speed_share", 0.25, "Share of the speed limits used by ~/go_home", 0.01, 1.0, safety=True),
)

ACCEPTED_CHUNK = Endpoint("~/accepted_chunk", ActionChunk, "Each chunk that is executed, unchanged")
CHUNK_REPORT = Endpoint("~/chunk_report", ChunkReport, "Outcome of each chunk, and why")
CHUNK = Endpoint("{chunk_topic}", ActionChunk, "Chunks of the policy")
HEARTBEAT = Endpoint("{heartbeat_topic}", Header, "Heartbeat of the policy")
INSTRUCTION = Endpoint("{instruction_topic}", String, "The current instruction of the policy, latched; empty: none")
ESTOP = Endpoint("{estop_topic}", Bool, "Emergency stop, true while pressed; received in every state of the node")
JOINT_STATES = Endpoint("<joint_states>", JointState, "Of a robot with arms: joint positions")
ODOMETRY = Endpoint("<odometry>", Odometry, "Of a base: its pose and velocity")
STOP = Endpoint("~/stop", Trigger, "Stop the robot; chunks are refused until ~/resume")
RESUME = Endpoint("~/resume", Trigger, "Accept chunks again after ~/stop")
RESET_ESTOP = Endpoint("~/reset_estop", Trigger, "Release the latched emergency stop, once it is no longer pressed")
HOLD = Endpoint("~/hold", Trigger, "Abort the current motion; the next chunk is accepted")
GO_HOME = Endpoint("~/go_home", Trigger, "Go to the home pose, slowly")
RESYNCHRONIZE = Endpoint(
    "~/resynchronize",
    Trigger,
    "Bring together where the controllers would start and where the joints are, after somebody has moved the robot",
)

INTERFACE = NodeInterface(
    package="qwen_vla_ros",
    name="executor_node",
    docstring="Chunks in, checked commands out. Stops the robot when anything it relies on falls silent.",
    parameters=(*COMMON_PARAMETERS, *PARAMETERS),
    publishes=(ACCEPTED_CHUNK, CHUNK_REPORT, COMMAND_TOPICS, BASE_PATH, DIAGNOSTICS),
    subscribes=(
        *(ROBOT_DESCRIPTION, CHUNK, HEARTBEAT, INSTRUCTION, ESTOP, JOINT_STATES, ODOMETRY),
        *(CONTROLLER_STATE, ACTIVITY),
    ),
    services=(STOP, RESUME, RESET_ESTOP, HOLD, GO_HOME, RESYNCHRONIZE),
    calls=(COMMAND_GOALS, SWITCH),
    managed=True,
    example="-p autostart:=true",
)
