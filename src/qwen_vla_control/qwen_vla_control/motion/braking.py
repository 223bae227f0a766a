# SPDX-License-Identifier: Apache-2.0
"""Where moving joints are held so that none passes its limit while it brakes.

A controller brakes along the cubic from where a joint is, as fast as it is, to where it is held, at rest. Held where it
is, a joint goes on by 4/27 of the way that it would have gone at its speed, and returns.
"""

from __future__ import annotations

import numpy as np

from qwen_vla_control.motion.joint_path import JointPath

OVERSHOOT = 4 / 27
LEAST_ROOM = 0.003  # of the way at full speed: with less a joint is held no farther back
FARTHEST_BACK = 0.02  # [rad | m]
LATENCIES = np.linspace(0.0, 0.02, 9)  # [s] after which a controller may begin to brake


def braking_position(path: JointPath, elapsed: float, time: float, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Where to hold joints that are on a path.

    Args:
        path: that they follow.
        elapsed: since it began [s].
        time: in which they come to rest [s].
        lower, upper: limits, (joints,) [rad | m].

    Returns:
        (joints,), where they are now, or as far before that as it takes to turn in front of a limit.
    """
    position, _ = path.at(elapsed)
    held = position
    for latency in LATENCIES:
        there, velocity = path.at(elapsed + latency)
        back = held_at(there, velocity, time, lower, upper)
        held = np.where(velocity > 0, np.minimum(held, back), np.where(velocity < 0, np.maximum(held, back), held))
    return np.clip(held, np.minimum(lower, position), np.maximum(upper, position))


def held_at(
    position: np.ndarray, velocity: np.ndarray, time: float, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Where joints at `position` with `velocity` are held so that they turn in front of their limits.

    The cubic turns after the share x of `time`, when it has gone x/2 - x^2/6 of the way at full speed; it ends
    (1/x - 3)/6 of that way behind where it began.
    """
    way = np.abs(velocity) * time
    room = np.where(velocity > 0, upper - position, position - lower)
    share = np.clip(np.divide(room, way, out=np.ones_like(way), where=way > 0), LEAST_ROOM, OVERSHOOT)
    turn = 1.5 - 3 * np.sqrt(0.25 - 2 * share / 3)
    back = np.minimum((1 / turn - 3) / 6 * way, FARTHEST_BACK)
    return position - np.sign(velocity) * back
