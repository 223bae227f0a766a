# SPDX-License-Identifier: Apache-2.0
"""A policy without a model, to try out everything around one: it holds position, or replays recorded chunks.

`mock://hold` holds the robot's position, `mock://FILE.npy` replays the chunks [N, H, C] of a file one by one and starts
over after the last. Both fit every robot whose channels the chunks have.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embodiment_descriptions import Channel, ChannelKind, Embodiment
from qwen_vla.policies.chunk_policy import ActionChunk, Observation, PolicyOptions
from qwen_vla_control.observation.robot_streams import History

HOLD = "hold"


class MockPolicy:
    """Takes the images of all cameras, so that everything upstream is in use, and ignores their content.

    Half of each chunk is executed before the next. With a seed, it returns chunk `seed` of a file (modulo N).
    """

    def __init__(self, address: str, embodiment: Embodiment, options: PolicyOptions) -> None:
        """Read the file, if one is given.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: neither `hold` nor a file of finite chunks [N, H, C].
        """
        self._robot = embodiment
        self._chunks = None if address == HOLD else _read(address)
        self._next = itertools.count()
        self.camera_tags = tuple(camera.tag for camera in embodiment.cameras)
        self.state_names: tuple[str, ...] = () if self._chunks is not None else _joints_of(embodiment)
        self.history = History()

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        """The size of the recorded chunks, if it differs from the robot's."""
        wanted = embodiment.chunk_size, len(embodiment.channel_names)
        if self._chunks is None or self._chunks.shape[1:] == wanted:
            return []
        return [f"chunks: the file has {self._chunks.shape[1:]} steps and channels, the robot {wanted}"]

    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        """The next chunk; ValueError if holding position needs a state that the observation lacks."""
        began, robot = time.perf_counter(), self._robot
        if self._chunks is None:
            data = np.tile(self._hold(observation), (robot.chunk_size, 1))
        else:
            number = next(self._next) if seed is None else seed
            data = self._chunks[number % len(self._chunks)]
        return ActionChunk(
            data=data.astype(np.float32),
            channel_names=robot.channel_names,
            period=robot.period,
            control_mode=robot.control_mode,
            embodiment=robot.name,
            instruction=observation.instruction,
            stamp_ns=observation.stamp_ns,
            inference_ms={"total": 1e3 * (time.perf_counter() - began)},
            execution_horizon=max(1, robot.chunk_size // 2),
            tip_poses=observation.tip_poses,
        )

    def _hold(self, observation: Observation) -> np.ndarray:
        """The row [C] that holds the robot's position: zero deltas, waypoints and velocities, else measured values."""
        names, state = self.state_names, observation.state
        if names and (state is None or np.shape(state) != (len(names),)):
            raise ValueError(f"the state must be {len(names)} numbers, got {state!r}")
        positions = {} if state is None else dict(zip(names, np.asarray(state).tolist(), strict=False))
        return np.array([self._value(channel, positions) for channel in self._robot.layout.channels])

    def _value(self, channel: Channel, positions: dict[str, float]) -> float:
        if channel.kind is not ChannelKind.GRIPPER:
            return positions.get(channel.joint, 0.0)
        arm, gripper = next(
            (number, arm.gripper)
            for number, arm in enumerate(self._robot.arms)
            if arm.gripper is not None and channel.arm in ("", arm.name)
        )
        return float(np.clip(self._robot.gripper_from_joint(positions[gripper.joint], arm), 0.0, 1.0))


def _joints_of(embodiment: Embodiment) -> tuple[str, ...]:
    """The state needed to hold position: all joints, if any channel is a joint position."""
    layout = embodiment.layout
    return tuple(embodiment.joint_names) if len(layout.joints) or len(layout.grippers) else ()


def _read(address: str) -> np.ndarray:
    path = Path(address).expanduser()
    if path.suffix != ".npy":
        raise ValueError(f"mock://{address}: give mock://{HOLD}, or the .npy file of recorded chunks")
    chunks = np.load(path)
    if chunks.ndim != 3 or not len(chunks) or not np.issubdtype(chunks.dtype, np.number):
        raise ValueError(f"{path} must contain numbers [N, horizon, channels], got {chunks.dtype} {chunks.shape}")
    if not np.isfinite(chunks).all():
        raise ValueError(f"{path} contains non-finite numbers")
    return chunks
