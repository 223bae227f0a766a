"""The fastest verified way to compute an action chunk on the device at hand; the numbers stay those of the plain model.

`ChunkRunner` (runner) computes chunks. Beneath it: prompts padded to a few lengths (prompt_lengths), faster variants
that are used only when they are as close to float32 as the plain model (verified_call, float32), CUDA graphs
(replayed_call), blocks compiled once per kind (compiled_blocks), and the Euler steps as one function (euler_loop).
`quantization` stands apart: weights of 8 bits.
"""

from qwen_vla.model.acceleration.prompt_lengths import PromptLengths
from qwen_vla.model.acceleration.runner import MODES, ChunkRunner

__all__ = ["MODES", "ChunkRunner", "PromptLengths"]
