# SPDX-License-Identifier: Apache-2.0
"""From the streams of policy_node to the policy's input: selected, decoded, in its order. Free of rclpy."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embodiment_descriptions import Kinematics
from qwen_vla.policies import Observation as PolicyObservation
from qwen_vla_control.observation.streams import Observation, Waiting
from qwen_vla_control.observation.tip_poses import tip_poses

if TYPE_CHECKING:
    from qwen_vla_ros.policy.camera_subscriptions import ObservationSubscriptions


class ObservationReader:
    """Used in the inference thread, while callbacks store messages in the streams."""

    def __init__(
        self,
        subscriptions: ObservationSubscriptions,
        state_names: Sequence[str],
        tip_kinematics: Sequence[Kinematics],
        changed: threading.Condition,
    ) -> None:
        """Prepare.

        Args:
            subscriptions: those that feed the streams.
            state_names: joints whose positions are the policy's state, in order.
            tip_kinematics: of every arm, for a policy that continues end-effector deltas; otherwise empty.
            changed: guards the streams.
        """
        self._subscriptions, self._state_names = subscriptions, tuple(state_names)
        self._tip_kinematics, self._changed = tuple(tip_kinematics), changed

    def select(self, now_ns: int, not_before_ns: int, history_from_ns: int) -> Observation | Waiting:
        """Select the messages of one observation, with `changed` held. See ObservationStreams.select."""
        return self._subscriptions.select(now_ns, not_before_ns, history_from_ns)

    def read(self, observation: Observation, instruction: str, refusals: int = 0) -> PolicyObservation:
        """Decode the selected images, and put the joints in the order of the policy's state.

        refusals: of the policy's latest chunks, see `PolicyObservation`.

        Raises:
            DecodingError, NotObserved: an image cannot be decoded, or the tip poses at its time are unknown.
        """
        images = self._subscriptions.decode(observation)
        state = np.array([observation.joints[name] for name in self._state_names]) if self._state_names else None
        tips = self._tips(observation.stamp_ns)
        return PolicyObservation(images, instruction, observation.stamp_ns, state, tips, refusals)

    def _tips(self, stamp_ns: int) -> dict[str, np.ndarray] | None:
        if not self._tip_kinematics:
            return None
        with self._changed:
            return tip_poses(self._subscriptions.streams.joints, self._tip_kinematics, stamp_ns)
