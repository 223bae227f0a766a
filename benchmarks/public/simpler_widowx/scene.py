# SPDX-License-Identifier: Apache-2.0
"""One task of Simpler-WidowX in mani_skill: official and other start states, exact poses, and frames on demand.

mani_skill renders at every step; here `get_obs` renders nothing, and `frame` does it when an image is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import mani_skill.envs  # noqa: F401  registers the tasks
import numpy as np
import torch
from mani_skill.envs.tasks.digital_twins.base_env import BaseDigitalTwinEnv
from mani_skill.utils.logging_utils import logger
from transforms3d.quaternions import quat2mat

from benchmarks.public.protocol.pick_and_place import View
from benchmarks.public.simpler_widowx.tasks import OFFICIAL_STATES, TABLE, Start, Task

CAMERA = "3rd_view_camera"
ROLLED = 0.07  # [m]
FEWEST = 20  # pixels of 640×480 of an object that counts as visible
logger.setLevel("ERROR")  # it warns of its own tasks


@dataclass(frozen=True)
class Frame:
    """An image (480, 640, 3) uint8 RGB, and the places of object, destination and tip in it.

    points: (3, 3) u and v in 0…1, and depth [m], which is 0 for what is not visible.
    """

    image: np.ndarray
    points: np.ndarray


class Scene:
    """A task that can be reset, stepped, looked at and judged."""

    def __init__(self, task: Task) -> None:
        self.task = task
        # mani_skill keeps these on the class: a second scene of a process would show parts of the first.
        BaseDigitalTwinEnv._objects_to_remove_from_greenscreen, overlays = [], {}
        BaseDigitalTwinEnv._rgb_overlay_images = overlays
        self._env = gymnasium.make(
            task.env_id, obs_mode="rgb+segmentation", num_envs=1, sim_backend="physx_cpu", render_backend="cpu"
        )
        self._inner: Any = self._env.unwrapped
        self._inner._rgb_overlay_images = overlays
        self._render = self._inner.get_obs
        self._inner.get_obs = lambda *_, **__: {}
        self._states = self._inner.xyz_configs.clone(), self._inner.quat_configs.clone()

    def official_starts(self) -> list[Start]:
        """The start states of the protocol, as mani_skill derives them from `episode_id`."""
        xyz, quaternions = (states.numpy() for states in self._states)
        count = len(quaternions)
        return [Start(xyz[number // count], quaternions[number % count]) for number in range(OFFICIAL_STATES)]

    def reset_official(self, number: int) -> None:
        """Reset to an official state, 0 … 23, by mani_skill's own selection."""
        self._reset(*(states.clone() for states in self._states), number)

    def reset(self, start: Start) -> None:
        """Reset to any start state."""
        xyz, quaternions = (states.clone() for states in self._states)
        xyz[0], quaternions[0] = torch.tensor(start.xyz), torch.tensor(start.quaternions)
        self._reset(xyz, quaternions, 0)

    def step(self, action: np.ndarray) -> dict[str, bool]:
        """Execute an action (7,) for 0.2 s; what mani_skill's judge says: success, is_src_obj_grasped …"""
        info = self._env.step(np.asarray(action, np.float32)[None])[-1]
        return {key: bool(value.reshape(-1)[0]) for key, value in info.items() if key != "elapsed_steps"}

    def frame(self) -> Frame:
        """The camera's image now."""
        observation = self._render()
        data, camera = observation["sensor_data"][CAMERA], observation["sensor_param"][CAMERA]
        segmentation = data["segmentation"][0, ..., 0].numpy()
        corners = np.stack([self._object, self._goal, self._tip])[:, :3, 3]
        points = _projected(corners, camera["extrinsic_cv"][0].numpy(), camera["intrinsic_cv"][0].numpy(), segmentation)
        for row, actor in enumerate(self._actors):
            photographed = row == 1 and self.task.in_sink  # the basket
            if not photographed and (segmentation == int(actor.per_scene_id[0])).sum() < FEWEST:
                points[row, 2] = 0.0
        return Frame(data["rgb"][0].numpy().copy(), points)

    def view(self) -> View:
        """Exact poses in the robot's root frame."""
        root = np.linalg.inv(_matrix(self._inner.agent.robot.pose))
        target = _matrix(self._controller._target_pose)
        return View(root @ self._tip, target, root @ self._object, root @ self._goal, TABLE + root[2, 3])

    def stays(self, start: Start) -> bool:
        """Whether the object, after a reset, is about where it was put: not rolled, fallen or thrown away."""
        return bool(np.linalg.norm(self._object[:3, 3] - start.xyz[0]) < ROLLED)

    def joints(self) -> np.ndarray:
        """(7,) the arm's joints [rad] and the left finger [m]."""
        return self._inner.agent.robot.get_qpos()[0, :7].numpy().copy()

    @property
    def _controller(self) -> Any:
        return self._inner.agent.controller.controllers["arm"]

    @property
    def _actors(self) -> list:
        return [self._inner.objs[name] for name in self._inner.obj_names]

    @property
    def _object(self) -> np.ndarray:
        return _matrix(self._actors[0].pose)

    @property
    def _goal(self) -> np.ndarray:
        return _matrix(self._actors[1].pose)

    @property
    def _tip(self) -> np.ndarray:
        return _matrix(self._controller.ee_link.pose)

    def _reset(self, xyz: torch.Tensor, quaternions: torch.Tensor, number: int) -> None:
        self._inner.xyz_configs, self._inner.quat_configs = xyz, quaternions
        self._env.reset(seed=0, options={"episode_id": torch.tensor([number])})


def _matrix(pose: Any) -> np.ndarray:
    raw = pose.raw_pose[0].numpy()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = quat2mat(raw[3:]), raw[:3]
    return matrix


def _projected(points: np.ndarray, extrinsic: np.ndarray, intrinsic: np.ndarray, image: np.ndarray) -> np.ndarray:
    """u, v in 0…1 of the image's width and height and depth [m] of points (n, 3) in the world."""
    seen = points @ extrinsic[:3, :3].T + extrinsic[:3, 3]
    pixels = seen @ intrinsic.T / seen[:, 2:]
    return np.column_stack([pixels[:, 0] / image.shape[1], pixels[:, 1] / image.shape[0], seen[:, 2]])
