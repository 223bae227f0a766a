# SPDX-License-Identifier: Apache-2.0
"""From a chunk to the commands of a robot, arms or base: the one interface between executor_node and a robot.

Owns a robot's gate, the reader of its state, the current motion, and the command interfaces. Whether anything may move
at all (emergency stop, policy, clock) and what is reported is decided by the node.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import Gate, Reference, Refused, RobotState, Violation
from qwen_vla_control.motion.blending import Blending
from qwen_vla_control.motion.command_state import CommandState, Motion
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.motion.timed_path import Kind
from qwen_vla_control.node_interface import Endpoint
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.odometry_reader import OdometryReader
from qwen_vla_control.observation.plausibility import Plausibility
from qwen_vla_control.reasons import Reason
from qwen_vla_ros.executor.command_interfaces import CommandedRobot, CommandInterfaces
from qwen_vla_ros.executor.controller_restart import Done
from qwen_vla_ros.ros.lifecycle import ManagedNode

State = TypeVar("State", JointReader, OdometryReader)
Doubts = TypeVar("Doubts", bound=Plausibility)


@dataclass(frozen=True)
class Source:
    """A topic with the state of the robot.

    Attributes:
        endpoint, topic: its kind, and its name in the robot's YAML.
        take: stores a message, with its arrival time [ns, steady clock] and its publisher.
    """

    endpoint: Endpoint
    topic: str
    take: Callable[[Any, int, bytes], object]


@dataclass(frozen=True)
class Held:
    """Result of a hold.

    Attributes:
        text: what was done.
        broken_off: the motion that was aborted, None when there was none.
        failures: of command interfaces that could not be stopped.
    """

    text: str
    broken_off: Motion | None
    failures: tuple[Exception, ...] = ()


class Execution(ABC, Generic[Kind, State, Doubts]):
    """Executes the chunks of one robot.

    Attributes:
        gate: decides about them.
        moves: what they move, as text.
        sources: topics to subscribe to, whose messages are passed to Source.take.
        age_name: name of the age of the newest of these messages in diagnostics.
        overlaps: chunks replace one another while the robot moves.
        commands: the interfaces to which paths are sent.
    """

    moves: str
    sources: tuple[Source, ...]
    age_name: str

    def __init__(
        self,
        node: ManagedNode,
        embodiment: Embodiment,
        gate: Gate[Kind],
        state: State,
        plausibility: Doubts,
    ) -> None:
        """Create the command interfaces of the robot.

        Args:
            node: owner of publishers and clients, and of the parameters in executor_parameters.
            embodiment: the robot.
            gate: decides about its chunks.
            state: reader of the robot's state; its vectors have the columns of the gate.
            plausibility: whether what it reads can be true.

        Raises:
            ValueError, MissingInterface: as CommandInterfaces.
        """
        self.gate = gate
        self.overlaps = node.parameters.blending != Blending.SYNCHRONOUS
        self._state, self._plausibility = state, plausibility
        self._commanded: CommandState[Kind] = CommandState()
        self._parameters, self._clock = node.parameters, node.get_clock()
        self._forgot_ns = 0  # ROS time when it was last said that nothing is known
        self.commands = CommandInterfaces(node, CommandedRobot(embodiment, self.base_pose))

    # Robot state ----------------------------------------------------------------------------------------------------

    def base_pose(self) -> np.ndarray | None:
        """Pose (3,) of the base from odometry [m, m, rad], None when unknown."""
        return None

    def age(self) -> float:
        """Age of the newest position or pose [s, ROS time]; infinite without one."""
        return self._state.age(self._now())

    def lost(self) -> Violation | None:
        """Why the robot's state is unknown, or cannot be true, as a reason to end a motion; None when it is known."""
        fault = self._fault()
        return Violation(self._state.lost, fault) if fault else self._doubted()

    def _doubted(self) -> Violation | None:
        text = self._plausibility.text(self._now(), time.monotonic_ns())
        return Violation(Reason.DOUBTFUL_STATE, text) if text else None

    def _measured(self) -> np.ndarray:
        """Measured state of the robot; Refused when it is unknown, or cannot be true."""
        fault, latest = self._fault(), self._state.latest()
        if fault or latest is None:
            raise Refused.because(self._state.missing, fault)
        if doubted := self._doubted():
            raise Refused([doubted])
        return latest.vector

    def reference(self, measured: np.ndarray) -> Reference | None:
        """Where the controllers start from, of a robot that is `measured` there; None: where it is measured."""
        return None

    def mismatch(self) -> Violation | None:
        """Why a motion from rest would begin with a jump; None when it would not."""
        return None

    def not_following(self) -> Violation | None:
        """Why the motion must not go on although everything else is well: the robot does not follow it."""
        return None

    def unfinished(self) -> Violation | None:
        """Why a motion that is over by its time was not done; None when it was."""
        return None

    def fault(self) -> str:
        """Say why what was sent is not being executed; empty when it is."""
        return self.commands.fault()

    def unready(self) -> list[str]:
        """Say what keeps the robot from moving as a whole; empty when everything is ready."""
        return self.commands.preflight()

    def settle(self) -> None:
        """At rest, before anything was commanded, take the robot to stand where it is measured from then on."""
        if self._commanded.last is not None or self.lost() or self.age() * 1e9 > self._now() - self._forgot_ns:
            return
        latest = self._state.latest()
        if latest is not None:
            self._commanded.stand(latest.vector)

    def forget(self) -> None:
        """Forget what was commanded: the robot is taken as it stands next."""
        self._commanded.stand(None)
        self._forgot_ns = self._now()

    def resynchronize(self, done: Done) -> str:
        """Bring together where the controllers start and where the robot is measured, at rest.

        Returns:
            What was done. Where that takes time, a motion is on its way then, or `done` is told how it ended.

        Raises:
            Refused: nothing was done.
        """
        return "this robot starts where it is measured; nothing was done"

    def _fault(self) -> str:
        return self._state.fault(self._now(), time.monotonic_ns())

    def _now(self) -> int:
        return self._clock.now().nanoseconds

    # Motion ---------------------------------------------------------------------------------------------------------

    @property
    def motion(self) -> Motion[Kind] | None:
        """The current motion."""
        return self._commanded.motion

    def decide(self, chunk: Chunk, now_ns: int) -> Kind:
        """Return the path of a chunk that may be executed from ROS time `now_ns` [ns] on; Refused with all reasons."""
        measured = self._measured()
        if chunk.stamp_ns <= self._plausibility.distrusted_until_ns:
            raise Refused.because(
                Reason.DOUBTFUL_STATE, "it was observed while the robot's state could not be believed"
            )
        observed = self._state.at(chunk.stamp_ns, self._parameters.max_anchor_gap).vector
        state = RobotState(now_ns, observed, measured, self.motion, reference=self.reference(measured))
        return self._path_of(chunk, state)

    @abstractmethod
    def _path_of(self, chunk: Chunk, state: RobotState) -> Kind:
        """Return the path that the gate accepts; Refused otherwise."""

    def home_path(self) -> Kind:
        """Plan the motion to the home pose; Refused where none is defined, or the gate does not accept it."""
        return self.gate.home_path(self._measured(), self._parameters.home_speed_share)

    def begin(self, path: Kind, chunk: Chunk | None, name: str = "home motion") -> Motion[Kind] | None:
        """Send the path of a chunk, or, without one, of the executor's own motion, which is then called `name`.

        Returns:
            The motion that it replaces, None when the robot was at rest.

        Raises:
            Refused: nothing was sent, and the current motion continues.
        """
        now = self._now()
        self.commands.send(path, now)
        replaced = self._commanded.end()
        motion = Motion(path, now, chunk, name)
        self._commanded.begin(motion)
        self._began(motion)
        return replaced

    def _began(self, motion: Motion[Kind]) -> None:
        """Record that a motion was sent, to watch whether the robot follows it."""

    def finish(self, now_ns: int) -> None:
        """Record that the motion is complete, at rest."""
        self._commanded.end()

    @abstractmethod
    def hold(self, at_ns: int | None = None) -> Held:
        """Stop, including what the devices have already accepted.

        Args:
            at_ns: joints hold at their commanded position at this ROS time [ns], by default now.
        """

    def _stop_all(self, standing: JointPath | None) -> tuple[Exception, ...]:
        """Stop all command interfaces; returns the exceptions of those that could not be stopped."""
        try:
            self.commands.stop(standing)
        except ExceptionGroup as failures:
            return failures.exceptions
        return ()

    def destroy(self) -> None:
        """Remove publishers and clients."""
        self.commands.destroy()
