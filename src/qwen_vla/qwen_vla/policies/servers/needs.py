# SPDX-License-Identifier: Apache-2.0
"""What a server reads and returns, in the robot's terms: read from a YAML file, or from the server's metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from embodiment_descriptions import ControlMode
from embodiment_descriptions.yaml_files import read_yaml
from qwen_vla.errors.validation_errors import as_text
from qwen_vla_control.observation.robot_streams import History


def _nonzero(scale: float) -> float:
    if scale == 0:
        raise ValueError("the scale of a unit must not be 0")
    return scale


class Unit(BaseModel):
    """The server's unit: it reads and sends scale · x + offset, where x is in the robot's unit (rad, m, open = 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Annotated[FiniteFloat, AfterValidator(_nonzero)] = 1.0
    offset: FiniteFloat = 0.0


class ServerNeeds(BaseModel):
    """Inputs and outputs of a server.

    Attributes:
        cameras: the robot's camera tag -> the server's key.
        image_size: height and width to which images are resized, with black borders; None: unchanged.
        state: the server's key -> joints of its positions, in order.
        prompt: key of the instruction.
        state_units, action_units: joint or channel -> the server's unit, where it is not the robot's.
        control_mode, period, horizon: of the chunks; period in s.
        execution_horizon: rows to execute before the next chunk; None: half of them.
        history_frames, history_rate: number of frames of each camera, and their rate [Hz].
        answer_seconds: timeout of a response [s].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cameras: dict[str, str] = Field(min_length=1)
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    state: dict[str, tuple[str, ...]] = {}
    prompt: str = "prompt"
    state_units: dict[str, Unit] = {}
    action_units: dict[str, Unit] = {}
    control_mode: ControlMode
    period: PositiveFloat
    horizon: PositiveInt
    execution_horizon: PositiveInt | None = None
    history_frames: PositiveInt = 1
    history_rate: PositiveFloat = 1.0
    answer_seconds: PositiveFloat = 10.0

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a YAML file; ValueError names its errors."""
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; it must define the server's inputs and outputs")
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise ValueError(f"{path}: {as_text(error, 'file')}") from error
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error

    @property
    def history(self) -> History:
        """The frames of each camera."""
        return History(self.history_frames, self.history_rate)

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints of the state, in order."""
        return tuple(joint for joints in self.state.values() for joint in joints)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels of a chunk, in order; each protocol has its own field for them."""
        raise NotImplementedError

    def sent_state(self, positions: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Key and float32 positions, in the server's units, of each part of a state (n,) [rad | m]."""
        start = 0
        for key, joints in self.state.items():
            scale, offset = _factors(joints, self.state_units)
            yield key, (scale * positions[start : start + len(joints)] + offset).astype(np.float32)
            start += len(joints)

    def received_chunk(self, sent: np.ndarray) -> np.ndarray:
        """A chunk [H, C] in the robot's units, float32."""
        scale, offset = _factors(self.channel_names, self.action_units)
        return ((sent - offset) / scale).astype(np.float32)


def _factors(names: Sequence[str], known: Mapping[str, Unit]) -> tuple[np.ndarray, np.ndarray]:
    """Scales and offsets of joints or channels."""
    units = [known.get(name, Unit()) for name in names]
    return np.array([unit.scale for unit in units]), np.array([unit.offset for unit in units])
