"""A policy behind openpi's websocket protocol, our server or another: `openpi://HOST:PORT[,FILE.yaml]`.

A server of ours describes its inputs and outputs itself. Others describe nothing, or little: the file does. Either is
compared with the robot before the first request. The API key is read from the environment, QWEN_VLA_API_KEY.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from embodiment_descriptions import ControlMode, Embodiment
from qwen_vla.policies.chunk_policy import ActionChunk, Observation, PolicyOptions
from qwen_vla.policies.fit import training_misfits
from qwen_vla.policies.openpi_connection import OpenPiConnection
from qwen_vla.serving.messages import describe
from qwen_vla.validation_errors import as_text
from qwen_vla_control.observation.robot_streams import History

KEY = "QWEN_VLA_API_KEY"


class ServerNeeds(BaseModel):
    """Inputs and outputs of a server, in the robot's terms.

    Attributes:
        cameras: the robot's camera tag -> key in the observation. `images.X` is X in the map `images`.
        image_size: height and width to which images are resized, with black borders; None: unchanged.
        channels_first: images are sent 3×H×W.
        state: key in the observation -> joints of its positions, in order.
        prompt: key of the instruction.
        control_mode, channel_names, period, horizon: of the chunks; period in s.
        execution_horizon: rows to execute before the next chunk; None: half of them.
        flipped: channels that the server sends as 1 - x: a gripper that is 1 when closed.
        seeded: whether it accepts `seed`.
        history_frames, history_rate: number of frames of each camera, and their rate [Hz].
        answer_seconds: timeout of a response [s].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cameras: dict[str, str] = Field(min_length=1)
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    channels_first: bool = False
    state: dict[str, tuple[str, ...]] = {}
    prompt: str = "prompt"
    control_mode: ControlMode
    channel_names: tuple[str, ...] = Field(min_length=1)
    period: PositiveFloat
    horizon: PositiveInt
    execution_horizon: PositiveInt | None = None
    flipped: tuple[str, ...] = ()
    seeded: bool = False
    history_frames: PositiveInt = 1
    history_rate: PositiveFloat = 1.0
    answer_seconds: PositiveFloat = 10.0

    @classmethod
    def from_file(cls, path: Path) -> ServerNeeds:
        """Read a YAML file; ValueError names its errors."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; it must define the server's inputs and outputs")
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise ValueError(f"{path}: {as_text(error, 'file')}") from error
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> ServerNeeds:
        """From the metadata of a server of ours; ValueError for those of another."""
        try:
            state = tuple(each["name"] for each in metadata["state"])
            return cls(
                cameras={tag: f"images.{tag}" for tag in metadata["cameras"]},
                state={"state": state} if state else {},
                control_mode=metadata["control_mode"],
                channel_names=tuple(each["name"] for each in metadata["actions"]),
                period=metadata["period"],
                horizon=metadata["horizon"],
                execution_horizon=metadata["execution_horizon"],
                seeded=True,
                history_frames=metadata["history"]["frames"],
                history_rate=metadata["history"]["rate_hz"],
            )
        except (KeyError, TypeError, ValidationError) as error:
            lacking = as_text(error, "metadata") if isinstance(error, ValidationError) else f"no {error}"
            raise ValueError(
                f"the server does not describe its inputs ({lacking}); do so in a file, openpi://HOST:PORT,FILE.yaml"
            ) from error

    @property
    def history(self) -> History:
        """The frames of each camera."""
        return History(self.history_frames, self.history_rate)

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints of the state, in order."""
        return tuple(joint for joints in self.state.values() for joint in joints)


def open_server(address: str, embodiment: Embodiment, options: PolicyOptions) -> ServerPolicy:
    """Connect, and read the server's needs.

    Raises:
        ValueError, FileNotFoundError: no such file, or it or the server's metadata are invalid.
        ConnectionError: no server responds.
    """
    place, _, file = address.partition(",")
    needs = ServerNeeds.from_file(Path(file).expanduser()) if file else None
    connection = OpenPiConnection(place, os.environ.get(KEY, ""))
    connection.open()
    if needs is not None:
        return ServerPolicy(connection, needs, embodiment)
    kind = ContinuingServerPolicy if connection.metadata.get("continues") is True else ServerPolicy
    return kind(connection, ServerNeeds.from_metadata(connection.metadata), embodiment)


