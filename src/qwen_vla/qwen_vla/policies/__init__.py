"""Policies map an observation to a chunk of actions in physical units. Importing this does not load PyTorch.

`chunk_policy` defines what every policy offers, `opening` opens one by its reference; `policy` is ours, opened by
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
