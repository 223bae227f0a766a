# SPDX-License-Identifier: Apache-2.0
"""Faster variants of a function, used only if they are as close to float32 as the function itself.

Two correct half-precision computations differ by rounding; whether one is as good as the other is decided by the
distance of each from float32 with the same weights, for the very arguments of the variant.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qwen_vla.model.acceleration.float32 import HALF, Float32

SLACK = 1.5  # of the plain function's distance from float32: with few numbers, rounding varies this much
EXACT = 1e-5  # relative distance always allowed: effect of the order of float32 sums
REMEMBERED_SHAPES = 512  # more than any robot needs; the least recently used is dropped
TIMED_RUNS = 5

Make = Callable[[Callable, tuple, dict[str, Any]], Callable]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """The choice for one set of argument shapes. choice: name of a variant, or ``plain: why``. error: distance of
    the choice from float32, plain_error: of the plain function. seconds: duration of the decision."""

    choice: str
    error: float
    plain_error: float
    seconds: float


class Refused(Exception):
    """Why a variant is not used; ``for_good``: also for other shapes."""

    def __init__(self, why: str, for_good: bool):
        super().__init__(why)
        self.for_good = for_good


class VerifiedCall:
    """A function, and the first of its faster variants that passed, per set of argument shapes.

    variants: by name, the fastest first. Each makes a faster function from (plain function, args, kwargs), or raises;
    one that raised or was too inaccurate is not tried again. must_win: also time both and keep the plain one unless the
    variant is faster. With gradients enabled the plain function runs.
    """

    def __init__(self, name: str, plain: Callable, variants: Mapping[str, Make], must_win: bool = False):
        self.name, self.plain, self._variants, self._must_win = name, plain, dict(variants), must_win
        self.decisions: dict[tuple, Decision] = {}
        self._chosen: OrderedDict[tuple, Callable] = OrderedDict()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return self.plain(*args, **kwargs)
        key = _signature((args, kwargs))
        if key not in self._chosen and not self._variants:
            return self.plain(*args, **kwargs)
        if key not in self._chosen:
            self._chosen[key] = self._decide(key, args, kwargs)
            while len(self._chosen) > REMEMBERED_SHAPES:
                self._chosen.popitem(last=False)
        self._chosen.move_to_end(key)
        return self._chosen[key](*args, **kwargs)

    def _decide(self, key: tuple, args: tuple, kwargs: dict[str, Any]) -> Callable:
        began = time.perf_counter()
        exact, plain_errors, allowed = self._references(args, kwargs)
        plain_error, refusals = max(plain_errors, default=0.0), []
        for name, make in list(self._variants.items()):
            try:
                fast, error = self._tried(make, args, kwargs, exact, allowed)
            except Refused as refusal:
                refusals.append(f"{name} {refusal}")
                logger.warning("%s: without %s", self.name, refusals[-1])
                if refusal.for_good:
                    del self._variants[name]
                continue
            self.decisions[key] = Decision(name, error, plain_error, time.perf_counter() - began)
            logger.info("%s: %s, %.1e from float32 (plain %.1e)", self.name, name, error, plain_error)
            return fast
        self.decisions[key] = Decision(
            "plain: " + "; ".join(refusals), plain_error, plain_error, time.perf_counter() - began
        )
        return self.plain

    def _references(self, args: tuple, kwargs: dict) -> tuple[list[torch.Tensor], list[float], list[float]]:
        """The results in float32, the plain function's distance from each, and the distance allowed for a variant.

        A half-precision result may always be off by its last rounding.
        """
        expected = _floats(self.plain(*args, **kwargs))
        if not any(tensor.dtype in HALF for tensor in expected):
            return expected, [0.0] * len(expected), [EXACT] * len(expected)
        with Float32():
            exact = [tensor.float() for tensor in _floats(self.plain(*args, **kwargs))]
        errors = relative_errors(expected, exact)
        roundings = [torch.finfo(t.dtype).eps / 2 if t.dtype in HALF else EXACT for t in expected]
        return exact, errors, [max(SLACK * e, r) for e, r in zip(errors, roundings, strict=True)]

    def _tried(
        self, make: Make, args: tuple, kwargs: dict, exact: list[torch.Tensor], allowed: list[float]
    ) -> tuple[Callable, float]:
        """The variant and its distance from float32, or Refused."""
        try:
            fast = make(self.plain, args, kwargs)
            errors = relative_errors(_floats(fast(*args, **kwargs)), exact)
        except Exception as problem:  # any error of a compiler or driver; the plain function still works
            raise Refused(f"failed ({type(problem).__name__}: {_first_line(problem)})", for_good=True) from problem
        for error, most in zip(errors, allowed, strict=True):
            if not error <= most:
                raise Refused(f"is {error:.1e} from float32, more than {most:.1e}", for_good=True)
        if self._must_win:
            before, after = (_seconds(f, args, kwargs) for f in (self.plain, fast))
            if after >= before:
                raise Refused(f"takes {1e3 * after:.1f} ms, not {1e3 * before:.1f} ms", for_good=False)
        return fast, max(errors, default=0.0)


def relative_errors(results: list[torch.Tensor], exact: list[torch.Tensor]) -> list[float]:
    """‖result − exact‖ / ‖exact‖ of each pair; equal entries, including infinite ones, have no difference."""
    errors = []
    for a, b in zip(results, exact, strict=True):
        a, b = a.float(), b.float()
        difference = torch.where(a == b, 0.0, a - b).norm()
        scale = torch.where(b.isinf(), 0.0, b).norm().clamp(min=torch.finfo(torch.float32).tiny)
        errors.append(float(difference / scale))
    return errors


def _floats(result: Any) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(result)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _signature(arguments: Any) -> tuple:
    leaves, spec = pytree.tree_flatten(arguments)
    described = tuple(
        (tuple(leaf.shape), leaf.dtype, leaf.device) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves
    )
    return spec, described


def _seconds(function: Callable, args: tuple, kwargs: dict[str, Any]) -> float:
    """Best of a few runs, including device work."""
    best = float("inf")
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        function(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [""])[0][:200]
