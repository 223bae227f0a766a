"""Policies: an observation in, a chunk of actions in physical units out. Importing this loads no PyTorch.

`chunk_policy` is what every policy offers, `opening` finds one by its reference; `policy` is ours, opened by
`checkpoint`, and `mock` needs no model.
"""

from qwen_vla.policies.chunk_policy import (
    ActionChunk,
    BatchingPolicy,
    ChunkPolicy,
    ContinuingPolicy,
    Observation,
    PolicyOptions,
    PreparedPolicy,
)
from qwen_vla.policies.opening import open_policy, warm_up
from qwen_vla_control.observation.robot_streams import History

__all__ = [
    "ActionChunk",
    "BatchingPolicy",
    "ChunkPolicy",
    "ContinuingPolicy",
    "History",
    "Observation",
    "PolicyOptions",
    "PreparedPolicy",
    "open_policy",
    "warm_up",
]
