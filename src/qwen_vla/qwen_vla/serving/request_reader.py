# SPDX-License-Identifier: Apache-2.0
"""Validates a client's fields, one by one, against the needs of the served policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qwen_vla.serving.messages import LONGEST_SIDE, RequestError, describe
from qwen_vla.serving.request import Previous
from qwen_vla.serving.served_policy import ServedPolicy

LONGEST_TEXT = 4096  # characters
LARGEST_SEED = 2**63 - 1
SCHEDULES = ("exponential", "linear", "ones", "zeros")


class RequestReader:
    """Reads values of a client's fields; each method raises RequestError naming the invalid field."""

    def __init__(self, served: ServedPolicy) -> None:
        self._served = served

    def images(self, given: Mapping[str, tuple[str, Any]]) -> dict[str, np.ndarray]:
        """Images by camera, of camera -> (field, value); all cameras of the policy, and no others."""
        wanted, names = self._served.cameras, self._served.camera_names
        given = {names.get(name, name): value for name, value in given.items()}
        unknown = [field for tag, (field, _) in given.items() if tag not in wanted]
        if unknown:
            raise RequestError(f"{unknown[0][:80]}: no such camera; the policy needs {', '.join(wanted)}")
        missing = [tag for tag in wanted if tag not in given]
        if missing:
            raise RequestError(f"images.{missing[0]}: missing; the policy needs {', '.join(wanted)}")
        return {tag: self._image(*given[tag]) for tag in wanted}

    def _image(self, field: str, value: Any) -> np.ndarray:
        frames = self._served.history.frames
        history = f" or T×H×W×3 with T up to {frames}" if frames > 1 else ""
        right = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (3, 4)
        if not right or value.shape[-1] != 3:
            raise RequestError(f"{field}: an image must be H×W×3{history}, uint8 RGB; got {describe(value)}")
        if value.ndim == 4 and not 1 <= value.shape[0] <= frames:
            raise RequestError(f"{field}: the policy accepts 1 to {frames} frames of a camera, got {value.shape[0]}")
        if not all(1 <= side <= LONGEST_SIDE for side in value.shape[-3:-1]):
            raise RequestError(f"{field}: an image must be 1 to {LONGEST_SIDE} pixels wide and high, got {value.shape}")
        return value

    def state(self, field: str, value: Any) -> np.ndarray | None:
        """The state (n,); None if the policy reads none, regardless of the input."""
        names = self._served.state_names
        if not names:
            return None
        if value is None:
            raise RequestError(f"{field}: missing; the policy reads {len(names)} numbers: {', '.join(names)}")
        return self.numbers(field, value, (len(names),))

    def numbers(self, field: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Finite float64 of a given shape, from an array or nested lists."""
        try:
            numbers = np.array(value, np.float64)
        except (ValueError, TypeError, OverflowError):
            raise RequestError(f"{field}: must be numbers {list(shape)}, got {describe(value)}") from None
        if numbers.shape != shape:
            raise RequestError(f"{field}: must be numbers {list(shape)}, got shape {list(numbers.shape)}")
        if not np.isfinite(numbers).all():
            raise RequestError(f"{field}: must be finite")
        return numbers

    def text(self, field: str, value: Any) -> str:
        """A non-empty string."""
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_TEXT:
            raise RequestError(
                f"{field}: must be a non-blank string of at most {LONGEST_TEXT} characters, got {describe(value)}"
            )
        return value

    def instruction(self, field: str, value: Any) -> str:
        """An instruction that the policy accepts."""
        text = self.text(field, value)
        try:
            self._served.check_instruction(text)
        except ValueError as error:
            raise RequestError(f"{field}: {error}") from error
        return text

    def choice(self, field: str, value: Any, choices: Sequence[str]) -> str:
        """One of several strings."""
        if not isinstance(value, str) or value not in choices:
            raise RequestError(f"{field}: must be {', '.join(choices)}; got {describe(value)}")
        return value

    def number(self, field: str, value: Any, most: int) -> int | None:
        """A non-negative integer, or None if there is none."""
        if isinstance(value, np.integer):
            value = int(value)
        if value is not None and (type(value) is not int or not 0 <= value <= most):
            raise RequestError(f"{field}: must be an integer from 0 to {most}, got {describe(value)}")
        return value

    def seed(self, value: Any) -> int | None:
        """The seed of the noise."""
        return self.number("seed", value, LARGEST_SEED)

    def tip_poses(self, field: str, value: Any) -> dict[str, np.ndarray] | None:
        """Poses (4, 4) by arm: a map, or the pose itself if the robot has one arm."""
        arms = self._served.arms
        if value is None or not arms:
            return None
        if len(arms) == 1 and not isinstance(value, Mapping):
            value = {arms[0]: value}
        if not isinstance(value, Mapping) or set(value) != set(arms):
            raise RequestError(f"{field}: must be a pose for each arm, {', '.join(arms)}; got {describe(value)}")
        return {arm: self.numbers(f"{field}.{arm}".rstrip("."), value[arm], (4, 4)) for arm in arms}

    def previous(self, fields: Mapping[str, Any]) -> Previous | None:
        """The chunk to continue; None if there is none."""
        if fields.get("previous_chunk") is None:
            return None
        if not self._served.continues:
            raise RequestError("previous_chunk: this policy cannot continue chunks; omit the field")
        rows, columns = self._served.chunk_shape
        consumed = self.number("consumed", fields.get("consumed"), rows)
        if consumed is None:
            raise RequestError("consumed: missing; give the number of rows of previous_chunk before the observation")
        return Previous(
            self.numbers("previous_chunk", fields["previous_chunk"], (rows, columns)).astype(np.float32),
            self.tip_poses("previous_tip_poses", fields.get("previous_tip_poses")),
            consumed,
            self.number("inference_delay", fields.get("inference_delay"), rows),
            self.number("execution_horizon", fields.get("execution_horizon"), rows),
            self.choice("schedule", fields.get("schedule", SCHEDULES[0]), SCHEDULES),
        )
