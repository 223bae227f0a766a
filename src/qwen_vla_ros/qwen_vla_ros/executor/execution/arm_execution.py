# SPDX-License-Identifier: Apache-2.0
"""Execution of joint paths. Owns what only joints have: handover between chunks, and whether they follow.

Where a motion starts is defined in ControllerReference.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import ArmGate, Reference, RobotState, Violation
from qwen_vla_control.gate.chunk_handover import ChunkHandover
from qwen_vla_control.motion.blending import Blender, Blending, CrossFade
from qwen_vla_control.motion.braking import braking_position, time_to_hold
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.motion.following import FollowingWatch
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.plausibility import JointStatePlausibility
from qwen_vla_control.reasons import Reason, Refused, refuse_if
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_ros.executor.controller_reference import ControllerReference
from qwen_vla_ros.executor.controller_restart import Done
from qwen_vla_ros.executor.execution.execution import Execution, Held, Source
from qwen_vla_ros.executor.executor_parameters import JOINT_STATES
from qwen_vla_ros.ros.lifecycle import ManagedNode
from qwen_vla_ros.ros.publishers import count_on, publisher_name

RESYNCHRONIZATION = "resynchronization"
REST = 0.2  # [s] within which a joint at rest ...
STILL = 0.01  # ... moves by no more than this [rad | m]


class ArmExecution(Execution[JointPath, JointReader, JointStatePlausibility]):
    """Moves the joints of arms, grippers and waist; a stop holds them at their commanded position.

    Every command starts at the reference of the controllers, not at the measured position: a JointTrajectoryController
    starts there, whoever has moved the arm since.
    """

    age_name = "joint state age [s]"

    def __init__(self, node: ManagedNode, embodiment: Embodiment) -> None:
        """Create gate, reader and command interfaces; see Execution."""
        p, gate = node.parameters, ArmGate(embodiment)
        grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
        is_gripper = np.array([name in grippers for name in gate.joints])
        state = JointReader(embodiment, gate.joints, node.resolve_topic_name, p.joint_state_timeout)
        graph = partial(publisher_name, node), partial(count_on, node)
        plausibility = JointStatePlausibility(state, embodiment, *graph)
        super().__init__(node, embodiment, gate, state, plausibility)
        self.moves = ", ".join(gate.joints)
        self.sources = tuple(
            Source(JOINT_STATES, source.topic, partial(self._take, index))
            for index, source in enumerate(embodiment.joint_states)
        )
        self._following = FollowingWatch(np.where(is_gripper, np.inf, p.following_tolerance))
        streamed = self.commands.streamed
        self._controllers = ControllerReference(node, embodiment, gate, self._commanded, streamed, self._known)
        self._limits, self._speeds = (gate.motion.lower, gate.motion.upper), gate.motion.speed
        self._stands_ns = 0
        self._hand_over: ChunkHandover | None = None
        if self.overlaps:
            blender = Blender(Blending(p.blending), ~is_gripper, CrossFade(p.cross_fade), p.ensembling_decay)
            self._hand_over = ChunkHandover(gate, blender, self._now)

    # Where it is, and where it starts -------------------------------------------------------------------------------

    def _known(self) -> np.ndarray | None:
        return None if self.lost() else self._state.latest().vector

    def _take(self, index: int, message: Any, steady_ns: int, publisher: bytes) -> None:
        before = self._state.latest()
        if self._state.take(index, message, steady_ns, publisher):
            self._plausibility.record(before, self._state.sources[index].topic, publisher)

    def reference(self, measured: np.ndarray) -> Reference:
        """Where the controllers would start from; as far as nobody knows, where the joints are `measured` (joints,)."""
        return self._controllers.reference(measured)

    def mismatch(self) -> Violation | None:
        """Say which joint at rest is not where its controller would start from."""
        measured = self._known()
        if self.motion is not None or measured is None:
            return None
        return next(iter(self._controllers.check(measured)), None)

    def settle(self) -> None:
        """At rest, note where the joints have come to rest."""
        super().settle()
        if self._controllers.rested is None and not self.lost() and not self._motion_at_rest():
            self._controllers.rested = self._state.latest().vector.copy()

    def forget(self) -> None:
        """Forget what was commanded: the robot is taken as it stands next."""
        super().forget()
        self._controllers.forget()
        self._following.end()
        self._stands_ns = 0

    def resynchronize(self, done: Done) -> str:
        """Bring together where the controllers start and where the joints are; see Execution."""
        measured = self._measured()
        if moving := self._motion_at_rest():  # a controller that is restarted then would brake them at once
            raise Refused.because(Reason.NOT_ACTIVE, moving)
        self._following.end()
        return self._controllers.resynchronize(measured, partial(self.begin, chunk=None, name=RESYNCHRONIZATION), done)

    def _newest(self) -> tuple[np.ndarray, int]:
        """Where the joints are (joints,), and the oldest stamp of that [ns]."""
        sample = self._state.latest()
        return sample.vector, int(sample.stamps_ns[: len(sample.vector)].min())

    def _motion_at_rest(self) -> str:
        """Why the joints are not known to rest; empty when they are.

        A joint that lags behind may turn, and so stand for a moment, before it reaches where the motion ended.
        """
        latest, stamp_ns = self._newest()
        since_ns = stamp_ns - int(REST * NANOSECONDS)
        if since_ns < self._stands_ns:
            return f"the last motion ended less than {REST:.1f} s ago; wait until it rests"
        try:
            earlier = self._state.at(since_ns, self._parameters.max_anchor_gap)
        except Refused as refused:
            return str(refused)
        moved = np.abs(latest - earlier.vector)
        joint = int(np.argmax(moved))
        if moved[joint] <= STILL:
            return ""
        text = f"joint '{self.gate.joints[joint]}' has moved by {moved[joint]:.4f} in the last {REST:.1f} s"
        return f"{text} (limit {STILL:.4f}); wait until it rests"

    # Whether it is executed -----------------------------------------------------------------------------------------

    def unready(self) -> list[str]:
        """Why nothing would be executed now."""
        restarting = ["controllers are being restarted"] if self._controllers.restarting else []
        return super().unready() + self._controllers.inactive() + restarting

    def fault(self) -> str:
        """Say why what was sent is not being executed; empty when it is."""
        return "; ".join(filter(None, [super().fault(), *self._controllers.inactive()]))

    def not_following(self) -> Violation | None:
        """Which joint does not go where it is commanded."""
        vector, stamp_ns = self._newest()
        return self._noted(self._following.fault(vector, stamp_ns))

    def unfinished(self) -> Violation | None:
        """Which joint has not gone its way."""
        return self._noted(self._following.unfinished(*self._newest()))

    def _noted(self, not_followed: Violation | None) -> Violation | None:
        self._controllers.not_followed |= not_followed is not None
        return not_followed

    # What it does ---------------------------------------------------------------------------------------------------

    def home_path(self) -> JointPath:
        """Plan the motion to the home pose; see Execution."""
        measured = self._measured()
        self._check_start(measured)
        return self.gate.home_path(self.reference(measured).positions, self._parameters.home_speed_share)

    def _path_of(self, chunk: Chunk, state: RobotState) -> JointPath:
        if state.motion is None:
            self._check_start(state.measured)
        return (self._hand_over or self.gate).decide(chunk, state).path

    def _check_start(self, measured: np.ndarray) -> None:
        """Raise Refused where joints at rest have not gone their way, or are not where their controllers start."""
        unfinished = self.unfinished()
        refuse_if([unfinished] if unfinished else self._controllers.check(measured))

    def _began(self, motion: Motion[JointPath]) -> None:
        self._controllers.rested = None
        if motion.name == RESYNCHRONIZATION:
            self._following.end()
        else:
            self._following.begin(motion.path, motion.start_ns, self._state.latest().vector)
        if self._hand_over is not None and motion.chunk is not None:
            self._hand_over.began(motion.path, motion.start_ns)

    def finish(self, now_ns: int) -> None:
        """Record that the motion is complete; the next chunk starts at rest."""
        super().finish(now_ns)
        self._stand(now_ns)

    def hold(self, at_ns: int | None = None) -> Held:
        """Hold at the commanded position, or just before it where a joint would pass its limit while it brakes.

        At rest nothing is sent: a command could only set the joints in motion. Joints that do not follow are held where
        they are measured: their controller may have been activated again, and begins there.
        """
        now, motion = self._now(), self.motion
        strayed = self._strayed()
        self._following.end()
        self._stand(now)
        if motion is None:
            return Held("no motion was in progress; nothing was sent", None, self._stop_all(None))
        elapsed = ((now if at_ns is None else at_ns) - motion.start_ns) / NANOSECONDS
        time = self._parameters.hold_time
        if motion.name == RESYNCHRONIZATION:
            return self._let_arrive(motion.path, max(time, motion.path.duration - elapsed))
        positions, time = self._standing(motion.path, elapsed, strayed)
        failures = self._stop_all(JointPath.standing(self.gate.joints, positions, time))
        names = ", ".join(itertools.compress(self.gate.joints, strayed))
        but = f"; {names}: did not follow, held where measured" if names else ""
        return Held(f"holding the last commanded position{but}", self._commanded.stand(positions), failures)

    def _strayed(self) -> np.ndarray:
        """Which joints do not follow, (joints,); none where that is not known."""
        strayed = self._controllers.interpolated
        if self._known() is not None:
            return strayed & self._following.strayed(*self._newest())
        return np.zeros_like(strayed)

    def _standing(self, path: JointPath, elapsed: float, strayed: np.ndarray) -> tuple[np.ndarray, float]:
        """Where joints are held (joints,), and in which time they come to rest there [s]."""
        measured, time = self._known(), self._parameters.hold_time
        if measured is None:
            return braking_position(path, elapsed, time, *self._limits), time
        commanded, _ = path.at(elapsed)
        away = np.where(self._controllers.interpolated, np.abs(commanded - measured), 0.0)
        time = time_to_hold(away, self._speeds, time)
        held = braking_position(path, elapsed, time, *self._limits)
        return np.where(strayed, np.clip(measured, *self._limits), held), time

    def _let_arrive(self, path: JointPath, time: float) -> Held:
        """Leave references on their way to where the joints are: there nothing moves, wherever they really are.

        Whether they have arrived is unknown afterwards, as after commands that were not followed.
        """
        goal, self._controllers.not_followed = path.positions[-1], True
        failures = self._stop_all(JointPath.standing(self.gate.joints, goal, time))
        return Held("the references go on to where the joints are measured", self._commanded.stand(goal), failures)

    def destroy(self) -> None:
        """Remove publishers and clients."""
        self._controllers.destroy()
        super().destroy()

    def _stand(self, now_ns: int) -> None:
        self._stands_ns = now_ns
        if self._hand_over is not None:
            self._hand_over.rests(now_ns)
