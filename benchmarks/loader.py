# SPDX-License-Identifier: Apache-2.0
"""How fast a robot's recordings become batches: opening (decoding images the first time), samples, and whole batches.

    .venv/bin/python benchmarks/loader.py out/data/widowx_pick

One thread, random rows, as training draws them. `samples_per_s`: decoded images, prompt, chunk, state and labels;
`batched_per_s`: also tokenised, patched and stacked into tensors, which training does while the step before computes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from qwen_vla import QwenVLAConfig, QwenVLAProcessor
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import check_files, with_maker

MAKER = "benchmarks/loader.py"  # as `output_paths` knows it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="what a recipe gives as `path` of `kind: robot`")
    parser.add_argument("--robot", help="your embodiment YAML, or a robot of the suite; for data that names none")
    parser.add_argument("--instruction", help="for bags without one")
    parser.add_argument("--preset", choices=("tiny", "4b"), default="tiny")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that this did not make")
    options = parser.parse_args()
    check_files(MAKER, options.overwrite, {"--json": options.json})
    result = measure(options)
    print(json.dumps(result, indent=2))
    if options.json:
        write_json(options.json, with_maker(MAKER, result))


def measure(options: argparse.Namespace) -> dict:
    torch.set_num_threads(1)
    config = QwenVLAConfig.preset(options.preset)
    bag = {"instruction": options.instruction}
    spec = RobotData(kind="robot", path=options.path, robot=options.robot, bag=bag)
    times = []
    for _ in range(2):  # the second time everything is in the cache
        began = time.perf_counter()
        source = spec.open(SourceContext(config))
        times.append(time.perf_counter() - began)
    processor = QwenVLAProcessor.from_scratch(list(source.texts()), config, source.camera_tags)
    rng = np.random.default_rng(0)

    def draw() -> list:
        return [source.sample(int(index), rng) for index in rng.choice(source.training, options.batch_size)]

    return {
        "path": options.path,
        "frames": len(source.training),
        "cameras": len(source.camera_tags),
        "image_size": config.image_size,
        "first_open_s": round(times[0], 2),
        "next_open_s": round(times[1], 2),
        "samples_per_s": round(rate(lambda: [touch(s) for s in draw()], options)),
        "batched_per_s": round(rate(lambda: processor.collate(draw()), options)),
    }


def touch(sample) -> int:
    """Read every pixel: mapped memory costs nothing until it is read."""
    return sum(int(image.sum()) for image in sample.images.values())


def rate(work, options: argparse.Namespace) -> float:
    """Samples per second of wall time, after one call to warm up."""
    work()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < options.seconds:
        work()
        count += options.batch_size
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:  # DatasetError, EmbodimentError: the text says what to do
        sys.exit(f"{MAKER}: {error}")
