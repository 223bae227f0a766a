# SPDX-License-Identifier: Apache-2.0
"""Runs policy_node and executor_node beside a robot's topics for a while, and measures."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.qos import reliable
from qwen_vla_ros.commander.instruction_client import InstructionClient
from qwen_vla_ros.ros.running_nodes import wait_until_active
from qwen_vla_ros.ros.spinning_node import SpinningNode
from qwen_vla_ros.simulation.child_processes import ChildProcesses
from qwen_vla_ros.simulation.interruption import signals_as_exceptions
from qwen_vla_ros.simulation.stack import node_command, stack_host

ROBOT = "widowx"
WIDTH, HEIGHT, CAMERA_RATE = 640, 480, 30.0  # [px], [px], [Hz]
READY_TIMEOUT = 300.0  # [s]
ANSWER_TIMEOUT = 30.0  # [s]
FLOOR_SECONDS = 5.0  # of receiving only the images
INSTRUCTION = "pick up the red cube"
EULER_STEPS = 4
REACH = 0.002  # [m], [rad]: extent of the actions of the timed model; only time is measured, not skill
NODES = ("policy_node", "executor_node")


@dataclass
class Heard:
    """What was received while the goal was running; times are those of this process [s, system clock]."""

    chunks: dict[int, ActionChunk] = field(default_factory=dict)
    accepted: dict[int, ChunkReport] = field(default_factory=dict)
    refused: int = 0
    beats: list[float] = field(default_factory=list)  # stamps
    images: list[float] = field(default_factory=list)  # [ms] of transport
    diagnostics: dict[str, str] = field(default_factory=dict)  # of executor_node

    def take_report(self, report: ChunkReport) -> None:
        if report.verdict == ChunkReport.ACCEPTED:
            self.accepted[report.chunk_id] = report
        self.refused += report.verdict == ChunkReport.REFUSED

    def take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "executor_node: execution":
                self.diagnostics = {item.key: item.value for item in status.values}


def measure(seconds: float, robot: str = ROBOT) -> dict[str, Any]:
    """Figures of a run of `seconds` [s]; see `report`. Raises NoAnswer or ChildEnded when it fails."""
    embodiment = load_robot(robot)
    with ExitStack() as stack:
        stack.enter_context(signals_as_exceptions())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runtime_benchmark_")))
        client, children, pids = stack.enter_context(_running(folder, embodiment))
        heard = Heard()
        floor = _transport(client, embodiment, heard)
        _listen(client, heard)
        usage = _Usage(pids)
        outcome = _execute(client, seconds)
        return {
            "robot": robot,
            "seconds": seconds,
            "cameras": {"count": len(embodiment.cameras), "width": WIDTH, "height": HEIGHT, "rate_hz": CAMERA_RATE},
            "chunks": outcome.chunks_executed,
            "refused": heard.refused,
            "executor_loop_jitter_ms": _jitter(heard),
            "heartbeat_gap_ms": _spread(np.diff(heard.beats) * 1e3),
            "processes": usage.figures(),
            "executor_imports_torch": "torch" in Path(f"/proc/{pids['executor_node']}/maps").read_text(),
            **_latencies(heard, floor),
        }


@contextmanager
def _running(folder: Path, embodiment: Embodiment) -> Iterator[tuple[SpinningNode, ChildProcesses, dict[str, int]]]:
    """Start everything and wait until the nodes are active."""
    checkpoint = _calm_checkpoint(folder / "checkpoint", embodiment)
    with ExitStack() as stack:
        host = stack.enter_context(stack_host(folder / "logs"))
        environment, children = host.environment, host.processes
        client = stack.enter_context(SpinningNode("runtime_benchmark", host.domain))
        client.check = children.check
        robot = [sys.executable, "-m", f"{__package__}.robot", "--robot", embodiment.name]
        robot += ["--width", str(WIDTH), "--height", str(HEIGHT), "--camera-rate", str(CAMERA_RATE)]
        pids = {"robot": children.start("robot", robot, environment)}
        parameters = {"autostart": True}
        policy = {**parameters, "policy": str(checkpoint), "euler_steps": EULER_STEPS, "torch_threads": 1}
        for name, values in (("executor_node", parameters), ("policy_node", policy)):
            pids[name] = children.start(name, node_command(name, values, environment), environment)
        for name in NODES:
            wait_until_active(client, name, READY_TIMEOUT)
        yield client, children, pids


def _calm_checkpoint(path: Path, embodiment: Embodiment) -> Path:
    """Save a model of the tiny geometry whose actions are small motions around the arm's position."""
    import torch

    from qwen_vla import EmbodimentInfo, Quantiles, QwenVLAConfig, QwenVLAModel, QwenVLAProcessor

    torch.manual_seed(0)
    config = QwenVLAConfig.preset("tiny")
    tags = tuple(camera.tag for camera in embodiment.cameras)
    processor = QwenVLAProcessor.from_scratch([embodiment.prompt(INSTRUCTION)], config, tags, vocab_size=320)
    grippers = np.isin(np.arange(len(embodiment.channel_names)), embodiment.layout.grippers)
    middle, spread = np.where(grippers, 0.5, 0.0), np.where(grippers, 0.1, REACH)
    processor.normalization[embodiment.name] = Quantiles(middle - spread, middle + spread, embodiment.channel_names)
    processor.embodiments[embodiment.name] = EmbodimentInfo(
        name=embodiment.name,
        channel_names=embodiment.channel_names,
        control_mode=embodiment.control_mode,
        period=embodiment.period,
        horizon=embodiment.chunk_size,
        execution_horizon=embodiment.chunk_size // 2,
        prompt_template=embodiment.prompt("{instruction}"),
        camera_tags=tags,
        dataset=embodiment.name,
    )
    QwenVLAModel(config).save_pretrained(path)
    processor.save_pretrained(path)
    return path


