"""Execution of joint paths. Owns what only joints have: handover between chunks, and a position at which to hold."""

from __future__ import annotations

from functools import partial

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import ArmGate, RobotState
from qwen_vla_control.gate.chunk_handover import ChunkHandover
from qwen_vla_control.motion.blending import Blender, Blending, CrossFade
from qwen_vla_control.motion.command_state import CommandState, Motion
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_ros.executor.execution.execution import Execution, Held, Source
from qwen_vla_ros.executor.executor_parameters import JOINT_STATES
from qwen_vla_ros.ros.lifecycle import ManagedNode

# [rad] more than a servo lags at rest; farther from its last command, someone else has moved the arm
HOLD_NEAR = 0.1


class ArmExecution(Execution):
    """Moves the joints of arms, grippers and waist; a stop holds them at their commanded position."""

    age_name = "joint state age [s]"

    def __init__(self, node: ManagedNode, embodiment: Embodiment) -> None:
        """Create gate, reader and command interfaces; see Execution."""
        p, gate = node.parameters, ArmGate(embodiment)
        grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
        is_gripper = np.array([name in grippers for name in gate.joints])
        state = JointReader(embodiment, gate.joints, node.resolve_topic_name, p.joint_state_timeout)
        super().__init__(node, embodiment, gate, state, CommandState(keep=is_gripper, near=HOLD_NEAR))
        self.moves = ", ".join(gate.joints)
        self.sources = tuple(
            Source(JOINT_STATES, source.topic, partial(state.take, index))
            for index, source in enumerate(embodiment.joint_states)
        )
        self._hand_over: ChunkHandover | None = None
        if self.overlaps:
            blender = Blender(Blending(p.blending), ~is_gripper, CrossFade(p.cross_fade), p.ensembling_decay)
            self._hand_over = ChunkHandover(gate, blender, self._now)

    def _path_of(self, chunk: Chunk, state: RobotState) -> JointPath:
        return (self._hand_over or self.gate).decide(chunk, state).path

    def begin(self, path: JointPath, chunk: Chunk | None) -> Motion | None:
        """Send a path; see Execution."""
        replaced = super().begin(path, chunk)
        if self._hand_over is not None and chunk is not None:
            self._hand_over.began(path, self.motion.start_ns)
        return replaced

    def finish(self, now_ns: int) -> None:
        """Record that the motion is complete; the next chunk starts at rest."""
        super().finish(now_ns)
        self._rest(now_ns)

    def hold(self, at_ns: int | None = None) -> Held:
        """Hold at the commanded position; at rest only near the last command, otherwise at the measured position."""
        now = self._now()
        standing = self._standing(now if at_ns is None else at_ns)
        failures = self._stop_all(standing)
        self._rest(now)
        if standing is None:
            text = "nothing to hold: no command was sent and no joint state is known"
            return Held(text, self._commanded.end(), failures)
        return Held("holding the last commanded position", self._commanded.hold(standing.positions[-1]), failures)

    def _standing(self, at_ns: int) -> JointPath | None:
        """Positions at which the joints are to hold, None when none are known to be safe."""
        measured = None if self._fault() else self._state.latest().vector
        positions = self._commanded.hold_positions(at_ns, measured)
        if positions is None:
            return None
        return JointPath.standing(self.gate.joints, positions, self._parameters.hold_time)

    def _rest(self, now_ns: int) -> None:
        if self._hand_over is not None:
            self._hand_over.rests(now_ns)
