"""Keeps what a camera viewer would have seen of an episode; nothing is decoded or drawn while the robot works."""

from __future__ import annotations

from dataclasses import dataclass, field

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from qwen_vla_ros.chunk_messages import nanoseconds
from qwen_vla_ros.stack import SIMULATOR, VISUALIZER, SimulatedStack
from qwen_vla_ros.task_client import LATCHED, TaskClient

EGO, WRIST = "ego", "cam_wrist"


@dataclass(frozen=True)
class Moment:
    """One exposure of the ego camera and what was known then; `seconds` is simulated time since the reset."""

    seconds: float
    ego: Image
    wrist: Image
    path: PathMessage | None
    activity: str


@dataclass
class Recording:
    """An episode as messages. The camera's pose and calibration hold for the whole episode."""

    moments: list[Moment] = field(default_factory=list)
    camera_pose: PoseStamped | None = None
    camera_info: CameraInfo | None = None


class Recorder:
    """Listens to the stack's cameras and to the prediction; what is kept begins with `begin`."""

    def __init__(self, stack: SimulatedStack, tasks: TaskClient) -> None:
        self._client, self._tasks = stack.client, tasks
        self._recording: Recording | None = None
        self._wrist: Image | None = None
        self._path: PathMessage | None = None
        self._pose: PoseStamped | None = None
        self._info: CameraInfo | None = None
        client = self._client
        client.hear(Image, f"{EGO}/image_raw", self._on_ego, qos_profile_sensor_data)
        client.hear(Image, f"{WRIST}/image_raw", self._on_wrist, qos_profile_sensor_data)
        client.hear(CameraInfo, f"{EGO}/camera_info", self._on_info, qos_profile_sensor_data)
        client.hear(PoseStamped, f"{SIMULATOR}/ego_camera_pose", self._on_pose, LATCHED)
        client.hear(PathMessage, f"{VISUALIZER}/predicted_path", self._on_path, 10)

    def begin(self) -> None:
        """Forget the prediction of the last episode and keep everything from now on; call it after the reset."""
        with self._client.changed:
            self._recording, self._path = Recording(), None

    def end(self) -> Recording:
        """Stop, and return what was kept."""
        with self._client.changed:
            recording, self._recording = self._recording, None
        recording.camera_pose, recording.camera_info = self._pose, self._info
        return recording

    def _on_ego(self, message: Image) -> None:
        task = self._tasks.task
        if self._recording is None or self._wrist is None or task is None:
            return
        # The judge speaks less often than the camera exposes: count on from its last word.
        seconds = task.sim_time + (nanoseconds(message.header.stamp) - nanoseconds(task.header.stamp)) / 1e9
        self._recording.moments.append(Moment(seconds, message, self._wrist, self._path, self._tasks.activity))

    def _on_wrist(self, message: Image) -> None:
        self._wrist = message

    def _on_path(self, message: PathMessage) -> None:
        self._path = message

    def _on_pose(self, message: PoseStamped) -> None:
        self._pose = message

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message