def _transport(client: SpinningNode, embodiment: Embodiment, heard: Heard) -> float:
    """Median transport time of an image between processes [ms], before there is a goal: the lower bound."""
    topic = embodiment.cameras[0].topic

    def store(message: Image) -> None:
        heard.images.append(time.time() * 1e3 - nanoseconds(message.header.stamp) / 1e6)

    subscription = client.node.create_subscription(Image, topic, store, qos_profile_sensor_data)
    enough = int(FLOOR_SECONDS * CAMERA_RATE)
    client.wait(lambda: len(heard.images) >= enough, f"{enough} images on {topic}", ANSWER_TIMEOUT)
    client.in_turn(lambda: client.node.destroy_subscription(subscription))
    return float(np.median(heard.images))


def _listen(client: SpinningNode, heard: Heard) -> None:
    client.hear(
        ActionChunk, "policy_node/action_chunk", lambda m: heard.chunks.__setitem__(m.chunk_id, m), reliable(50)
    )
    client.hear(ChunkReport, "executor_node/chunk_report", heard.take_report, reliable(50))
    client.hear(Header, "policy_node/heartbeat", lambda m: heard.beats.append(nanoseconds(m.stamp) / 1e9), reliable(50))
    client.hear(DiagnosticArray, "/diagnostics", heard.take_diagnostics, 10)


def _execute(client: SpinningNode, seconds: float) -> ExecuteInstruction.Result:
    """Have one instruction executed for `seconds`."""
    running, began = InstructionClient(client, "/policy_node").send(INSTRUCTION, seconds), time.monotonic()
    with tqdm(total=round(seconds), desc="running", unit="s") as bar:

        def ended() -> bool:
            bar.update(min(round(time.monotonic() - began), bar.total) - bar.n)
            return running.ended

        client.wait(ended, "result of policy_node", seconds + ANSWER_TIMEOUT)
    result = running.message()
    if result.error_code != ExecuteInstruction.Result.TIMEOUT:
        raise RuntimeError(f"the run ended early: {result.error_msg}")
    return result


class _Usage:
    """CPU usage and memory of processes since its creation."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._began = time.monotonic()
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before = {name: self._cpu(process) for name, process in self._processes.items()}

    @staticmethod
    def _cpu(process: psutil.Process) -> float:
        times = process.cpu_times()
        return times.user + times.system

    def figures(self) -> dict[str, dict[str, float]]:
        """Percent of one core, and resident memory [MB], by name."""
        elapsed = time.monotonic() - self._began
        return {
            name: {
                "cpu_percent": 100 * (self._cpu(process) - self._before[name]) / elapsed,
                "rss_mb": process.memory_info().rss / 1e6,
            }
            for name, process in self._processes.items()
        }


def _latencies(heard: Heard, transport_ms: float) -> dict[str, Any]:
    """From the stamp of the image to the executor's acceptance, which is when the command has been sent."""
    numbers = sorted(heard.chunks.keys() & heard.accepted.keys())[1:]  # the first is a cold start
    stamps = {n: nanoseconds(heard.chunks[n].header.stamp) for n in numbers}
    total = np.array([(nanoseconds(heard.accepted[n].header.stamp) - stamps[n]) / 1e6 for n in numbers])
    inference = np.array([heard.chunks[n].inference_ms for n in numbers])
    decision = np.array([heard.accepted[n].decision_ms for n in numbers])
    return {
        "image_to_command_ms": _spread(total),
        "inference_ms": _spread(inference),
        "overhead_ms": _spread(total - inference),
        "decision_ms": _spread(decision),
        "floor_ms": {"image_transport_p50": transport_ms},
    }


def _jitter(heard: Heard) -> dict[str, float]:
    return {key: float(heard.diagnostics.get(f"loop jitter {key} [ms]", "nan")) for key in ("p50", "p99", "max")}


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("p50", "p99", "max"), float("nan"))
    return {"p50": float(np.median(values)), "p99": float(np.quantile(values, 0.99)), "max": float(np.max(values))}
