# SPDX-License-Identifier: Apache-2.0
"""Smoothness of the transitions between a policy's chunks, by blending mode: real nodes, real simulator.

Every trajectory that reaches the arm's controller is recorded with its time, which gives the exact commanded motion. A
boundary is from a handover until two rows later, and, where the arm came to rest before it, includes its last step.
Inside a chunk is the policy's motion between the executed rows, before any blending. Pauses are between the end of a
trajectory and the next. `ratio` is that of the two peaks; `of each` compares every boundary with the two chunks that
meet there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla.seeds import require_split
from qwen_vla.suites import load_suite
from qwen_vla_control.gate.arm_gate import ArmGate
from qwen_vla_control.motion.blending import Blending
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.reasons import Refused
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.qos import reliable
from qwen_vla_ros.ros.chunk_messages import chunk_from_message
from qwen_vla_ros.simulation.over_ros import episode_limits
from qwen_vla_ros.simulation.runtime_benchmark.commanded_motion import SECOND, executed
from qwen_vla_ros.simulation.stack import SimulatedStack, simulated_stack
from qwen_vla_ros.simulation.task_client import TaskClient

SUITE, ROBOT = "widowx", "widowx"
EULER_STEPS = 4
ARM_TOPIC = "arm_controller/joint_trajectory"
FIRST_SEED = 9000
BOUNDARY_STEPS = 2  # after a handover; a longer transition is gentler
LONGEST_EPISODE = 1 << 16  # joint states
ANCHOR_GAP = 0.1  # [s] from an observation to its joint state, as in executor_node
STANDING = 0.02  # [s] shortest pause that counts: the resolution of the controller's cycle and of message times


@dataclass
class Heard:
    """Messages of one episode; times are simulated [ns]."""

    joints: JointReader
    trajectories: list[tuple[int, JointTrajectory]] = field(default_factory=list)
    chunks: list[ActionChunk] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)  # [s] from an observation to the verdict on its chunk


def new_heard(embodiment: Embodiment) -> Heard:
    """A record without messages."""
    return Heard(JointReader(embodiment, kept=LONGEST_EPISODE))


@dataclass(frozen=True)
class Motion:
    """The commanded motion of one episode. Accelerations [rad/s²]: the largest joint's, one per boundary or chunk."""

    boundaries: list[float]
    inside: list[float]
    pauses: list[float]  # [s] between the end of a trajectory and the next one
    moving: float  # [s] of commanded motion


@dataclass(frozen=True)
class Row:
    """One line of the table; the module defines the terms."""

    mode: str
    episodes: int
    succeeded: int
    seconds_p50: float
    chunks: int
    refused: int
    delay_ms_p50: float
    delay_ms_p95: float
    pauses: int
    pause_ms_max: float
    standing_share: float
    boundary_peak: float
    boundary_p50: float
    inside_peak: float
    inside_p50: float
    neighbors_p50: float
    neighbors_max: float

    @property
    def ratio(self) -> float:
        """Peak at boundaries over peak inside chunks."""
        return self.boundary_peak / self.inside_peak


def neighbor_ratios(motion: Motion) -> list[float]:
    """Peak of each boundary over the larger one inside the two adjacent chunks."""
    if len(motion.inside) != len(motion.boundaries) + 1:
        return []  # a message was not received
    return [peak / max(pair) for peak, pair in zip(motion.boundaries, pairwise(motion.inside), strict=True)]


class Listener:
    """Receives what is sent to the controllers; one episode at a time."""

    def __init__(self, stack: SimulatedStack, embodiment: Embodiment) -> None:
        self._now_ns = 0
        self.heard = new_heard(embodiment)
        hear = stack.client.hear
        hear(Clock, "/clock", self._on_clock, 10)
        hear(JointTrajectory, ARM_TOPIC, self._on_trajectory, reliable(50))
        hear(
            ActionChunk, "executor_node/accepted_chunk", lambda message: self.heard.chunks.append(message), reliable(50)
        )
        hear(ChunkReport, "executor_node/chunk_report", self._on_report, reliable(50))
        hear(JointState, self.heard.joints.sources[0].topic, self._on_joints, reliable(50))

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = nanoseconds(message.clock)

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self.heard.trajectories.append((self._now_ns, message))

    def _on_report(self, message: ChunkReport) -> None:
        if message.verdict == ChunkReport.ACCEPTED:
            self.heard.delays.append(message.observation_age_s)

    def _on_joints(self, message: JointState) -> None:
        self.heard.joints.take(0, message, self._now_ns)


