"""`qwen-vla demo`: three sentences to a simulated WidowX over ROS 2, with a table, a video and a summary.

The command line imports this module to say what it offers: everything that needs ROS is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_vla_ros.demo_recording import Recording
    from qwen_vla_ros.stack import SimulatedStack
    from qwen_vla_ros.task_client import TaskClient, TaskRow

SEEDS = (
    7109,
    7131,
    7119,
)  # three colours, three ways to say it: take the red cube, grab the blue block, lift the green
ENOUGH = 2 / 3  # share of the sentences that must be obeyed
AFTERGLOW = 0.8  # [s] simulated, shown of the arm at rest after the end
TABLE_WIDTH = 110  # [characters] in a log
GIF_LIMIT = 2_000_000  # [bytes] a README should load quickly


@dataclass
class Demo:
    """Start the simulated WidowX, the policy and the executor, and give them three sentences over ROS 2.

    Exit code 0 when at least two of three cubes were picked up. Writes summary.json, demo.mp4 and the nodes' logs.

    Examples:
      qwen-vla demo
      qwen-vla demo --seeds 7001 7002 7003 --out out/my_demo
      qwen-vla demo --checkpoint out/train/widowx_actions/model --no-video
    """

    out: Path = Path("out/demo")
    """Folder for the results; those of an earlier run are replaced."""
    seeds: tuple[int, ...] = SEEDS
    """Scenes, one sentence each; scenes that the checkpoint was trained on are refused."""
    checkpoint: Path | None = None
    """Folder of the model; default: the checkpoint that comes with the suite."""
    timeout: float = 40.0
    """Simulated time for each sentence [s]."""
    speed: float = 1.0
    """Simulated seconds per real second; less than 1 for a machine that is too slow or too busy for real time."""
    video: bool = True
    """Write demo.mp4."""
    gif: Path | None = None
    """Also write an animated GIF of less than 2 MB, for a README."""

    def run(self) -> int:
        from qwen_vla_ros.interruption import signals_as_exceptions

        checkpoint = self._checkpoint()
        with signals_as_exceptions():
            self._remove_earlier_results()
            rows, recordings, start_seconds, memory = self._obey(checkpoint)
            self._show(rows)
            summary = summarize(rows, str(checkpoint), start_seconds, memory)
            self._write_summary(summary)
            self._write_films(recordings, rows)
        return 0 if summary["successes"] >= ENOUGH * len(rows) else 1

    def _checkpoint(self) -> Path:
        """What can be wrong about the options is found out before anything is started."""
        from qwen_vla.cli import default_checkpoint
        from qwen_vla.evaluation.in_process import refuse_trained_seeds

        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"seeds {list(self.seeds)}: give at least one, all of them from 0 on")
        if not 0 < self.timeout < 3600:
            raise ValueError(f"timeout {self.timeout} s: give a time above 0 and below 3600 s")
        if not 0.01 <= self.speed <= 100:
            raise ValueError(f"speed {self.speed}: give 0.01 to 100 simulated seconds per real second")
        checkpoint = self.checkpoint or default_checkpoint()
        if not (checkpoint / "config.json").is_file():
            raise FileNotFoundError(
                f"{checkpoint} is not a checkpoint: it has no config.json; train one, or name another"
            )
        for seed in self.seeds:
            refuse_trained_seeds(checkpoint, seed, 1)
        return checkpoint

    def _remove_earlier_results(self) -> None:
        for name in ("summary.json", "demo.mp4"):
            (self.out / name).unlink(missing_ok=True)

    def _obey(self, checkpoint: Path) -> tuple[list[TaskRow], list[Recording], float, dict[str, float]]:
        from qwen_vla_ros.demo_recording import Recorder
        from qwen_vla_ros.stack import simulated_stack
        from qwen_vla_ros.task_client import TaskClient

        rows, recordings = [], []
        with simulated_stack(checkpoint, self.out / "logs", speed=self.speed) as stack:
            tasks = TaskClient(stack)
            recorder = Recorder(stack, tasks) if self.video or self.gif else None
            for number, seed in enumerate(self.seeds, 1):
                row, recording = self._obey_one(stack, tasks, recorder, seed, f"{number}/{len(self.seeds)}")
                rows.append(row)
                recordings.append(recording)
            return rows, recordings, stack.start_seconds, stack.processes.peak_rss_mb()

    def _obey_one(
        self, stack: SimulatedStack, tasks: TaskClient, recorder: Any, seed: int, number: str
    ) -> tuple[TaskRow, Recording | None]:
        from qwen_vla_ros.progress_line import ProgressLine
        from qwen_vla_ros.task_client import Limits

        sentence = tasks.reset(seed)
        tasks.draw_from(seed)
        line = ProgressLine()
        if recorder:
            recorder.begin()
        row = tasks.execute(
            Limits(self.timeout),
            lambda: line.update(f"{number} “{sentence}”", f"{tasks.task.sim_time:5.1f} s  {tasks.activity}"),
        )
        line.finish(f"{number} “{sentence}”: {'picked' if row.success else row.ended} after {row.seconds:.1f} s")
        if recorder:
            tasks.wait_until(tasks.task.sim_time + AFTERGLOW)
        return row, recorder.end() if recorder else None

    def _show(self, rows: Sequence[TaskRow]) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        table.add_column("sentence", no_wrap=True)
        table.add_column("picked")
        for heading in ("distance", "time", "chunks", "latency p50", "latency p99"):
            table.add_column(heading, justify="right")
        for row in rows:
            picked = "[green]yes[/]" if row.success else "[red]no[/]"
            latencies = ["–" if ms is None else f"{ms:.0f} ms" for ms in (row.latency_ms_p50, row.latency_ms_p99)]
            facts = [f"{row.distance * 100:.1f} cm", f"{row.seconds:.1f} s", str(row.chunks), *latencies]
            table.add_row(row.instruction, picked, *facts)
        console = Console()
        Console(width=None if console.is_terminal else TABLE_WIDTH).print(table)

    def _write_films(self, recordings: Sequence[Recording | None], rows: Sequence[TaskRow]) -> None:
        if not (self.video or self.gif):
            return
        from qwen_vla.video_files import write_gif, write_mp4
        from qwen_vla_ros.demo_video import RATE, film
        from qwen_vla_ros.progress_line import ProgressLine

        episodes = list(zip(recordings, rows, strict=True))
        line = ProgressLine()
        if self.video:
            line.update("writing the video")
            write_mp4(self.out / "demo.mp4", film(episodes), RATE)
            line.finish(f"video: {self.out / 'demo.mp4'}")
        if self.gif:
            line.update("writing the GIF")
            size = write_gif(self.gif, list(film(episodes)), RATE, GIF_LIMIT)
            line.finish(f"GIF: {self.gif} ({size / 1e6:.1f} MB)")

    def _write_summary(self, summary: dict[str, Any]) -> None:
        from qwen_vla.output_files import write_json

        write_json(self.out / "summary.json", summary)
        print(f"{summary['successes']} of {len(summary['sentences'])} sentences obeyed: {self.out / 'summary.json'}")


def summarize(
    rows: Sequence[TaskRow], checkpoint: str, start_seconds: float, memory: dict[str, float]
) -> dict[str, Any]:
    """The results as plain data, ready for JSON; fields are described in TaskRow, memory is peak RSS by node [MB]."""
    return {
        "successes": sum(row.success for row in rows),
        "sentences": [
            {
                "instruction": row.instruction,
                "success": row.success,
                "ended": row.ended,
                "seed": row.seed,
                "target": row.target,
                "distance": row.distance,
                "seconds": row.seconds,
                "chunks": row.chunks,
                "refused": row.refused,
                "latency_ms_p50": row.latency_ms_p50,
                "latency_ms_p99": row.latency_ms_p99,
            }
            for row in rows
        ],
        "checkpoint": checkpoint,
        "start_seconds": round(start_seconds, 1),
        "peak_rss_mb": memory,
    }
