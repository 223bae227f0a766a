# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla demo`: instructions for simulated robots over ROS 2, with a table, a video and a summary.

The command line imports this module for its options: everything that needs ROS is imported at run time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_vla.evaluation.options import DEFAULT_POLICY

if TYPE_CHECKING:
    import numpy as np

    from qwen_vla_ros.simulation.demo.recording import Recording
    from qwen_vla_ros.simulation.stack import Host, SimulatedStack
    from qwen_vla_ros.simulation.task_client import TaskClient, TaskRow


@dataclass(frozen=True)
class Show:
    """The part of the demo of one robot.

    Attributes:
        suite: task suite of the scenes.
        seeds: scenes, with one instruction each.
        timeout: simulated time for each instruction [s].
    """

    suite: str
    seeds: tuple[int, ...]
    timeout: float


SHOWS = {
    # Three of the suite's five tasks: stack a cube, eggplant in basket, pick up the blue cube.
    "widowx": Show("widowx", (9002, 9003, 9009), 60.0),
    # Two handovers and a tray: the third task of the suite, insertion, succeeds too rarely for a demo.
    "aloha": Show("aloha", (9003, 9011, 9009), 60.0),
    # Three consecutive scenes are one of each of the suite's three tasks.
    "mobile_base": Show("mobile_base", (9000, 9001, 9002), 120.0),
}
ENOUGH = 2 / 3  # share of its instructions that a robot must complete
SUCCEEDED, FAILED, SKIPPED = 0, 1, 3  # exit codes; 2 is that of invalid options
AFTERGLOW = 0.8  # [s] simulated, of the robot at rest after the end of an episode
TABLE_WIDTH = 120  # [characters] in a log
GIF_LIMIT = 2_000_000  # [bytes] so that a README loads quickly
SUMMARY, FILM = "summary.json", "demo.mp4"
MAKER = "qwen-vla demo"  # its name in `output_paths`


@dataclass(frozen=True)
class Shown:
    """Results of one robot's instructions; `memory` is peak RSS by node [MB], `recordings` are all or none."""

    rows: list[TaskRow]
    recordings: list[Recording]
    start_seconds: float
    memory: dict[str, float]

    @property
    def successes(self) -> int:
        return sum(row.success for row in self.rows)

    @property
    def episodes(self) -> list[tuple[Recording, TaskRow]]:
        """The recorded episodes with their results."""
        return list(zip(self.recordings, self.rows, strict=True)) if self.recordings else []


