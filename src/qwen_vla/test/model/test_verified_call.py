# SPDX-License-Identifier: Apache-2.0
"""A faster variant is used for the shapes for which it proved to be as close to float32 as the plain function."""

import logging

import pytest
import torch

from qwen_vla.model.acceleration.float32 import Float32
from qwen_vla.model.acceleration.verified_call import REMEMBERED_SHAPES, VerifiedCall, relative_errors


def always(function):
    """A variant that needs no making."""
    return lambda plain, args, kwargs: function


def choices(call):
    return [decision.choice for decision in call.decisions.values()]


def test_a_wrong_variant_is_not_used_and_the_next_one_is_tried(caplog):
    call = VerifiedCall("sum", torch.add, {"wrong": always(lambda a, b: (a + b) * 1.001), "right": always(torch.add)})
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        a, b = torch.ones(3), torch.ones(3)
        for _ in range(2):
            assert torch.equal(call(a, b), a + b)
    assert choices(call) == ["right"]
    assert caplog.messages == ["sum: without wrong is 1.0e-03 from float32, more than 1.0e-05"]


def test_half_precision_is_judged_by_the_distance_from_float32_not_from_the_plain_result():
    """A variant that computes in float32 inside differs from the plain one by what is wrong with the plain one."""
    x, w = torch.randn(4, 512).bfloat16(), torch.randn(512, 512).bfloat16()

    def plain(x, w):
        for _ in range(4):
            x = (x @ w) / 16
        return x

    better = lambda x, w: plain(x.float(), w.float()).bfloat16()  # noqa: E731
    worse = lambda x, w: plain(x, w + 0.02 * w.abs().mean())  # noqa: E731
    with torch.no_grad():
        for variant, accepted in ((better, True), (plain, True), (worse, False)):
            call = VerifiedCall("product", plain, {"variant": always(variant)})
            call(x, w)
            (decision,) = call.decisions.values()
            assert (decision.choice == "variant") == accepted
            assert decision.plain_error > 1e-3 and (decision.error < decision.plain_error or variant is not better)


def test_nan_is_never_as_close():
    call = VerifiedCall("x", lambda x: x, {"nan": always(lambda x: x * torch.nan)})
    with torch.no_grad():
        call(torch.ones(3).bfloat16())
    assert choices(call)[0].startswith("plain")
    assert relative_errors([torch.tensor([-torch.inf, 1.0])], [torch.tensor([-torch.inf, 1.0])]) == [0.0]
    assert not relative_errors([torch.tensor([torch.nan])], [torch.ones(1)])[0] <= 1.0


def test_each_result_is_judged_by_itself():
    """The first is far from float32 in both; that must not excuse the second, which is exact in the plain function."""
    call = VerifiedCall("two", lambda x: (x.bfloat16(), x * 2), {"rough": always(lambda x: (x.bfloat16(), x * 2.001))})
    with torch.no_grad():
        call(torch.randn(100))
    assert choices(call) == ["plain: rough is 5.0e-04 from float32, more than 1.0e-05"]


def test_a_failing_variant_is_given_up_for_good(caplog):
    tried = []

    def fail(plain, args, kwargs):
        tried.append(1)
        raise RuntimeError("no compiler\nsecond line")

    call = VerifiedCall("sum", torch.add, {"compiled": fail})
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for size in (3, 4, 5):
            assert torch.equal(call(torch.ones(size), torch.ones(size)), torch.full((size,), 2.0))
    assert tried == [1] and caplog.messages == ["sum: without compiled failed (RuntimeError: no compiler)"]
    assert choices(call) == ["plain: compiled failed (RuntimeError: no compiler)"]


def test_a_slower_variant_is_not_used_for_these_shapes():
    def slow(a, b):
        for _ in range(200):
            torch.add(a, b)
        return torch.add(a, b)

    call = VerifiedCall("sum", torch.add, {"slow": always(slow)}, must_win=True)
    with torch.no_grad():
        call(torch.ones(2000), torch.ones(2000))
    assert "slow takes" in choices(call)[0] and call._variants, "it may be faster for others"


def test_a_shape_is_decided_once_and_forgotten_ones_again():
    made = []
    call = VerifiedCall("sum", torch.add, {"same": lambda plain, *_: made.append(1) or plain})
    with torch.no_grad():
        for size in [*range(1, REMEMBERED_SHAPES + 2), REMEMBERED_SHAPES, 1]:
            call(torch.ones(size), torch.ones(size))
    assert len(made) == REMEMBERED_SHAPES + 2 and len(call._chosen) == REMEMBERED_SHAPES


def test_gradients_take_the_plain_way():
    call = VerifiedCall("sum", torch.add, {"never": lambda *_: pytest.fail("must not be made")})
    x = torch.ones(3, requires_grad=True)
    call(x, x).sum().backward()
    assert x.grad is not None


# --- float32 without a copy of the weights ----------------------------------------------------------------------------


def test_half_precision_layers_answer_in_float32_as_if_they_were_float32():
    torch.manual_seed(0)
    half = torch.nn.Sequential(
        torch.nn.Embedding(7, 16), torch.nn.Linear(16, 16), torch.nn.LayerNorm(16), torch.nn.GELU()
    ).bfloat16()
    x = torch.arange(7)
    with torch.no_grad():
        with Float32():
            found = half(x)
        half_result = half(x)
        expected = half.float()(x)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert half_result.dtype == torch.bfloat16 and not torch.equal(half_result.float(), expected)


def test_code_that_asks_for_half_precision_gets_float32():
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    with torch.no_grad(), Float32():
        assert weight.dtype == torch.float32
        assert torch.full((1,), 1.001).to(weight.dtype).item() == pytest.approx(1.001, abs=1e-6)
        assert torch.full((1,), 1.001).to(torch.bfloat16).item() == pytest.approx(1.001, abs=1e-6)
    assert weight.dtype == torch.bfloat16
