"""Execution of joint paths. Owns what only joints have: hand-over between chunks, and where their controllers start."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.angles import nearest_turn
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import ArmGate, Reference, Refused, RobotState, Violation
from qwen_vla_control.gate.chunk_handover import ChunkHandover
from qwen_vla_control.gate.joint_rules import check_reference
from qwen_vla_control.motion.blending import Blender, Blending, CrossFade
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.motion.following import FollowingWatch
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.plausibility import JointStateDoubt
from qwen_vla_control.reasons import Reason, refuse_if
from qwen_vla_ros.executor.controller_restart import ControllerRestart, Done
from qwen_vla_ros.executor.controller_watch import ControllerWatch
from qwen_vla_ros.executor.execution.execution import AGREED, Execution, Held, Source
from qwen_vla_ros.executor.executor_parameters import JOINT_STATES
from qwen_vla_ros.ros.lifecycle import ManagedNode
from qwen_vla_ros.ros.publishers import publisher_name

IN_SYNC = 0.005  # [rad] reference and measurement this near to one another are left alone
SHORTEST_LEAD = 1.0  # [s]
LAST_COMMAND = "its last command"
RESYNCHRONIZATION = "resynchronization"


class ArmExecution(Execution):
    """Moves the joints of arms, grippers and waist; a stop holds them where they were commanded to be.

    What is commanded begins at the reference of the controllers, not where the joints are measured: a
    JointTrajectoryController starts there, whoever has moved the arm since.
    """

    age_name = "joint state age [s]"

    def __init__(self, node: ManagedNode, embodiment: Embodiment) -> None:
        """Create gate, reader and command interfaces; see Execution."""
        p, gate = node.parameters, ArmGate(embodiment)
        grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
        self._is_gripper = np.array([name in grippers for name in gate.joints])
        self._is_continuous = np.array([embodiment.limits[name].type == "continuous" for name in gate.joints])
        state = JointReader(embodiment, gate.joints, node.resolve_topic_name, p.joint_state_timeout)
        super().__init__(node, embodiment, gate, state)
        self.moves = ", ".join(gate.joints)
        self._doubt = JointStateDoubt(state, embodiment, partial(publisher_name, node))
        self.sources = tuple(
            Source(JOINT_STATES, source.topic, partial(self._take, index))
            for index, source in enumerate(embodiment.joint_states)
        )
        self._following = FollowingWatch(np.where(self._is_gripper, np.inf, p.following_tolerance))
        self._controllers = ControllerWatch(node, embodiment)
        self._strayed = False  # joints did not follow: where controllers that say nothing would start is unknown
        self._restart = ControllerRestart(node, (c.manager for c in self._controllers.controllers.values()))
        interpolating = [c.joints for c in embodiment.commands if c.backend == "joint_trajectory"]
        self._interpolated = np.array([any(name in joints for joints in interpolating) for name in gate.joints])
        self._hand_over: ChunkHandover | None = None
        if self.overlaps:
            blender = Blender(Blending(p.blending), ~self._is_gripper, CrossFade(p.cross_fade), p.ensembling_decay)
            self._hand_over = ChunkHandover(gate, blender, self._now)

    # Where it starts ------------------------------------------------------------------------------------------------

    def reference(self, measured: np.ndarray) -> Reference:
        """Where the controllers would start from; as far as nobody knows, where the joints are `measured` (joints,)."""
        if self.motion is not None:
            return Reference(self.motion.commanded(self._now())[0], ("commanded now",) * len(measured))
        last, told_by = self._commanded.last, [LAST_COMMAND] * len(measured)
        positions = measured.copy() if last is None else last.copy()
        for joint, (position, who) in self._controllers.references().items():
            if joint in self.gate.joints:
                column = self.gate.joints.index(joint)
                positions[column], told_by[column] = position, who
        positions = np.where(self._is_continuous, nearest_turn(positions, measured), positions)
        return Reference(positions, tuple(told_by))

    def lost(self) -> Violation | None:
        """Why it is unknown where the joints are, or why what is said of it cannot be true."""
        return super().lost() or self._doubted()

    def _doubted(self) -> Violation | None:
        text = self._doubt.text(self._now(), time.monotonic_ns())
        return Violation(Reason.DOUBTFUL_STATE, text) if text else None

    def _measured(self) -> np.ndarray:
        measured = super()._measured()
        if doubted := self._doubted():
            raise Refused([doubted])
        return measured

    def _take(self, index: int, message: Any, steady_ns: int, publisher: bytes) -> None:
        before = self._state.latest()
        if self._state.take(index, message, steady_ns, publisher):
            self._doubt.see(before, self._state.sources[index].topic, publisher)

    def mismatch(self) -> Violation | None:
        """Say which joint at rest is not where its controller would start from."""
        if self.motion is not None or self.lost():
            return None
        measured = self._state.latest().vector
        return next(iter(self._check_start(measured)), None)

    def _check_start(self, measured: np.ndarray) -> list[Violation]:
        """Check that controllers at rest would start where the joints are measured."""
        reference = self.reference(measured)
        silent = [who == LAST_COMMAND for who in reference.told_by]
        if self._strayed and any(silent & self._interpolated):
            text = (
                "joints did not follow their last commands, and where their controllers would start from is unknown "
                "now; look at the robot, then call ~/resynchronize"
            )
            return [Violation(Reason.REFERENCE_MISMATCH, text)]
        return check_reference(reference, measured, self.gate.motion)

    def unready(self) -> list[str]:
        """Why nothing would be executed now."""
        restarting = ["controllers are being restarted"] if self._restart.busy else []
        return super().unready() + self._controllers.problems() + restarting

    def forget(self) -> None:
        """Forget what was commanded: the robot is taken as it stands next."""
        super().forget()
        self._strayed = False

    def fault(self) -> str:
        """Say why what was sent is not being executed; empty when it is."""
        return "; ".join(filter(None, [super().fault(), *self._controllers.problems()]))

    def astray(self) -> Violation | None:
        """Which joint does not go where it is commanded."""
        sample = self._state.latest()
        stamp = int(sample.stamps_ns[: len(sample.vector)].min())
        return self._noted(self._following.fault(sample.vector, stamp))

    def undone(self) -> Violation | None:
        """Which joint has not gone its way."""
        return self._noted(self._following.undone(self._state.latest().vector))

    def _noted(self, strayed: Violation | None) -> Violation | None:
        self._strayed |= strayed is not None
        return strayed

    def resynchronize(self, done: Done) -> str:
        """Bring together where the controllers start and where the joints are; see Execution."""
        measured = self._measured()
        reference = self.reference(measured)
        apart = ((np.abs(reference.positions - measured) > IN_SYNC) | self._strayed) & ~self._is_gripper
        if not apart.any():
            return AGREED
        self._take_as_measured(apart & ~self._interpolated, measured)
        moved = [name for name, hit in zip(self.gate.joints, apart & self._interpolated, strict=True) if hit]
        if not moved:
            self._strayed = False
            return "devices that take set-points one by one: the next motion starts where the joints are"
        controllers = [c for c in self._controllers.controllers.values() if set(c.joints) & set(moved)]
        names = ", ".join(controller.name for controller in controllers)
        if self._restart.can(controllers):
            self._restart.restart(controllers, partial(self._restarted, names, apart, done))
            return f"deactivating and activating {names}, so that it starts where {', '.join(moved)} are measured"
        goal = np.where(apart, measured, reference.positions)
        share = self._parameters.home_speed_share
        checked = self.gate.slow_path(reference.positions, goal, share, "to where the joints are measured")
        # One step: the controller leads to it from wherever it really starts.
        ends = np.stack([reference.positions, goal])
        path = JointPath.through(self.gate.joints, ends, max(checked.duration, SHORTEST_LEAD))
        self.begin(path, None, RESYNCHRONIZATION)
        self._strayed = False
        return (
            f"leading the reference of {names} to where {', '.join(moved)} are measured, in {path.duration:.1f} s, for "
            "there is no controller manager that could restart it"
        )

    def _restarted(self, names: str, columns: np.ndarray, done: Done, good: bool, why: str) -> None:
        if good and not self.lost():
            self._take_as_measured(columns, self._state.latest().vector)
            self._strayed = False
        done(good, f"{names} was deactivated and activated" if good else why)

    def _take_as_measured(self, columns: np.ndarray, measured: np.ndarray) -> None:
        if self._commanded.last is not None:
            self._commanded.stand(np.where(columns, measured, self._commanded.last))

    # What it does ---------------------------------------------------------------------------------------------------

    def home_path(self) -> JointPath:
        """Plan the motion to the home pose; see Execution."""
        measured = self._measured()
        refuse_if(self._check_start(measured))
        return self.gate.home_path(self.reference(measured).positions, self._parameters.home_speed_share)

    def _path_of(self, chunk: Chunk, state: RobotState) -> JointPath:
        if chunk.stamp_ns <= self._doubt.until_ns:
            raise Refused.because(Reason.DOUBTFUL_STATE, "it was observed while joint states could not be believed")
        if state.motion is None:
            refuse_if(self._check_start(state.measured))
        return (self._hand_over or self.gate).decide(chunk, state).path

    def begin(self, path: JointPath, chunk: Chunk | None, name: str = "home motion") -> Motion | None:
        """Send a path; see Execution."""
        replaced = super().begin(path, chunk, name)
        if name != RESYNCHRONIZATION:
            self._following.begin(path, self.motion.start_ns, self._state.latest().vector)
        if self._hand_over is not None and chunk is not None:
            self._hand_over.began(path, self.motion.start_ns)
        return replaced

    def finish(self, now_ns: int) -> None:
        """Record that the motion has come to its end; the next chunk begins at rest."""
        super().finish(now_ns)
        self._rest(now_ns)

    def hold(self, at_ns: int | None = None) -> Held:
        """Hold where the joints were commanded to be. At rest nothing is sent: it could only set them in motion."""
        now, motion = self._now(), self.motion
        self._rest(now)
        if motion is None:
            return Held("nothing was on its way, and nothing was sent", None, self._stop_all(None))
        positions = motion.commanded(now if at_ns is None else at_ns)[0]
        failures = self._stop_all(JointPath.standing(self.gate.joints, positions, self._parameters.hold_time))
        return Held("holding the last commanded position", self._commanded.stand(positions), failures)

    def destroy(self) -> None:
        """Leave the graph."""
        self._controllers.destroy()
        self._restart.destroy()
        super().destroy()

    def _rest(self, now_ns: int) -> None:
        self._following.end()
        if self._hand_over is not None:
            self._hand_over.rests(now_ns)
