"""The WidowX tabletop as a gymnasium environment: joint targets in, camera images and joint positions out, at 5 Hz.

Within a step the targets are interpolated linearly, as the JointTrajectoryController does with positions only.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from qwen_vla_sim.widowx.table_spec import CAMERAS
from qwen_vla_sim.widowx.world import WidowXWorld

SETPOINT_PERIOD = 0.01  # [s] between interpolated set points: the controller's 100 Hz


class WidowXEnv(gymnasium.Env):
    """Do what the instruction says.

    Action: (7,) joint targets [rad; last: left_finger, m] reached at the end of the step (0.2 s).
    Observation: {"images": {tag: 240×320×3 uint8}, "joints": (7,)}; info: fields of TaskState, tip pose.
    Reward 1 on success. `render_size=None` leaves the cameras off (images are empty).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, world: WidowXWorld, render_size: tuple[int, int] | None, max_steps: int) -> None:
        self.world = world
        self.render_size = render_size
        self.max_steps = max_steps
        self.period = self.world.embodiment.period
        limits = [self.world.embodiment.limits[name] for name in self.world.joint_names]
        low = np.array([limit.lower for limit in limits], np.float32)
        high = np.array([limit.upper for limit in limits], np.float32)
        self.action_space = gymnasium.spaces.Box(low, high)
        height, width = render_size or (0, 0)
        image = gymnasium.spaces.Box(0, 255, (height, width, 3), np.uint8)
        cameras = CAMERAS if render_size else ()
        self.observation_space = gymnasium.spaces.Dict(
            {
                "images": gymnasium.spaces.Dict(dict.fromkeys(cameras, image)),
                "joints": gymnasium.spaces.Box(low - 0.1, high + 0.1),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Scene of `seed`; options, all that a `Start` has, begin elsewhere than at home, or with the target moved."""
        super().reset(seed=seed)
        self.world.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        options = options or {}
        if options.get("target"):
            self.world.move_target(*options["target"])
        if "joints" in options:
            place = self.world.put_into_gripper if options.get("holding") else self.world.place_arm
            place(options["joints"])
        self._command = self.world.joint_positions().copy()
        if options.get("holding"):
            self._command[-1] = self.world.embodiment.arms[0].gripper.closed
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray):
        command = np.clip(np.asarray(action, float), self.action_space.low, self.action_space.high)
        substeps = round(SETPOINT_PERIOD / self.world.timestep)
        count = round(self.period / SETPOINT_PERIOD)
        for i in range(1, count + 1):
            self.world.set_joint_target(self._command + (command - self._command) * (i / count))
            self.world.step(substeps)
        self._command = command
        self.steps += 1
        info = self._info()
        return self._observe(), float(info["success"]), info["success"], self.steps >= self.max_steps, info

    def render(self) -> np.ndarray:
        return self.world.render("ego", *(self.render_size or (240, 320)))

    def close(self) -> None:
        self.world.close()

    def _observe(self) -> dict:
        images = {tag: self.world.render(tag, *self.render_size) for tag in CAMERAS} if self.render_size else {}
        return {"images": images, "joints": self.world.joint_positions().astype(np.float32)}

    def _info(self) -> dict:
        state = self.world.task_state()
        return {**vars(state), "tip_pose": self.world.tip_pose()}
