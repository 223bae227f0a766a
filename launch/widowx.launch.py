"""Brings up a WidowX 250s that obeys sentences: the robot (simulated, mock or real), the policy, the executor, RViz.

    ros2 launch qwen_vla_ros widowx.launch.py                        # simulated arm with cameras
    ros2 launch qwen_vla_ros widowx.launch.py hardware:=mock         # ros2_control without an arm or cameras
    ros2 launch qwen_vla_ros widowx.launch.py hardware:=real namespace:=wx250s policy:=/path/to/checkpoint

Arguments are what differs between deployments; tuning is in config/.
"""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.substitutions import (
    AndSubstitution,
    Command,
    EqualsSubstitution,
    FindExecutable,
    LaunchConfiguration,
    OrSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import LifecycleNode, Node, PushRosNamespace, SetParameter
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from qwen_vla_ros.environment import ros_environment

HARDWARE = LaunchConfiguration("hardware")
USE_SIM_TIME = OrSubstitution(
    EqualsSubstitution(LaunchConfiguration("use_sim_time"), "true"),
    AndSubstitution(
        EqualsSubstitution(LaunchConfiguration("use_sim_time"), "auto"), EqualsSubstitution(HARDWARE, "mujoco")
    ),
)
LOG_LEVEL = ["--log-level", LaunchConfiguration("log_level")]
# Transforms stay inside the namespace, so that two robots in one graph do not mix theirs.
LOCAL_TRANSFORMS = [("/tf", "tf"), ("/tf_static", "tf_static")]

ARGUMENTS = [
    DeclareLaunchArgument(
        "hardware",
        default_value="mujoco",
        choices=["mujoco", "mock", "real"],
        description="Robot: simulated with cameras | ros2_control mock, no cameras | the arm, through xs_sdk "
        "(moves to its sleep pose at once)",
    ),
    DeclareLaunchArgument(
        "policy", default_value="tiny", description="Name of a shipped checkpoint (tiny), or path to a checkpoint"
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes and topics"),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="auto",
        choices=["auto", "true", "false"],
        description="Take time from /clock; auto: with hardware:=mujoco, whose simulator publishes it",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        choices=["true", "false"],
        description="Configure and activate policy_node and executor_node; false: by hand, with ros2 lifecycle set",
    ),
    DeclareLaunchArgument("rviz", default_value="false", choices=["true", "false"], description="Start RViz"),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severity that is logged",
    ),
    DeclareLaunchArgument(
        "seed", default_value="0", description="Seed of the first simulated scene (hardware:=mujoco)"
    ),
]


def installed(package: str) -> bool:
    """True when the ROS package is in the ament index."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def ros_variables() -> list[SetEnvironmentVariable]:
    """What the nodes need beyond this process's environment: the DDS profile for images, library paths."""
    return [SetEnvironmentVariable(k, v) for k, v in ros_environment().items() if os.environ.get(k) != v]


