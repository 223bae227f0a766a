"""How smoothly the chunks of a policy follow one another, by blending mode: real nodes, real simulator.

    .venv/bin/python benchmarks/blending.py --json out/blending.json
    .venv/bin/python benchmarks/blending.py --modes synchronous asynchronous --episodes 5

Every trajectory that reaches the arm's controller is noted down with its time and played again by the same controller,
2000 times a second, which gives the commanded acceleration exactly. A boundary is what happens from a hand-over until
two rows later, and, where the arm came to rest before it, its last step, too. Inside a chunk is what the policy asked
for between the rows that were executed, before any blending. Pauses are between the end of a trajectory and the next.
The ratio is that of the two peaks; `of each` compares every boundary with the two chunks that meet there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import Embodiment, load_robot, resource_path
from qwen_vla.observation_buffer import Stream
from qwen_vla.suites import load_suite
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_ros.blending import Blending
from qwen_vla_ros.chunk_decision import ChunkDecision
from qwen_vla_ros.chunk_messages import chunk_from_message, nanoseconds
from qwen_vla_ros.gate import Refused
from qwen_vla_ros.joint_path import JointPath
from qwen_vla_ros.over_ros import episode_limits
from qwen_vla_ros.stack import SimulatedStack, simulated_stack
from qwen_vla_ros.task_client import RELIABLE, TaskClient
from qwen_vla_sim.joint_trajectory_controller import JointTrajectoryController
from qwen_vla_sim.messages import trajectory_from_message

SUITE, ROBOT = "widowx_pick", "widowx"
ARM_TOPIC = "arm_controller/joint_trajectory"
LOGS = Path("out/blending/logs")
CYCLE = 0.0005  # [s] of the controller that plays the trajectories again
BOUNDARY_STEPS = 2  # after a hand-over; a longer transition is gentler
STANDING = 0.02  # [s] a pause that is none: the controller's cycle, and the times of messages, are not finer


@dataclass
class Heard:
    """What one episode brought; times are simulated [ns]."""

    trajectories: list[tuple[int, JointTrajectory]] = field(default_factory=list)
    chunks: list[ActionChunk] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)  # [s] from an observation to the verdict about its chunk
    joints: Stream = field(default_factory=lambda: Stream("joint states", "joint_states", 1.0, 1 << 16))


@dataclass(frozen=True)
class Motion:
    """How one episode was commanded. Accelerations [rad/s2]: the largest joint's, one value per boundary or chunk."""

    boundaries: list[float]
    inside: list[float]
    pauses: list[float]  # [s] between the end of a trajectory and the next one
    moving: float  # [s] commanded to move


@dataclass(frozen=True)
class Row:
    """One line of the table; see `--help` for what the words mean."""

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
    neighbours_p50: float
    neighbours_max: float

    @property
    def ratio(self) -> float:
        """Peak at boundaries over peak inside chunks."""
        return self.boundary_peak / self.inside_peak


def neighbour_ratios(motion: Motion) -> list[float]:
    """Peak of each boundary over the larger one inside the two chunks that meet there."""
    if len(motion.inside) != len(motion.boundaries) + 1:
        return []  # a message has not reached us
    return [peak / max(pair) for peak, pair in zip(motion.boundaries, pairwise(motion.inside), strict=True)]


class Listener:
    """Hears what reaches the controllers; one episode at a time."""

    def __init__(self, stack: SimulatedStack) -> None:
        self._now_ns = 0
        self.heard = Heard()
        hear = stack.client.hear
        hear(Clock, "/clock", self._on_clock, 10)
        hear(JointTrajectory, ARM_TOPIC, self._on_trajectory, RELIABLE)
        hear(ActionChunk, "executor_node/accepted_chunk", lambda message: self.heard.chunks.append(message), RELIABLE)
        hear(ChunkReport, "executor_node/chunk_report", self._on_report, RELIABLE)
        hear(JointState, "joint_states", self._on_joints, RELIABLE)

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = nanoseconds(message.clock)

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self.heard.trajectories.append((self._now_ns, message))

    def _on_report(self, message: ChunkReport) -> None:
        if message.verdict == ChunkReport.ACCEPTED:
            self.heard.delays.append(message.observation_age_s)

    def _on_joints(self, message: JointState) -> None:
        positions = dict(zip(message.name, message.position, strict=True))
        self.heard.joints.push(nanoseconds(message.header.stamp), positions, self._now_ns)


def commanded(heard: Heard, embodiment: Embodiment) -> Motion:
    """Play the trajectories of an episode again; those of one point are holds and end it."""
    joints, period = embodiment.arms[0].joints, embodiment.period
    moves = [(at, message) for at, message in heard.trajectories if len(message.points) > 1]
    controller = JointTrajectoryController(joints, [embodiment.home[name] for name in joints])
    ends = [at + nanoseconds(message.points[-1].time_from_start) for at, message in moves]
    peaks, pauses, last_step = [], [], 0.0
    for number, (at, message) in enumerate(moves):
        rested = number > 0 and at > ends[number - 1]
        if rested and (at - ends[number - 1]) / 1e9 > STANDING:
            pauses.append((at - ends[number - 1]) / 1e9)
        controller.accept(trajectory_from_message(message), at)
        until = moves[number + 1][0] if number + 1 < len(moves) else ends[number]
        times, accelerations = _play(controller, at, until)
        if number > 0:
            first = accelerations[times < at + round(BOUNDARY_STEPS * period * 1e9)]
            peaks.append(max(float(first.max(initial=0.0)), last_step if rested else 0.0))
        last_step = float(accelerations[times > ends[number] - round(period * 1e9)].max(initial=0.0))
    moving = sum(min(end, after[0]) - at for (at, _), end, after in zip(moves, ends, moves[1:], strict=False)) / 1e9
    return Motion(peaks, chunk_accelerations(heard, embodiment), pauses, moving)


