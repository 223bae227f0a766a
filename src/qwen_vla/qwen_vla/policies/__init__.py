# SPDX-License-Identifier: Apache-2.0
"""Policies map an observation to a chunk of actions in physical units. Importing this does not load PyTorch.

`chunk_policy` defines what every policy offers, `opening` opens one by its reference; `policy` is ours, opened by
`checkpoint`, and `mock` needs no model.
"""

from qwen_vla.policies.chunk_policy import (
    ActionChunk,
    BatchingPolicy,
    ChunkPolicy,
    ClosablePolicy,
    ContinuingPolicy,
    Observation,
    PolicyOptions,
    PreparedPolicy,
)
from qwen_vla.policies.opening import close_policy, open_policy, warm_up
from qwen_vla_control.observation.robot_streams import History

__all__ = [
    "ActionChunk",
    "BatchingPolicy",
    "ChunkPolicy",
    "ClosablePolicy",
    "ContinuingPolicy",
    "History",
    "Observation",
    "PolicyOptions",
    "PreparedPolicy",
    "close_policy",
    "open_policy",
    "warm_up",
]