@dataclass
class Demo:
    """Start a simulated robot, the policy and the executor, and send it three instructions over ROS 2; robot by robot.

    Exit code 0 when every robot completed at least two of three instructions, 1 when one did not, 3 when the
    policy cannot drive a robot named by --robot. Writes summary.json, demo.mp4 and the nodes' logs.

    $ qwen-vla demo
    $ qwen-vla demo --robot aloha mobile_base
    $ qwen-vla demo --robot widowx --seeds 7001 7002 7003 --out out/my_demo
    $ qwen-vla demo --policy out/train/joint_actions/model --no-video
    $ qwen-vla demo --policy openpi://127.0.0.1:8000    # the robot of a running qwen-vla serve
    """

    out: Path = Path("out/demo")
    """Folder for the results; those of an earlier demo are replaced."""
    robot: tuple[str, ...] = ()
    """Robots of the demo, in order: widowx, aloha, mobile_base; default: all that the policy can drive."""
    seeds: tuple[int, ...] = ()
    """Scenes, with one instruction each; default: the robot's own. Only validation scenes (below 20000)."""
    policy: str = DEFAULT_POLICY
    """Checkpoint: its folder, or the name of one in checkpoints/; or NAME://ADDRESS of an installed policy."""
    timeout: float | None = None
    """Simulated time for each instruction [s]; default: 60 for the arms, 120 for the base."""
    speed: float = 1.0
    """Simulated seconds per real second; less than 1 for a machine that is too slow for real time."""
    video: bool = True
    """Write demo.mp4."""
    gif: Path | None = None
    """Also write an animated GIF of less than 2 MB, for a README."""
    overwrite: bool = False
    """Replace files in that folder, and the GIF, even if this command did not write them."""

    def run(self) -> int:
        from qwen_vla_ros.ros.environment import in_own_environment

        with in_own_environment():
            return self._run()

    def _run(self) -> int:
        from qwen_vla_ros.simulation.interruption import signals_as_exceptions

        self._check_outputs()
        checkpoint = self._checkpoint()
        wanted = self.robot or tuple(SHOWS)
        skipped = unfit_robots(self.policy, checkpoint, wanted)
        robots = [robot for robot in wanted if robot not in skipped]
        for robot, reason in skipped.items():
            print(f"{robot} is skipped: {reason}", file=sys.stderr)
        with signals_as_exceptions():
            self._begin()
            shown = self._show_all(robots)
            summary = summarize(shown, str(checkpoint or self.policy), list(skipped))
            self._write_summary(summary)
            self._write_films([episode for one in shown.values() for episode in one.episodes])
        if any(one.successes < ENOUGH * len(one.rows) for one in shown.values()):
            return FAILED
        return SKIPPED if skipped and (self.robot or not robots) else SUCCEEDED

    def _check_outputs(self) -> None:
        from qwen_vla.output_paths import check_files, check_folder, plain_marker
        from qwen_vla_ros.simulation.child_processes import LOGS

        check_folder(self.out, plain_marker(MAKER))
        results = {name: self.out / name for name in (SUMMARY, FILM)}
        check_files(MAKER, self.overwrite, {**results, "--gif": self.gif})
        check_folder(self.out / "logs", LOGS)

    def _checkpoint(self) -> Path | None:
        """The checkpoint, None for other policies; checks all options before anything is started."""
        from qwen_vla.evaluation.in_process import refuse_trained_seeds
        from qwen_vla.policies.checkpoint import checkpoint_of
        from qwen_vla.seeds import require_split

        self._check_robots()
        for seed in self.seeds:
            require_split("validation", range(seed, seed + 1), "--seeds")
        if self.timeout is not None and not 0 < self.timeout < 3600:
            raise ValueError(f"timeout {self.timeout} s: it must be above 0 and below 3600 s")
        if not 0.01 <= self.speed <= 100:
            raise ValueError(f"speed {self.speed}: it must be 0.01 to 100 simulated seconds per real second")
        checkpoint = checkpoint_of(self.policy)
        if checkpoint is None:
            return None
        if not (checkpoint / "config.json").is_file():
            raise FileNotFoundError(
                f"{checkpoint} is not a checkpoint: it has no config.json; train one, or specify another"
            )
        for seed in {*self.seeds} or {seed for robot in self.robot or SHOWS for seed in SHOWS[robot].seeds}:
            refuse_trained_seeds(checkpoint, seed, 1)
        return checkpoint

    def _check_robots(self) -> None:
        from qwen_vla.suites import not_simulated

        for robot in self.robot:
            if robot not in SHOWS:
                raise ValueError(f"{not_simulated(robot, 'robot')}; robots of the demo: {', '.join(SHOWS)}")

    def _begin(self) -> None:
        """Claim the folder and remove earlier results, so that it contains only those of this run."""
        from qwen_vla.output_paths import claim_folder, plain_marker

        claim_folder(self.out, plain_marker(MAKER))
        for name in (SUMMARY, FILM):
            (self.out / name).unlink(missing_ok=True)

    def _show_all(self, robots: Sequence[str]) -> dict[str, Shown]:
        """Robot by robot, all served by one policy_node."""
        from qwen_vla_ros.simulation.stack import stack_host

        with stack_host(self.out / "logs") as host:
            return {robot: self._show(robot, host) for robot in robots}

    def _show(self, robot: str, host: Host) -> Shown:
        """Run everything for one robot, whose processes end with it; policy_node stays for the next."""
        from embodiment_descriptions import load_robot
        from qwen_vla_ros.simulation.demo.recording import Recorder
        from qwen_vla_ros.simulation.stack import SimulatedWorld, simulated_stack
        from qwen_vla_ros.simulation.task_client import TaskClient

        show, rows, recordings = SHOWS[robot], [], []
        seeds = self.seeds or show.seeds
        world = SimulatedWorld(robot, show.suite)
        with simulated_stack(self.policy, host, speed=self.speed, world=world) as stack:
            tasks = TaskClient(stack)
            recorder = Recorder(stack, tasks, load_robot(robot)) if self.video or self.gif else None
            for number, seed in enumerate(seeds, 1):
                title = f"{robot} {number}/{len(seeds)}"
                row, recording = self._execute(stack, tasks, recorder, seed, self.timeout or show.timeout, title)
                rows.append(row)
                recordings += [recording] if recording else []
            shown = Shown(rows, recordings, stack.start_seconds, stack.processes.peak_rss_mb())
        _print_table(robot, rows)
        return shown

    def _execute(
        self, stack: SimulatedStack, tasks: TaskClient, recorder: Any, seed: int, timeout: float, title: str
    ) -> tuple[TaskRow, Recording | None]:
        from qwen_vla_ros.simulation.progress_line import ProgressLine
        from qwen_vla_ros.simulation.task_client import Limits

        instruction = tasks.reset(seed)
        tasks.draw_from(seed)
        line = ProgressLine()
        if recorder:
            recorder.begin()
        row = tasks.execute(
            Limits(timeout),
            lambda: line.update(f"{title} “{instruction}”", f"{tasks.task.sim_time:5.1f} s  {tasks.activity}"),
        )
        line.finish(f"{title} “{instruction}”: {'done' if row.success else row.ended} after {row.seconds:.1f} s")
        if recorder:
            tasks.wait_until(tasks.task.sim_time + AFTERGLOW)
        return row, recorder.end() if recorder else None

    def _write_films(self, episodes: Sequence[tuple[Recording, TaskRow]]) -> None:
        if not episodes:
            return
        from qwen_vla.video_files import write_gif, write_mp4
        from qwen_vla_ros.simulation.demo.video import CARD_SECONDS, RATE, film
        from qwen_vla_ros.simulation.progress_line import ProgressLine

        line = ProgressLine()
        length = sum(row.seconds + AFTERGLOW + CARD_SECONDS for _, row in episodes)

        def frames(what: str) -> Iterator[np.ndarray]:
            for number, frame in enumerate(film(episodes)):
                line.update(f"writing the {what}", f"{number / RATE:.0f} of {length:.0f} s")
                yield frame

        if self.video:
            write_mp4(self.out / FILM, frames("video"), RATE, MAKER)
            line.finish(f"video: {self.out / FILM}")
        if self.gif:
            size = write_gif(self.gif, list(frames("GIF")), RATE, GIF_LIMIT, MAKER)
            line.finish(f"GIF: {self.gif} ({size / 1e6:.1f} MB)")

    def _write_summary(self, summary: dict[str, Any]) -> None:
        from qwen_vla.output_files import write_json
        from qwen_vla.output_paths import with_maker

        write_json(self.out / SUMMARY, with_maker(MAKER, summary))
        print(f"{summary['successes']} of {len(summary['sentences'])} instructions completed: {self.out / SUMMARY}")


