# SPDX-License-Identifier: Apache-2.0
"""Time and memory of loading a Qwen3.5 checkpoint as the backbone of a Qwen-VLA, on a CPU.

    .venv/bin/python benchmarks/loading.py FOLDER_OR_HUB_ID
    .venv/bin/python benchmarks/loading.py --write out/checkpoint_2gb      # makes one: random weights, 2 GB of bf16

Memory is told in two ways. Anonymous memory is what the process owns itself. Resident memory also counts pages of the
mapped files once they have been read; the system takes those back when it needs them. Peak: VmHWM, which unlike
ru_maxrss does not start at the size of the process that started this one.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from transformers.models.qwen3_5 import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from qwen_vla import QwenVLAConfig, QwenVLAModel, QwenVLAProcessor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--write", action="store_true", help="write a checkpoint of random weights there first")
    options = parser.parse_args()
    if options.write:
        write(Path(options.checkpoint))
    else:
        print(json.dumps(measure(options.checkpoint), indent=2))


def measure(source: str) -> dict[str, float]:
    """Seconds and megabytes (2**20 bytes); memory is the growth since before loading."""
    before, started = memory(), time.perf_counter()
    model, _ = QwenVLAModel.from_backbone(source)
    loaded, seconds = memory(), time.perf_counter() - started
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[::512].clone()  # one read per page
    touched, weights = memory(), sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    expert = sum(p.numel() * p.element_size() for p in model.action_expert.parameters()) / 2**20
    return {
        "weights_mb": weights,
        "of_which_new_expert_mb": expert,
        "seconds": seconds,
        "anonymous_after_loading_mb": loaded["RssAnon"] - before["RssAnon"],
        "resident_after_loading_mb": loaded["VmRSS"] - before["VmRSS"],
        "peak_after_reading_every_page_mb": touched["VmHWM"] - before["VmRSS"],
        "peak_over_weights": (touched["VmHWM"] - before["VmRSS"]) / weights,
    }


def memory() -> dict[str, float]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) / 1024 for name, value, _ in lines}


def write(folder: Path) -> None:
    """A Qwen3.5 of half the width of 4b in Qwen's layout, bf16, shards of 500 MB."""
    fields = QwenVLAConfig.preset("4b").vlm_config.to_dict()
    fields["text_config"].update(hidden_size=1280, intermediate_size=4608)
    fields["vision_config"].update(depth=6, out_hidden_size=1280)
    tokens = QwenVLAProcessor.from_scratch(["a text"], QwenVLAConfig.preset("tiny"), ()).tokenizer
    torch.set_default_dtype(torch.bfloat16)
    Qwen3_5ForConditionalGeneration(Qwen3_5Config(**fields)).save_pretrained(folder, max_shard_size="500MB")
    tokens.save_pretrained(folder)


if __name__ == "__main__":
    main()