def _play(controller: JointTrajectoryController, at: int, until: int) -> tuple[np.ndarray, np.ndarray]:
    """Times [ns] and the largest acceleration of any joint [rad/s2] then."""
    times = np.arange(at, until, round(CYCLE * 1e9))
    values = np.empty(len(times))
    for i, now in enumerate(times):
        controller.update(int(now))
        values[i] = np.abs(controller.desired_state.accelerations).max()
    return times, values


def chunk_accelerations(heard: Heard, embodiment: Embodiment) -> list[float]:
    """Peak acceleration [rad/s2] of each accepted chunk by itself, between the rows that are meant to be executed."""
    decision = ChunkDecision(embodiment)
    arm = [decision.joints.index(name) for name in embodiment.arms[0].joints]
    peaks = []
    for message in heard.chunks:
        chunk = chunk_from_message(message)
        nearest = heard.joints.nearest(chunk.stamp_ns)
        anchor = np.array([nearest.message[name] for name in decision.joints])
        try:
            rows = decision.rows_of(chunk, anchor)
        except Refused:
            continue  # it was accepted from a joint state that did not reach us
        path = JointPath.through(decision.joints, np.vstack([anchor, rows]), chunk.period)
        peaks.append(float(path.peak_accelerations()[1 : chunk.execution_horizon, arm].max()))
    return peaks


def measure(mode: Blending, checkpoint: Path, seeds: Sequence[int], euler_steps: int, speed: float) -> Row:
    """Run some episodes in one blending mode."""
    embodiment, limits = load_robot(ROBOT), episode_limits(load_suite(SUITE))
    policy = {"blending": str(mode), "euler_steps": euler_steps}
    rows, motions, delays = [], [], []
    executor = {"blending": str(mode)}
    with simulated_stack(checkpoint, LOGS / mode, policy, speed, executor_parameters=executor) as stack:
        tasks, listener = TaskClient(stack), Listener(stack)
        for seed in seeds:
            tasks.reset(seed)
            tasks.draw_from(seed * 1000)
            with stack.client.changed:
                listener.heard = Heard()
            rows.append(tasks.execute(limits))
            with stack.client.changed:
                heard, listener.heard = listener.heard, Heard()
            motions.append(commanded(heard, embodiment))
            delays += heard.delays
    pauses = [pause for motion in motions for pause in motion.pauses]
    boundaries = [peak for motion in motions for peak in motion.boundaries]
    inside = [peak for motion in motions for peak in motion.inside]
    ratios = [ratio for motion in motions for ratio in neighbour_ratios(motion)]
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
        neighbours_p50=float(np.median(ratios)),
        neighbours_max=max(ratios),
    )


def table(rows: Sequence[Row]) -> Table:
    """Make what is printed."""
    made = Table(title="Accelerations are commanded, of the largest arm joint, in rad/s²")
    for name in ("mode", "picked", "seconds", "chunks", "refused", "delay p50 / p95 ms"):
        made.add_column(name, justify="left" if name == "mode" else "right")
    for name in ("pauses", "longest ms", "standing", "boundary", "inside", "ratio", "of each: p50 / max"):
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(
            row.mode,
            f"{row.succeeded}/{row.episodes}",
            f"{row.seconds_p50:.1f}",
            str(row.chunks),
            str(row.refused),
            f"{row.delay_ms_p50:.0f} / {row.delay_ms_p95:.0f}",
            str(row.pauses),
            f"{row.pause_ms_max:.0f}",
            f"{row.standing_share:.0%}",
            f"{row.boundary_peak:.2f}",
            f"{row.inside_peak:.2f}",
            f"{row.ratio:.2f}",
            f"{row.neighbours_p50:.2f} / {row.neighbours_max:.2f}",
        )
    return made


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", choices=list(Blending), default=list(Blending), type=Blending)
    parser.add_argument("--checkpoint", type=Path, default=resource_path("checkpoints/tiny"))
    parser.add_argument("--episodes", type=int, default=3, help="per mode")
    parser.add_argument("--seed", type=int, default=7000, help="of the first scene")
    parser.add_argument("--euler-steps", type=int, default=4)
    parser.add_argument(
        "--speed", type=float, default=1.0, help="simulated seconds per real one; less on a busy machine"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.episodes)
    rows = []
    for mode in options.modes:
        rows.append(measure(mode, options.checkpoint, seeds, options.euler_steps, options.speed))
        Console(width=150).print(table(rows))
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            figures = [{**asdict(row), "ratio": row.ratio} for row in rows]
            options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