def known_robots(checkpoint: Path) -> list[str]:
    """The robots for which a checkpoint was trained; torch is not needed."""
    from qwen_vla.model.checkpoint.files import read_embodiments

    return list(read_embodiments(checkpoint))


def unfit_robots(policy: str, checkpoint: Path | None, robots: Sequence[str]) -> dict[str, str]:
    """Why a policy cannot drive some of the robots; one that is no checkpoint is opened to find out."""
    from embodiment_descriptions import load_robot
    from qwen_vla.policies.opening import first_misfit

    if checkpoint:
        known = known_robots(checkpoint)
        return {robot: f"{policy} was not trained for it" for robot in robots if robot not in known}
    reasons = {robot: first_misfit(policy, load_robot(robot)) for robot in robots}
    return {robot: f"{policy} does not fit it ({reason})" for robot, reason in reasons.items() if reason}


def summarize(shown: dict[str, Shown], checkpoint: str, skipped: Sequence[str]) -> dict[str, Any]:
    """The results as plain data, ready for JSON; fields are described in TaskRow, memory is peak RSS by node [MB]."""
    memory: dict[str, float] = {}
    for one in shown.values():
        memory |= {node: max(peak, memory.get(node, 0.0)) for node, peak in one.memory.items()}
    return {
        "successes": sum(one.successes for one in shown.values()),
        "sentences": [_result_of(robot, row) for robot, one in shown.items() for row in one.rows],
        "robots": {robot: {"successes": one.successes, "sentences": len(one.rows)} for robot, one in shown.items()},
        "skipped": list(skipped),
        "checkpoint": checkpoint,
        "start_seconds": round(sum(one.start_seconds for one in shown.values()), 1),
        "peak_rss_mb": memory,
    }


def _result_of(robot: str, row: TaskRow) -> dict[str, Any]:
    return {
        "robot": robot,
        "instruction": row.instruction,
        "success": row.success,
        "ended": row.ended,
        "seed": row.seed,
        "task": row.task,
        "target": row.target,
        "failure": row.failure,
        "metrics": dict(row.metrics),
        "distance": row.distance,
        "seconds": row.seconds,
        "chunks": row.chunks,
        "refused": row.refused,
        "latency_ms_p50": row.latency_ms_p50,
        "latency_ms_p99": row.latency_ms_p99,
    }


def _print_table(robot: str, rows: Sequence[TaskRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=robot, title_justify="left")
    table.add_column("instruction", overflow="fold")
    table.add_column("done")
    for heading in ("distance", "time", "chunks", "latency p50", "latency p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        done = "[green]yes[/]" if row.success else "[red]no[/]"
        latencies = ["–" if ms is None else f"{ms:.0f} ms" for ms in (row.latency_ms_p50, row.latency_ms_p99)]
        facts = [f"{row.distance * 100:.1f} cm", f"{row.seconds:.1f} s", str(row.chunks), *latencies]
        table.add_row(row.instruction, done, *facts)
    console = Console()
    Console(width=None if console.is_terminal else TABLE_WIDTH).print(table)
