# SPDX-License-Identifier: Apache-2.0
"""What seeing costs per image: to receive it, store it, choose it, check its CameraInfo, and decode it.

    .venv/bin/python benchmarks/observation.py
    .venv/bin/python benchmarks/observation.py --width 1280 --height 720 --json out/observation.json

One thread, its CPU time, so that other work on the machine counts little. `receive` is what rclpy does before a
callback sees a message: from the bytes on the wire to the message. `store` and `choose` are paid for every image and
for every look at all cameras, `decode` only for images that are used.
"""

from __future__ import annotations

import argparse
import array
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from embodiment_descriptions import load_robot
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import check_files, with_maker
from qwen_vla_control.observation.camera_info import camera_info_problem
from qwen_vla_control.observation.image_decoding import to_rgb
from qwen_vla_control.observation.robot_streams import History, Needs, ObservationStreams
from qwen_vla_control.observation.streams import NANOSECONDS, Observation

MAKER = "benchmarks/observation.py"  # as `output_paths` knows it
ROBOT = "widowx"
# Channels of a raw image by encoding; the content does not change the time.
RAW = {"rgb8": 3, "bgr8": 3, "bgra8": 4, "rgb16": 6, "yuv422_yuy2": 2, "nv12": 1.5, "bayer_rggb8": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--seconds", type=float, default=0.5, help="per row of the table")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that this did not make")
    options = parser.parse_args()
    check_files(MAKER, options.overwrite, {"--json": options.json})
    cv2.setNumThreads(1)
    rows = {name: timed(work, options.seconds) for name, work in works(options.width, options.height).items()}
    print(f"{ROBOT}, {options.width} x {options.height}, microseconds\n\n| | p50 | p99 |\n|---|---:|---:|")
    for name, row in rows.items():
        print(f"| {name} | {row['p50_us']:.1f} | {row['p99_us']:.1f} |")
    if options.json:
        shown = {"robot": ROBOT, "width": options.width, "height": options.height, "rows": rows}
        write_json(options.json, with_maker(MAKER, shown))


def works(width: int, height: int) -> dict[str, Callable[[], object]]:
    """Everything that is measured, by name."""
    pixels = photo(width, height)
    raw = {encoding: image(pixels, encoding, channels) for encoding, channels in RAW.items()}
    raw["rgb8, padded rows"] = image(pixels, "rgb8", 3, padding=64)
    compressed = {kind: compress(pixels, kind) for kind in ("jpg", "png")}
    wire = {"rgb8": (Image, raw["rgb8"]), "jpg": (CompressedImage, compressed["jpg"])}
    found: dict[str, Callable[[], object]] = {}
    for name, (kind, message) in wire.items():
        content = serialize_message(message)
        found[f"receive {name} ({len(content) / 1e3:.0f} kB)"] = lambda c=content, k=kind: deserialize_message(c, k)
    found |= streams_works(raw["rgb8"])
    info = CameraInfo(width=width, height=height)
    for name, (_, message) in wire.items():
        found[f"check CameraInfo, {name}"] = lambda m=message: camera_info_problem(info, m, "ego/camera_info")
    for name, message in (*raw.items(), *compressed.items()):
        found[f"decode {name}"] = lambda m=message: to_rgb(m)
    return found


def streams_works(sample: Image) -> dict[str, Callable[[], object]]:
    """Storing and choosing, with two cameras at 30 Hz and joint states at 100 Hz, all rings full."""
    other = Image(height=sample.height, width=sample.width, encoding=sample.encoding, step=sample.step)
    other.data = array.array("B", sample.data)
    other.data[-1] ^= 1  # the worst case of a comparison: all but the last byte is the same
    alike, noisy = (sample.data, other.data), (sample.data, noise(sample))
    plain, historic = filled(sample, History()), filled(sample, History(8, 2.0))
    fresh = filled(sample, History())
    state = {"now": 10 * NANOSECONDS, "count": 0}

    def store(data: array.array):
        state["now"] += NANOSECONDS // 30
        fresh.cameras["ego"].push(state["now"], sample, state["now"], content=data)

    def alternate(contents):
        state["count"] += 1
        store(contents[state["count"] % 2])

    now = 10 * NANOSECONDS
    assert isinstance(plain.select(now, now), Observation) and isinstance(historic.select(now, now), Observation)
    return {
        "store, another picture": lambda: alternate(noisy),
        "store, another picture by one byte": lambda: alternate(alike),
        "store, the same picture": lambda: store(sample.data),
        "choose from 2 cameras and joints": lambda: plain.select(now, now),
        "choose, with 8 frames of history": lambda: historic.select(now, now),
    }


def noise(sample: Image) -> array.array:
    """The same picture as a sensor takes it the next time."""
    flips = np.random.default_rng(1).integers(0, 2, len(sample.data), np.uint8)
    return array.array("B", (np.frombuffer(sample.data, np.uint8) ^ flips).tobytes())


def filled(sample: Image, history: History) -> ObservationStreams:
    """Ten seconds of messages."""
    streams = ObservationStreams(load_robot(ROBOT), needs=Needs(joint_states=True), history=history)
    for k in range(1, 1001):
        now = k * NANOSECONDS // 100
        joints = streams.joint_states[0]
        message = JointState(name=list(joints.joints), position=[0.0] * len(joints.joints))
        joints.push(now, message, now)
        if k % 3 == 1:
            for stream in streams.cameras.values():
                stream.push(now, sample, now)
    return streams


def photo(width: int, height: int) -> np.ndarray:
    """Smooth areas with a little noise, which compress like a camera's pictures."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 3, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def image(pixels: np.ndarray, encoding: str, channels: float, padding: int = 0) -> Image:
    """A message of that size; its bytes are those of the picture where they fit."""
    height, width = pixels.shape[:2]
    bytes_per_pixel = 1 if encoding == "nv12" else int(channels)
    step = width * bytes_per_pixel + padding
    size = int(step * height * (1.5 if encoding == "nv12" else 1))
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.data = array.array("B", np.resize(pixels.reshape(-1), size).tobytes())
    return message


def compress(pixels: np.ndarray, kind: str) -> CompressedImage:
    """The picture as image_transport sends it."""
    data = cv2.imencode(f".{kind}", pixels[:, :, ::-1])[1].tobytes()
    return CompressedImage(format=f"rgb8; {kind} compressed bgr8", data=array.array("B", data))


def timed(work: Callable[[], object], seconds: float) -> dict[str, float]:
    """Microseconds of CPU time per call; for at least so many seconds."""
    for _ in range(3):
        work()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 20:
        began = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - began) / 1e3)
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50_us": round(float(p50), 2), "p99_us": round(float(p99), 2), "calls": len(times)}


if __name__ == "__main__":
    main()
