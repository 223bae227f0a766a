# SPDX-License-Identifier: Apache-2.0
"""Where the controllers would start from, and how that reference is brought back to where the joints are.

A JointTrajectoryController starts at its own reference, whoever has moved its joints since. The reference is what the
controller publishes on ~/controller_state; where that is not available, the last command.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.angles import nearest_turn
from qwen_vla_control.gate import ArmGate, Reference, Violation
from qwen_vla_control.gate.joint_rules import check_reference
from qwen_vla_control.motion.command_state import CommandState
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason
from qwen_vla_ros.executor.controller_restart import ControllerRestart, Done
from qwen_vla_ros.executor.controller_watch import ControllerWatch
from qwen_vla_ros.ros.lifecycle import ManagedNode

MOVED = 0.02  # [rad] by which a joint may move at rest before somebody must have moved it
NOT_FOLLOWED = 0.02  # [rad] after joints did not follow, they must be this near to their reference
IN_SYNC = 0.005  # [rad] reference and measurement this near to one another are left alone
SHORTEST_MOVE = 1.0  # [s]
LAST_COMMAND = "its last command"

Measure = Callable[[], np.ndarray | None]
Move = Callable[[JointPath], object]


class ControllerReference:
    """The reference of all controllers of a robot with arms.

    Vectors are (joints,) [rad | m], in the order of the gate. Grippers are not compared: an object keeps them
    from the commanded opening.

    Attributes:
        not_followed: joints did not follow their commands, or their reference was not seen to arrive; that of
            controllers that publish no state is unknown.
        interpolated: (joints,) of arms and waist, whose controllers begin at references of their own.
        rested: (joints,) where the joints have come to rest since the last command, None until they have.
    """

    def __init__(
        self,
        node: ManagedNode,
        embodiment: Embodiment,
        gate: ArmGate,
        commanded: CommandState,
        streamed: Collection[str],
        measure: Measure,
    ) -> None:
        """Subscribe to the controllers' states.

        Args:
            node: owner of subscriptions and clients; home_speed_share of its parameters limits how fast a reference
                is moved.
            embodiment: the robot.
            gate: checks paths.
            commanded: what was commanded last; changed where it is no longer what a controller starts from.
            streamed: joints whose devices start where the first set-point is.
            measure: returns where the joints are, None when that is unknown.
        """
        self._gate, self._commanded, self._measure = gate, commanded, measure
        self._parameters, self._clock = node.parameters, node.get_clock()
        self._controllers = ControllerWatch(node, embodiment)
        self._restart = ControllerRestart(node, (c.manager for c in self._controllers.controllers.values()))
        self._is_compared = np.isfinite(gate.motion.start_jump)
        self._is_continuous = np.array([embodiment.limits[name].type == "continuous" for name in gate.joints])
        self.interpolated = self._is_compared & np.array([name not in streamed for name in gate.joints])
        self.rested: np.ndarray | None = None
        self.not_followed = False

    # What is known ------------------------------------------------------------------------------------------------

    def reference(self, measured: np.ndarray) -> Reference:
        """Where the controllers would start from; as far as nobody knows, where the joints are `measured`."""
        motion = self._commanded.motion
        if motion is not None:
            commanded, _ = motion.commanded(self._clock.now().nanoseconds)
            return Reference(commanded, ("commanded now",) * len(measured))
        last, sources = self._commanded.last, [LAST_COMMAND] * len(measured)
        positions = measured.copy() if last is None else last.copy()
        for joint, (position, who) in self._controllers.references().items():
            if joint in self._gate.joints:
                column = self._gate.joints.index(joint)
                positions[column], sources[column] = position, who
        positions = np.where(self._is_continuous, nearest_turn(positions, measured), positions)
        # A gripper that presses against its stop is measured slightly beyond its limit; it is not commanded there.
        within = np.clip(positions, self._gate.motion.lower, self._gate.motion.upper)
        positions = np.where(self._is_compared, positions, within)
        return Reference(positions, tuple(sources))

    def check(self, measured: np.ndarray) -> list[Violation]:
        """Check that controllers at rest would start where the joints are `measured`."""
        reference = self.reference(measured)
        silent = [who == LAST_COMMAND for who in reference.sources]
        if self.not_followed and any(silent & self.interpolated):
            text = (
                "joints did not follow their last commands, or ~/resynchronize was interrupted, and their controllers "
                "do not publish where they would start from; check the robot, then call ~/resynchronize"
            )
            return [Violation(Reason.REFERENCE_MISMATCH, text)]
        motion = self._gate.motion
        if self.not_followed:  # what they lag behind now, they would make up at once
            motion = replace(motion, start_jump=np.minimum(motion.start_jump, NOT_FOLLOWED))
        return check_reference(reference, measured, motion) or self._moved_at_rest(measured)

    def _moved_at_rest(self, measured: np.ndarray) -> list[Violation]:
        """Servos stand somewhat beside their references; a joint that moves without a command was moved."""
        if self.rested is None:
            return []
        moved = np.where(self.interpolated, np.abs(measured - self.rested), 0.0)
        joint = int(np.argmax(moved))
        if moved[joint] <= MOVED:
            return []
        text = (
            f"joint '{self._gate.joints[joint]}' has moved by {moved[joint]:.4f} without a command since it came to "
            f"rest at {self.rested[joint]:.4f} (limit {MOVED:.4f}); was it moved by hand, or is the measurement wrong? "
            "Look at the robot, then call ~/resynchronize"
        )
        return [Violation(Reason.REFERENCE_MISMATCH, text)]

    def forget(self) -> None:
        """Take the joints as they stand next."""
        self.rested, self.not_followed = None, False

    def inactive(self) -> list[str]:
        """Why controllers execute nothing; empty when all do."""
        return self._controllers.problems()

    @property
    def restarting(self) -> bool:
        """Whether controllers are being restarted."""
        return self._restart.busy

    # Bringing both together ---------------------------------------------------------------------------------------

    def resynchronize(self, measured: np.ndarray, move: Move, done: Done) -> str:
        """Make controllers at rest start where the joints are.

        Args:
            measured: where the joints are.
            move: starts a path that takes the references there, or raises Refused.
            done: called with the outcome where controllers are restarted.

        Returns:
            What was done.

        Raises:
            Refused: the gate refuses a path from the reference to there.
        """
        self.rested, reference = None, self.reference(measured).positions
        apart = ((np.abs(reference - measured) > IN_SYNC) | self.not_followed) & self._is_compared
        if not apart.any():
            return "the controllers start where the joints are measured; nothing was done"
        self._take_as_measured(apart & ~self.interpolated, measured)
        reference = np.where(apart & ~self.interpolated, measured, reference)
        moved = [name for name, hit in zip(self._gate.joints, apart & self.interpolated, strict=True) if hit]
        if not moved:
            self.not_followed = False
            return "the devices take set-points one by one: the next motion starts where the joints are"
        controllers = [c for c in self._controllers.controllers.values() if set(c.joints) & set(moved)]
        names, joints = ", ".join(c.name for c in controllers) or "the devices", ", ".join(moved)
        known = {joint for controller in controllers for joint in controller.joints}
        if known >= set(moved) and self._restart.can(controllers):
            self._restart.restart(controllers, partial(self._restarted, names, apart, done))
            return f"deactivating and activating {names}, so that it starts where {joints} are measured"
        # The goal of a joint that is measured slightly beyond a limit is the limit.
        within = np.clip(measured, self._gate.motion.lower, self._gate.motion.upper)
        seconds = self._move(reference, np.where(apart, within, reference), move)
        return (
            f"moving the reference of {names} to where {joints} are measured, in {seconds:.1f} s, because no "
            "controller manager is there to restart it"
        )

    def _move(self, reference: np.ndarray, goal: np.ndarray, move: Move) -> float:
        """Move the reference slowly; returns how long that takes [s]."""
        share = self._parameters.home_speed_share
        checked = self._gate.slow_path(reference, goal, share, "to where the joints are measured")
        # One step: the controller interpolates to it from wherever it really starts.
        ends, seconds = np.stack([reference, goal]), max(checked.duration, SHORTEST_MOVE)
        move(JointPath.through(self._gate.joints, ends, seconds))
        self.not_followed = False
        return seconds

    def _restarted(self, names: str, columns: np.ndarray, done: Done, succeeded: bool, why: str) -> None:
        measured = self._measure()
        if succeeded and measured is not None:
            self._take_as_measured(columns, measured)
            self.not_followed = False
        done(succeeded, f"{names} was deactivated and activated" if succeeded else why)

    def _take_as_measured(self, columns: np.ndarray, measured: np.ndarray) -> None:
        if self._commanded.last is not None:
            self._commanded.stand(np.where(columns, measured, self._commanded.last))

    def destroy(self) -> None:
        """Destroy subscriptions and clients."""
        self._controllers.destroy()
        self._restart.destroy()