def commanded(heard: Heard, embodiment: Embodiment) -> Motion:
    """The commanded motion of an episode; trajectories of one point are holds and end it."""
    home = [embodiment.home[name] for name in embodiment.arms[0].joints]
    stretches = executed([(at, message) for at, message in heard.trajectories if len(message.points) > 1], home)
    peaks, pauses = [], []
    for before, after in pairwise(stretches):
        rested = after.at > before.end
        if rested and (after.at - before.end) / SECOND > STANDING:
            pauses.append((after.at - before.end) / SECOND)
        last_step = before.peak(before.path.duration - before.path.period) if rested else 0.0
        peaks.append(max(after.peak(0.0, BOUNDARY_STEPS * after.path.period), last_step))
    moving = sum(stretch.until - stretch.at for stretch in stretches[:-1]) / SECOND
    return Motion(peaks, chunk_accelerations(heard, embodiment), pauses, moving)


def chunk_accelerations(heard: Heard, embodiment: Embodiment) -> list[float]:
    """Peak acceleration [rad/s²] of each accepted chunk by itself, between the rows to be executed."""
    gate = ArmGate(embodiment)
    arm = [gate.joints.index(name) for name in embodiment.arms[0].joints]
    peaks = []
    for message in heard.chunks:
        chunk = chunk_from_message(message)
        try:
            positions = heard.joints.at(chunk.stamp_ns, ANCHOR_GAP).known
            anchor = np.array([positions[name] for name in gate.joints])
            rows = gate.rows_of(chunk, anchor)
        except Refused:
            continue  # the joint state from which it was accepted was not received
        path = JointPath.through(gate.joints, np.vstack([anchor, rows]), chunk.period)
        peaks.append(float(path.peak_accelerations()[1 : chunk.execution_horizon, arm].max()))
    return peaks


def measure_modes(
    checkpoint: Path, episodes: int, folder: Path, modes: Sequence[Blending] = tuple(Blending)
) -> list[Row]:
    """Run `episodes` validation scenes in every mode; logs go to `folder`."""
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    require_split("validation", seeds, "a comparison of blending modes")
    return [measure(mode, checkpoint, seeds, folder) for mode in modes]


def measure(mode: Blending, checkpoint: Path, seeds: Sequence[int], folder: Path) -> Row:
    """Run some scenes in one blending mode."""
    embodiment, limits = load_robot(ROBOT), episode_limits(load_suite(SUITE))
    given = {"blending": str(mode)}
    rows, motions, delays = [], [], []
    policy = {**given, "euler_steps": EULER_STEPS, "torch_threads": 1}
    with simulated_stack(checkpoint, folder / mode, policy, executor_parameters=given) as stack:
        tasks, listener = TaskClient(stack), Listener(stack, embodiment)
        for seed in seeds:
            tasks.reset(seed)
            tasks.draw_from(seed * 1000)
            with stack.client.changed:
                listener.heard = new_heard(embodiment)
            rows.append(tasks.execute(limits))
            with stack.client.changed:
                heard, listener.heard = listener.heard, new_heard(embodiment)
            motions.append(commanded(heard, embodiment))
            delays += heard.delays
    pauses = [pause for motion in motions for pause in motion.pauses]
    boundaries = [peak for motion in motions for peak in motion.boundaries]
    inside = [peak for motion in motions for peak in motion.inside]
    ratios = [ratio for motion in motions for ratio in neighbor_ratios(motion)]
    standing = sum(pauses) / (sum(pauses) + sum(motion.moving for motion in motions))
    p50, p95 = np.percentile(delays, [50, 95]) * 1e3
    return Row(
        mode=str(mode),
        episodes=len(rows),
        succeeded=sum(row.success for row in rows),
        seconds_p50=float(np.median([row.seconds for row in rows])),
        chunks=sum(row.chunks for row in rows),
        refused=sum(row.refused for row in rows),
        delay_ms_p50=float(p50),
        delay_ms_p95=float(p95),
        pauses=len(pauses),
        pause_ms_max=1e3 * max(pauses, default=0.0),
        standing_share=standing,
        boundary_peak=max(boundaries),
        boundary_p50=float(np.median(boundaries)),
        inside_peak=max(inside),
        inside_p50=float(np.median(inside)),
        neighbors_p50=float(np.median(ratios)),
        neighbors_max=max(ratios),
    )