class ServerPolicy:
    """Requests each chunk, and trusts no response: shape and values are checked here, motion by the gate."""

    def __init__(self, connection: OpenPiConnection, needs: ServerNeeds, embodiment: Embodiment) -> None:
        self._connection, self._needs, self._robot = connection, needs, embodiment
        self.camera_tags = tuple(needs.cameras)
        self.state_names = needs.joints
        self.history = needs.history

    def misfits(self, embodiment: Embodiment) -> Sequence[str]:
        """Differences between the server's robot and this one, a phrase each."""
        named = self._connection.metadata.get("embodiment", embodiment.name)
        other = [f"robot: the server drives {named}, this is {embodiment.name}"] if named != embodiment.name else []
        unknown = set(self._needs.flipped) - set(self._needs.channel_names)
        return [
            *other,
            *training_misfits(self._needs, embodiment),
            *(f"flipped: {name} is not a channel" for name in unknown),
        ]

    def infer(self, observation: Observation, seed: int | None = None) -> ActionChunk:
        """The next chunk.

        Raises:
            ConnectionError, TimeoutError: the server is gone or does not respond in time; the next call reconnects.
            ValueError: it refuses the observation, or the observation lacks something.
            ArithmeticError: its response is not a chunk of this robot.
        """
        return self._chunk(observation, self._fields(observation, seed))

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def _chunk(self, observation: Observation, fields: Mapping[str, Any]) -> ActionChunk:
        began, needs = time.perf_counter(), self._needs
        answer = self._connection.ask(fields, needs.answer_seconds)
        data = self._actions(answer)
        return ActionChunk(
            data=data,
            channel_names=needs.channel_names,
            period=needs.period,
            control_mode=needs.control_mode,
            embodiment=self._robot.name,
            instruction=observation.instruction,
            stamp_ns=observation.stamp_ns,
            inference_ms={"total": 1e3 * (time.perf_counter() - began)},
            execution_horizon=min(needs.execution_horizon or max(1, needs.horizon // 2), len(data)),
            tip_poses=observation.tip_poses,
            inference_delay=self._delay(answer),
        )

    def _fields(self, observation: Observation, seed: int | None) -> dict[str, Any]:
        needs, fields = self._needs, {self._needs.prompt: observation.instruction}
        for tag, key in needs.cameras.items():
            if observation.images.get(tag) is None:
                raise ValueError(f"the observation lacks the image of {tag}")
            _put(fields, key, self._image(np.asarray(observation.images[tag])))
        if needs.joints and np.shape(observation.state) != (len(needs.joints),):
            raise ValueError(f"the state must be {len(needs.joints)} numbers, got {describe(observation.state)}")
        start = 0
        for key, joints in needs.state.items():
            _put(fields, key, np.asarray(observation.state[start : start + len(joints)], np.float32))
            start += len(joints)
        if seed is not None and needs.seeded:
            fields["seed"] = seed
        return fields

    def _image(self, image: np.ndarray) -> np.ndarray:
        """An image H×W×3, or a history of them, in the server's format."""
        if image.ndim == 4:
            return np.stack([self._image(frame) for frame in image])
        if self._needs.image_size:
            image = with_borders(image, self._needs.image_size)
        return np.ascontiguousarray(image.transpose(2, 0, 1)) if self._needs.channels_first else image

    def _actions(self, answer: Mapping[str, Any]) -> np.ndarray:
        """The chunk [H, C] of a response; ArithmeticError if it is not one."""
        wanted, actions = (self._needs.horizon, len(self._needs.channel_names)), answer.get("actions")
        if not isinstance(actions, np.ndarray) or actions.shape != wanted:
            raise ArithmeticError(f"{self._connection}: actions must be {list(wanted)}, got {describe(actions)}")
        if not np.isfinite(actions).all():
            raise FloatingPointError(f"{self._connection} sent actions that are not finite")
        data = actions.astype(np.float32)
        columns = [self._needs.channel_names.index(name) for name in self._needs.flipped]
        data[:, columns] = 1 - data[:, columns]
        return data

    def _delay(self, answer: Mapping[str, Any]) -> int:
        """Leading rows that repeat what was being executed."""
        delay = answer.get("inference_delay", 0)
        if type(delay) is not int or not 0 <= delay <= self._needs.horizon:
            raise ArithmeticError(f"inference_delay must be 0 to {self._needs.horizon}, got {describe(delay)}")
        return delay


class ContinuingServerPolicy(ServerPolicy):
    """A server of ours, which can continue a chunk."""

    def continue_chunk(
        self,
        observation: Observation,
        previous_chunk: ActionChunk,
        inference_delay: int | None = None,
        execution_horizon: int | None = None,
        *,
        consumed: int | None = None,
        schedule: str = "exponential",
        seed: int | None = None,
    ) -> ActionChunk:
        """See `ContinuingPolicy`; errors as in `infer`."""
        if consumed is None:
            consumed = round((observation.stamp_ns - previous_chunk.stamp_ns) * 1e-9 / self._needs.period)
        given = {
            "previous_chunk": np.asarray(previous_chunk.data, np.float32),
            "previous_tip_poses": _by_arm(previous_chunk.tip_poses),
            "tip_poses": _by_arm(observation.tip_poses),
            "consumed": consumed,
            "inference_delay": inference_delay,
            "execution_horizon": execution_horizon,
            "schedule": schedule,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return self._chunk(observation, self._fields(observation, seed) | given)


def _by_arm(poses: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    return {arm: np.asarray(pose, np.float64) for arm, pose in poses.items()} if poses else None


def with_borders(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image resized with its aspect ratio kept by black borders, as in the training of openpi's models."""
    height, width = image.shape[:2]
    share = min(size[0] / height, size[1] / width)
    inner = max(1, round(share * height)), max(1, round(share * width))
    smaller = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR)
    whole = np.zeros((*size, 3), image.dtype)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    whole[top : top + inner[0], left : left + inner[1]] = smaller
    return whole


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    """Set a key; one with a dot, in the map named before it."""
    outer, point, inner = key.partition(".")
    if point:
        fields.setdefault(outer, {})[inner] = value
    else:
        fields[key] = value
