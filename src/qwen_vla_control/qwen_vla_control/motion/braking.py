# SPDX-License-Identifier: Apache-2.0
"""Where moving joints are held so that none passes its limit while it brakes.

A controller brakes along the cubic from where a joint is, as fast as it is, to where it is held, at rest. Held where it
is, a joint goes on by 4/27 of the way that it would have gone at its speed, and returns.
"""

from __future__ import annotations

import numpy as np

from qwen_vla_control.motion.joint_path import JointPath

NO_TURN = 1 / 3  # of the way at full speed: with so much room a joint is held at most at its limit
LEAST_ROOM = 0.003  # of that way: with less a joint is held no farther back
FARTHEST_BACK = 0.2  # [rad/s | m/s] times the time to brake: from where it is that a joint is held
# A controller may have received the path late, and the order to hold comes later still. No longer: what a gripper took
# hold of before must not be let go.
LATENCIES = np.linspace(-0.1, 0.05, 61)  # [s]
# A cubic that begins at the speed limit v and ends at rest a distance d behind is at most 1.5 d/time + v/3 fast.
RETURN = 2.25  # d/v in which it stays below v


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
    there, velocities = path.sampled(elapsed + LATENCIES)
    bounds = farthest_turning(there, velocities, time, lower, upper)
    held = np.minimum(position, np.where(velocities > 0, bounds, np.inf).min(axis=0))
    held = np.maximum(held, np.where(velocities < 0, bounds, -np.inf).max(axis=0))
    held = np.clip(held, position - FARTHEST_BACK * time, position + FARTHEST_BACK * time)
    return np.clip(held, np.minimum(lower, position), np.maximum(upper, position))


def time_to_hold(away: np.ndarray, speed: np.ndarray, time: float) -> float:
    """In which time joints come to rest, so that none is too fast wherever its controller begins.

    Args:
        away: between where they are held and where they are measured: a controller that was activated again begins
            there, another one where it was commanded. (joints,) [rad | m].
        speed: limits, (joints,) [rad/s | m/s].
        time: at least [s].
    """
    return max(time, float(np.max(RETURN * away / speed, initial=0.0)))


def farthest_turning(
    position: np.ndarray, velocity: np.ndarray, time: float, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """The farthest that joints at `position` with `velocity`, (..., joints), may be held to turn before their limits.

    The cubic turns after the share x of `time`, when it has gone x/2 - x^2/6 of the way at full speed; it ends
    (1/x - 3)/6 of that way behind where it began.
    """
    way = np.abs(velocity) * time
    room = np.where(velocity > 0, upper - position, position - lower)
    share = np.divide(room, way, out=np.ones_like(way), where=way > 0)
    turn = 1.5 - 3 * np.sqrt(0.25 - 2 * np.clip(share, LEAST_ROOM, NO_TURN) / 3)
    ahead = np.where(share < NO_TURN, (3 - 1 / turn) / 6 * way, room)
    return position + np.sign(velocity) * ahead
