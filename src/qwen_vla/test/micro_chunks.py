# SPDX-License-Identifier: Apache-2.0
"""Chunks of micro models: by the model itself, by a runner, and by a runner whose parts run as on a GPU."""

import torch
from micro import TEMPLATE, pictures

from qwen_vla import Sample
from qwen_vla.model.acceleration import ChunkRunner
from qwen_vla.model.acceleration.euler_loop import EulerLoop
from qwen_vla.model.acceleration.replayed_call import ReplayedCall
from qwen_vla.model.acceleration.verified_call import VerifiedCall

PROMPT = TEMPLATE.replace("{instruction}", "pick up the red cube")
MASK = torch.ones(1, 4, 10, dtype=torch.bool)
LAYERS = ("linear_attention", "full_attention")


def padded(processor, length=None, prompt=PROMPT):
    return processor.collate([Sample(prompt, pictures(1)[0])], length=length)


def chunk(runner, batch, steps=4, seed=0):
    with torch.no_grad():
        context = runner.context(batch, MASK)
        return runner.sample_actions(context, MASK, steps, torch.Generator().manual_seed(seed)).clone()


def reference(model, batch, steps=4, seed=0):
    return model.predict_action_chunk(MASK, steps, torch.Generator().manual_seed(seed), **batch)


def replaying(model, steps=4):
    """A runner whose parts run as on a GPU, on fixed memory that is refilled for every chunk."""
    runner = ChunkRunner(model)
    runner.fixed_shapes = True

    def make(plain, args, kwargs):
        return ReplayedCall(plain, args, kwargs, torch.device("cpu"))

    runner._backbone = VerifiedCall("backbone", runner._plain_context, {"replay": make})
    loop = EulerLoop(model.action_expert, steps)
    runner._loops[steps] = loop, VerifiedCall("loop", loop, {"replay": make})
    return runner
