# SPDX-License-Identifier: Apache-2.0
"""This computer: disk, memory, shared memory, CPU, GPU."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rich.filesize import decimal

from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.ros.distributions import PROFILE_VARIABLES, distribution

AREA = Area("This machine")
MB, GB = 1_000_000, 1_000_000_000
DISK_WARN, DISK_FAIL = 5 * GB, 500 * MB  # an uncompressed recording of two cameras grows by some 50 MB per second
PROCESSES_WITH_IMAGES = 3  # a camera driver or simulator, policy_node, a recorder or viewer
DEFAULT_SEGMENT = 524_288  # [bytes] per participant of Fast DDS by default
RECEIVE_BUFFER = 4_194_304  # [bytes] with which 640x480 images arrive over UDP (config/dds)
RUNTIME_MEMORY = 700 * MB  # of policy_node with the tiny checkpoint, including libraries, in addition to the weights
GPU_FROM = 1 * GB  # [bytes of weights] a larger model is too slow for a robot without a GPU
LOAD_LIMIT = 1.5  # waiting processes per processor


@dataclass(frozen=True)
class Machine:
    """Its resources; sizes in bytes, None for what does not exist or is unknown.

    Attributes:
        folder: for results; `disk_free` is the space there.
        threads: of torch, as set by the environment; 0: torch's default.
        gpus: (name, free memory) by device.
        profile: path of the Fast DDS profile in effect, or empty.
        segment: shared memory per process under that profile; 0 without: another middleware, or UDP only.
        receive_buffer: the largest that the kernel gives a socket (net.core.rmem_max).
        attention_kernels: whether flash-linear-attention is installed.
    """

    folder: str
    disk_free: int
    memory_available: int
    processors: int
    load: float
    threads: int
    shm_total: int | None
    shm_free: int | None
    gpus: tuple[tuple[str, int], ...]
    profile: str
    segment: int | None
    receive_buffer: int
    attention_kernels: bool


def look_at_machine(environment: Mapping[str, str], folder: Path = Path()) -> Machine:
    """Collect the resources; `environment` is that of the nodes."""
    profile = next((environment[name] for name in PROFILE_VARIABLES if environment.get(name)), "")
    shm = shutil.disk_usage("/dev/shm") if os.path.isdir("/dev/shm") else None
    return Machine(
        folder=str(folder.resolve()),
        disk_free=shutil.disk_usage(folder).free,
        memory_available=_memory_available(Path("/proc/meminfo").read_text()),
        processors=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        threads=int(threads) if (threads := environment.get("OMP_NUM_THREADS", "")).isdecimal() else 0,
        shm_total=shm.total if shm else None,
        shm_free=shm.free if shm else None,
        gpus=_gpus(),
        profile=profile,
        segment=segment_size(profile) if _is_fast_dds(environment) else 0,
        receive_buffer=int(Path("/proc/sys/net/core/rmem_max").read_text()),
        attention_kernels=importlib.util.find_spec("fla") is not None,
    )


def _is_fast_dds(environment: Mapping[str, str]) -> bool:
    return "fastrtps" in environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")


def segment_size(profile: str) -> int | None:
    """Shared memory per process in a Fast DDS profile [bytes], 0 without any; None when it cannot be read."""
    if not profile:
        return DEFAULT_SEGMENT
    try:
        root = ElementTree.parse(profile).getroot()
        sizes = [int(element.text or "") for element in root.iterfind(".//{*}segment_size")]
    except (OSError, ElementTree.ParseError, TypeError, ValueError):
        return None
    own = "false" in [element.text for element in root.iterfind(".//{*}useBuiltinTransports")]
    shared = not own or "SHM" in [element.text for element in root.iterfind(".//{*}type")]
    return max(sizes, default=DEFAULT_SEGMENT) if shared else 0


def _memory_available(meminfo: str) -> int:
    lines = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return int(lines.get("MemAvailable", lines["MemFree"]).split()[0]) * 1024


def _gpus() -> tuple[tuple[str, int], ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()
        return tuple((name.strip(), int(free) * 2**20) for name, free in (line.rsplit(",", 1) for line in lines))
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def check_machine(machine: Machine, weights: int | None) -> Iterator[Finding]:
    """All checks of this computer; `weights` is the size of the checkpoint [bytes], None without one."""
    yield check_disk(machine)
    yield check_shared_memory(machine)
    yield check_processors(machine)
    if weights is not None:
        yield check_memory(machine, weights)
        yield check_gpu(machine, weights)
        if machine.gpus and weights >= GPU_FROM:
            yield check_kernels(machine)


def check_disk(machine: Machine) -> Finding:
    """Is there space for recordings and logs?"""
    fact = f"{decimal(machine.disk_free)} free in {machine.folder}"
    if machine.disk_free < DISK_FAIL:
        return AREA.fail("disk", fact, "free some space, or work in another folder")
    if machine.disk_free < DISK_WARN:
        return AREA.warn("disk", fact, "enough to run, but free some space before recording")
    return AREA.ok("disk", fact)


def check_shared_memory(machine: Machine) -> Finding:
    """Is /dev/shm large enough for the DDS profile, and the profile for an image?"""
    if machine.shm_total is None or machine.shm_free is None:
        return AREA.warn("shared memory", "/dev/shm does not exist", "images are sent over UDP: expect losses")
    if machine.segment is None:
        fact = f"the Fast DDS profile {machine.profile} cannot be read"
        return AREA.fail("shared memory", fact, f"correct the path in {distribution().profile_variable}, or unset it")
    fact = f"/dev/shm: {decimal(machine.shm_free)} of {decimal(machine.shm_total)} free"
    if machine.segment == 0 and machine.receive_buffer < RECEIVE_BUFFER:
        fact = f"none is used, and the kernel gives a socket at most {decimal(machine.receive_buffer)}"
        return AREA.warn("shared memory", fact, f"large images get lost: sysctl -w net.core.rmem_max={RECEIVE_BUFFER}")
    if machine.segment == 0:
        return AREA.ok("shared memory", f"{fact}; the middleware uses none")
    if machine.segment <= DEFAULT_SEGMENT:
        return AREA.warn(
            "shared memory",
            "Fast DDS has 0.5 MB of shared memory per process, less than one 640x480 image",
            f"set {distribution().profile_variable} to config/dds/fastdds_large_images.xml for every process",
        )
    need = PROCESSES_WITH_IMAGES * machine.segment
    if machine.shm_total < need:
        return AREA.fail(
            "shared memory",
            f"{fact}; {PROCESSES_WITH_IMAGES} processes need {decimal(need)}",
            "docker run --shm-size=512m, or shm_size: 512m in the compose file; "
            "otherwise: mount -o remount,size=512M /dev/shm",
        )
    if machine.shm_free < machine.segment:
        remedy = "remove segments of killed processes: fastdds shm clean, or rm /dev/shm/fastrtps_* with ROS stopped"
        return AREA.fail("shared memory", f"{fact}; one process needs {decimal(machine.segment)}", remedy)
    return AREA.ok("shared memory", f"{fact}; {decimal(machine.segment)} per process")


def check_processors(machine: Machine) -> Finding:
    """Is the computer already busy?"""
    fact = f"{machine.processors} processors, load {machine.load:.1f}"
    if machine.load > LOAD_LIMIT * machine.processors:
        return AREA.warn("processors", fact, "stop other programs: late images and heartbeats stop the robot")
    if machine.threads > machine.processors:
        fact = f"{machine.processors} processors, but OMP_NUM_THREADS={machine.threads}"
        return AREA.warn("processors", fact, "unset it: oversubscribed threads slow inference down")
    return AREA.ok("processors", fact)


def check_memory(machine: Machine, weights: int) -> Finding:
    """Does the model fit into memory?"""
    need = 2 * weights + RUNTIME_MEMORY  # bfloat16 on disk becomes float32 on a CPU
    fact = f"{decimal(machine.memory_available)} free, the policy needs about {decimal(need)}"
    if machine.memory_available < need and not machine.gpus:
        return AREA.fail(
            "memory", fact, "stop other programs, use a smaller checkpoint, or run policy_node on another machine"
        )
    return AREA.ok("memory", fact)


def check_gpu(machine: Machine, weights: int) -> Finding:
    """Is there a GPU for a model that needs one?"""
    name, free = max(machine.gpus, key=lambda gpu: gpu[1], default=("", 0))
    if weights < GPU_FROM:
        return AREA.ok("GPU", name or "none; not required for a checkpoint of this size")
    if not name:
        fact = f"none (no output of nvidia-smi) for {decimal(weights)} of weights"
        return AREA.warn("GPU", fact, "run policy_node on a machine with a GPU; the executor stays on the robot")
    fact = f"{name}: {decimal(free)} free for {decimal(weights)} of weights"
    if free < 1.2 * weights:
        return AREA.fail("GPU", fact, "stop other programs that use it (nvidia-smi lists them)")
    return AREA.ok("GPU", fact)


def check_kernels(machine: Machine) -> Finding:
    """Are the kernels installed that make a large model's linear attention fast?"""
    if machine.attention_kernels:
        return AREA.ok("kernels", "flash-linear-attention is installed")
    return AREA.warn(
        "kernels",
        "flash-linear-attention is not installed: the language tower takes 1.5 times as long",
        "install it: .venv/bin/python -m pip install flash-linear-attention",
    )
