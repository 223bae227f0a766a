# SPDX-License-Identifier: Apache-2.0
"""Computes action chunks in the fastest verified way on a device; results match the plain model.

`ChunkRunner` (runner) computes chunks. It uses prompts padded to a few lengths (prompt_lengths), faster variants used
only if they are as close to float32 as the plain model (verified_call, float32), CUDA graphs (replayed_call), blocks
compiled once per kind (compiled_blocks), and the Euler steps as one function (euler_loop). `quantization` is
separate: 8-bit weights.
"""

from qwen_vla.model.acceleration.prompt_lengths import PromptLengths
from qwen_vla.model.acceleration.runner import MODES, ChunkRunner

__all__ = ["MODES", "ChunkRunner", "PromptLengths"]
