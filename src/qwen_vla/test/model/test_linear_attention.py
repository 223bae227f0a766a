# SPDX-License-Identifier: Apache-2.0
"""The adopted linear-attention layer gives transformers' own numbers, eagerly and as a compiler sees it."""

import pytest
import torch
from micro import micro_config
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

from qwen_vla.model.linear_attention import LinearAttention, delta_rule


@pytest.fixture(scope="module")
def layer():
    torch.manual_seed(0)
    config = micro_config(("linear_attention", "full_attention")).vlm_config.text_config
    own = Qwen3_5GatedDeltaNet(config, 0).eval()
    torch.nn.init.uniform_(own.dt_bias, -1, 1)
    return own


@pytest.mark.parametrize("masked", [False, True])
def test_output_and_gradients_are_transformers_own(layer, masked):
    x = torch.randn(2, 70, 64, requires_grad=True)
    mask = torch.ones(2, 70).long()
    mask[1, :9] = 0
    mask = mask if masked else None
    expected = Qwen3_5GatedDeltaNet.forward(layer, x, attention_mask=mask)
    expected_gradient = torch.autograd.grad(expected.square().sum(), x)[0]
    names = set(layer.state_dict())
    LinearAttention.adopt(layer)
    found = layer(x, attention_mask=mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], expected_gradient)
    assert set(layer.state_dict()) == names


def test_a_compiler_sees_one_graph_with_the_same_result(layer):
    """Its own convolution, and the recurrence as one operator."""
    LinearAttention.adopt(layer)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled, x = torch.compile(layer, backend=backend, fullgraph=True), torch.randn(2, 70, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x), atol=1e-5, rtol=1e-5)
    (graph,) = graphs
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert sum("delta_rule" in name for name in called) == 1 and not any("conv1d" in name for name in called)
    torch._dynamo.reset()


def test_the_operator_is_well_formed():
    """What PyTorch checks of an operator: schema, shapes without values, no aliasing."""
    query, key = torch.randn(2, 5, 2, 8).unbind()
    arguments = query[None], key[None], torch.randn(1, 5, 4, 8), -torch.rand(1, 5, 4), torch.rand(1, 5, 4)
    torch.library.opcheck(torch.ops.qwen_vla.delta_rule, arguments, test_utils=("test_schema", "test_faketensor"))
    torch.testing.assert_close(torch.ops.qwen_vla.delta_rule(*arguments), delta_rule(*arguments))