def end_with(what: str):
    """Handler for `on_exit`: without this process nothing is left to do. During a shutdown its exit is no news."""

    def handler(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        return None if context.is_shutdown else Shutdown(reason=f"{what} ended")

    return handler


def share(package: str, *path: str) -> PathJoinSubstitution:
    """Path of an installed file."""
    return PathJoinSubstitution([FindPackageShare(package), *path])


def simulator() -> list[Node]:
    """The simulated arm; it also publishes robot_description and /clock."""
    return [
        Node(
            package="qwen_vla_sim",
            executable="widowx_sim",
            name="widowx_sim",
            parameters=[{"seed": ParameterValue(LaunchConfiguration("seed"), value_type=int)}],
            ros_arguments=LOG_LEVEL,
            output="screen",
            on_exit=end_with("the simulator"),
        )
    ]


def ros2_control(hardware: str, description: ParameterValue) -> list[Node]:
    """Controller manager and controllers, for mock hardware or the arm."""
    config = share("qwen_vla_ros", "config", "controllers", "widowx.yaml")
    controllers = ["arm_controller", "gripper_controller"]
    rate = {}
    nodes = []
    if hardware == "mock":
        controllers.append("joint_state_broadcaster")
    else:  # xs_sdk drives the motors and publishes joint_states; its ros2_control interface works at 10 Hz
        rate = {"update_rate": 10}
        nodes.append(
            Node(
                package="interbotix_xs_sdk",
                executable="xs_sdk",
                name="xs_sdk",
                parameters=[
                    {
                        "motor_configs": share("interbotix_xsarm_control", "config", "wx250s.yaml"),
                        "mode_configs": share("interbotix_xsarm_ros_control", "config", "modes.yaml"),
                        "load_configs": False,
                        "robot_description": description,
                    }
                ],
                ros_arguments=LOG_LEVEL,
                output="screen",
                on_exit=end_with("the arm's driver"),
            )
        )
    return [
        *nodes,
        Node(
            package="controller_manager",
            executable="ros2_control_node",
            parameters=[config, rate],
            remappings=[("~/robot_description", "robot_description")],
            ros_arguments=LOG_LEVEL,
            output="screen",
            on_exit=end_with("the controller manager"),
        ),
        Node(
            package="controller_manager",
            executable="spawner",
            arguments=[*controllers, "--param-file", config],
            ros_arguments=LOG_LEVEL,
            output="screen",
        ),
    ]


def robot(context: LaunchContext) -> list[Node]:
    """The robot that `hardware` chooses, and its transforms."""
    hardware = HARDWARE.perform(context)
    xacro = share("embodiment_descriptions", "urdf", "widowx", "widowx.urdf.xacro")
    variant = "mock" if hardware == "mujoco" else hardware  # the simulator describes itself as mock
    command = Command([FindExecutable(name="xacro"), " ", xacro, f" hardware:={variant}"])
    description = ParameterValue(command, value_type=str)
    state_publisher = Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        parameters=[{"robot_description": description}],
        remappings=LOCAL_TRANSFORMS,
        ros_arguments=LOG_LEVEL,
        output="screen",
    )
    if hardware == "mujoco":  # transforms are for RViz only: do without them where the package is missing
        return [*simulator(), *([state_publisher] if installed("robot_state_publisher") else [])]
    return [state_publisher, *ros2_control(hardware, description)]


def policy_and_executor() -> list[Node]:
    """The nodes of this suite. They configure themselves as soon as the robot's description is there."""
    autostart = {"autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool)}

    def managed(executable: str, **parameters: object) -> LifecycleNode:
        return LifecycleNode(
            package="qwen_vla_ros",
            executable=executable,
            name=executable,
            namespace="",
            parameters=[autostart, parameters],
            ros_arguments=LOG_LEVEL,
            output="screen",
            sigterm_timeout="15",  # they bring the arm to rest before they go; on a busy machine that takes its time
        )

    return [
        managed("policy_node", policy=ParameterValue(LaunchConfiguration("policy"), value_type=str)),
        managed("executor_node"),
        Node(
            package="qwen_vla_ros",
            executable="trajectory_visualizer",
            name="trajectory_visualizer",
            ros_arguments=LOG_LEVEL,
            output="screen",
        ),
    ]


def rviz() -> Node:
    """RViz; its configuration names topics relative to the namespace."""
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", share("qwen_vla_ros", "config", "rviz", "widowx.rviz")],
        remappings=LOCAL_TRANSFORMS,
        condition=IfCondition(LaunchConfiguration("rviz")),
        output="screen",
    )


def generate_launch_description() -> LaunchDescription:
    everything = GroupAction(
        [
            PushRosNamespace(LaunchConfiguration("namespace")),
            SetParameter("use_sim_time", ParameterValue(USE_SIM_TIME, value_type=bool)),
            OpaqueFunction(function=robot),
            *policy_and_executor(),
            rviz(),
        ]
    )
    return LaunchDescription([*ARGUMENTS, *ros_variables(), everything])
