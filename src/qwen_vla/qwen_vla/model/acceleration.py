"""The fastest verified way to compute an action chunk on the device at hand; the numbers stay those of the plain model.

Three things happen here. The AdaLN tables of a fixed τ grid are computed once and reused by every chunk. On a GPU the
Euler loop, the vision tower and the language tower are replayed as CUDA graphs. On request (``compile``) they are
compiled first. A faster variant is used only after it reproduced the plain one on the very inputs that it was made for;
otherwise the plain one stays, and a log line says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from qwen_vla.model.action_expert import ActionExpert, ExpertContext, is_full
from qwen_vla.model.flow_matching import tau_grid
from qwen_vla.model.modeling import Encoding, QwenVLAModel

MODES = ("auto", "off", "compile")
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
REMEMBERED_SHAPES = 8  # a prompt of another length is another shape; the least recently used is dropped
GRAPH_WARM_UP = 3  # runs on a side stream before capture, so that libraries have allocated what they need
TIMED_RUNS = 5
COMPILE_MESSAGE = (
    "compiling the %s for this machine: about a minute now, some seconds at later starts "
    "(accelerate='auto' starts without)"
)

logger = logging.getLogger(__name__)


class ModulationTables:
    """AdaLN parameters of every step of one τ grid: ``steps[i]`` is what ``ActionExpert.velocity`` takes at step i.

    They depend on weights alone. When the weights have changed they are refreshed in place, so that captured graphs,
    which read this memory, see the new values.
    """

    def __init__(self, expert: ActionExpert, count: int):
        self._expert, self._count = expert, count
        self._weights = [
            *expert.timestep_embedding.parameters(),
            *(block.modulation.weight for block in expert.blocks),
            expert.out_modulation.weight,
        ]
        self._made_from: tuple | None = None
        self._tables: list[torch.Tensor] = []
        self.steps: list[list[torch.Tensor]] = []

    def refresh(self) -> None:
        """Recompute if a weight was changed or moved since the last call."""
        now = tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in self._weights)
        if now == self._made_from:
            return
        with torch.inference_mode(False), torch.no_grad():  # what is made in inference mode can never be refreshed
            self._recompute()
        self._made_from = now

    def _recompute(self) -> None:
        fresh = self._expert.modulations(tau_grid(self._count, self._weights[0].device)[:-1])
        if self._tables and self._tables[0].device == fresh[0].device and self._tables[0].dtype == fresh[0].dtype:
            torch._foreach_copy_(self._tables, fresh)
        else:
            self._tables = fresh
            self.steps = [[table[i : i + 1] for table in fresh] for i in range(self._count)]


class EulerLoop:
    """All Euler steps of a chunk as a function of tensors: static shapes, no look at any value on the host."""

    def __init__(self, expert: ActionExpert, count: int, velocity: Callable[..., torch.Tensor]):
        self.tables = ModulationTables(expert, count)
        times = tau_grid(count)
        self._increments = [float(b - a) for a, b in zip(times[:-1], times[1:], strict=True)]
        self._velocity = velocity

    def __call__(self, context: dict[str, Any], mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Noise [B, H, K] at τ = 1 to actions at τ = 0. ``context``: the fields of an ``ExpertContext``."""
        y = torch.where(mask, noise, 0.0)
        for increment, table in zip(self._increments, self.tables.steps, strict=True):
            y = y + increment * torch.where(mask, self._velocity(context, y, table), 0.0)
        return y


class VerifiedCall:
    """A function, and a faster variant of it that is used for those argument shapes for which it was verified.

    make_fast: given the arguments of the first call of a shape, returns the variant, or raises. must_win: also time
    both and keep the plain one unless the variant is faster. With gradients enabled the plain function runs.
    """

    def __init__(self, name: str, plain: Callable, make_fast: Callable[..., Callable], must_win: bool = False):
        self.name, self.plain, self._make_fast, self._must_win = name, plain, make_fast, must_win
        self.decisions: dict[tuple, str] = {}
        self._chosen: OrderedDict[tuple, Callable] = OrderedDict()
        self._given_up = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._given_up or torch.is_grad_enabled():
            return self.plain(*args, **kwargs)
        key = _signature((args, kwargs))
        if key not in self._chosen:
            self._chosen[key] = self._decide(key, args, kwargs)
            while len(self._chosen) > REMEMBERED_SHAPES:
                self._chosen.popitem(last=False)
        self._chosen.move_to_end(key)
        return self._chosen[key](*args, **kwargs)

    def _decide(self, key: tuple, args: tuple, kwargs: dict[str, Any]) -> Callable:
        expected = self.plain(*args, **kwargs)
        try:
            fast = self._make_fast(self.plain, args, kwargs)
            error, allowed = relative_error(fast(*args, **kwargs), expected)
        except Exception as problem:  # whatever a compiler or a driver raises, the plain function still works
            self._given_up = True
            return self._stay(key, f"the faster variant failed ({type(problem).__name__}: {_first_line(problem)})")
        if not error <= allowed:
            self._given_up = True
            return self._stay(key, f"the faster variant is off by {error:.1e}, more than {allowed:.0e}")
        if self._must_win:
            before, after = (_seconds(f, args, kwargs) for f in (self.plain, fast))
            if after >= before:
                return self._stay(key, f"the faster variant takes {1e3 * after:.1f} ms, not {1e3 * before:.1f} ms")
        self.decisions[key] = "accelerated"
        logger.info("%s: accelerated, relative error %.1e", self.name, error)
        return fast

    def _stay(self, key: tuple, why: str) -> Callable:
        self.decisions[key] = f"plain: {why}"
        logger.warning("%s stays plain: %s", self.name, why)
        return self.plain


class ReplayedCall:
    """A function captured once as a CUDA graph and replayed on new values of the same shapes.

    The arguments are copied to fixed memory before each replay and the results copied out after it. On other devices
    the function itself runs on that memory, which is how this class is tested.
    """

    def __init__(self, function: Callable, args: tuple, kwargs: dict[str, Any]):
        leaves, self._spec = pytree.tree_flatten((args, kwargs))
        self._is_tensor = [isinstance(leaf, torch.Tensor) for leaf in leaves]
        with torch.inference_mode(False), torch.no_grad():
            self._memory = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        devices = {m.device for m, tensor in zip(self._memory, self._is_tensor, strict=True) if tensor}
        if any(device.type == "cuda" for device in devices):
            self._capture()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        for target, leaf, tensor in zip(self._memory, leaves, self._is_tensor, strict=True):
            if tensor:
                target.copy_(leaf, non_blocking=True)
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return pytree.tree_map_only(torch.Tensor, torch.clone, self._result)

    def _run(self) -> Any:
        args, kwargs = pytree.tree_unflatten(self._memory, self._spec)
        return self._function(*args, **kwargs)

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(GRAPH_WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = self._run()


class ChunkRunner:
    """``encode`` and ``sample_actions`` of a model, the fastest verified way.

    mode: ``auto`` starts at once (CUDA graphs on a GPU, cached tables everywhere); ``compile`` also lets
    torch.compile fuse operations, which takes about a minute when it runs for the first time on a machine, and again
    for the second length of prompt; ``off`` calls the model's own methods. The weights may change between chunks; their
    shapes and device may not.
    """

    def __init__(self, model: QwenVLAModel, mode: str = "auto"):
        if mode not in MODES:
            raise ValueError(f"accelerate {mode!r} is not one of {', '.join(MODES)}")
        self.model, self.mode = model, mode
        self._loops: dict[int, tuple[EulerLoop, Callable]] = {}
        self._towers: dict[nn.Module, VerifiedCall] = {}
        self._compiled_velocity: Callable | None = None
        self._announced_names: set[str] = set()
        on_gpu = model.device.type == "cuda"
        if mode != "off" and (on_gpu or mode == "compile"):
            self._wrap(model.vlm.model.language_model, "language tower")
            if on_gpu:  # on a CPU compiling the vision tower brought nothing
                self._wrap(model.vlm.model.visual, "vision tower")

    def encode(self, batch: dict[str, torch.Tensor]) -> Encoding:
        """``QwenVLAModel.encode`` of a batch as the processor returns it.

        What depends on the batch's values is computed before it goes to the device, which then never has to be asked.
        """
        batch, mask = dict(batch), batch.get("attention_mask")
        batch["position_ids"] = self.model.positions(batch["input_ids"], mask, batch.get("image_grid_thw"))
        if mask is not None and is_full(mask):
            del batch["attention_mask"]
        device = self.model.device
        batch = {name: t if name == "image_grid_thw" else t.to(device, non_blocking=True) for name, t in batch.items()}
        with self.towers():
            return self.model.encode(**batch)

    @contextlib.contextmanager
    def towers(self) -> Iterator[None]:
        """While active, the model's vision and language tower run their verified variants."""
        for module, call in self._towers.items():
            module.forward = call
        try:
            yield
        finally:
            for module in self._towers:
                del module.forward

    @torch.no_grad()
    def sample_actions(
        self,
        encoding: Encoding,
        action_mask: torch.Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``QwenVLAModel.sample_actions`` with the same arguments and, within the tolerance, the same result."""
        steps = self.model.config.euler_steps if steps is None else steps
        if self.mode == "off":
            return self.model.sample_actions(encoding, action_mask, steps, generator, noise)
        context = self.model.expert_context(encoding, action_mask.bool().any(dim=-1))
        mask = action_mask.to(encoding.hidden.device).bool()
        if noise is None:
            noise = self.model._noise(mask, context.tokens.dtype, generator)
        return self.integrate(context, mask, noise, steps)

    def integrate(self, context: ExpertContext, mask: torch.Tensor, noise: torch.Tensor, steps: int) -> torch.Tensor:
        """The Euler steps alone: noise [B, H, K] at τ = 1 to actions at τ = 0."""
        loop, call = self._loop(steps)
        loop.tables.refresh()
        return call({f.name: getattr(context, f.name) for f in dataclasses.fields(context)}, mask, noise)

    def decisions(self) -> dict[str, list[str]]:
        """What was chosen so far, per part: ``accelerated`` or ``plain: why``."""
        calls = [*self._towers.values(), *(c for _, c in self._loops.values() if isinstance(c, VerifiedCall))]
        return {call.name: list(call.decisions.values()) for call in calls}

    def _loop(self, steps: int) -> tuple[EulerLoop, Callable]:
        if steps not in self._loops:
            expert = self.model.action_expert

            def velocity(context: dict[str, Any], noisy: torch.Tensor, table: list[torch.Tensor]) -> torch.Tensor:
                return expert.velocity(ExpertContext(**context), noisy, table)

            loop = call = EulerLoop(expert, steps, velocity)
            name = f"Euler loop of {steps} steps"
            if self.mode == "compile":
                if self._compiled_velocity is None:
                    self._compiled_velocity = torch.compile(velocity)
                fused = EulerLoop(expert, steps, self._compiled_velocity)
                fused.tables = loop.tables
                call = VerifiedCall(name, loop, self._announced("action expert", fused), must_win=True)
            elif self.model.device.type == "cuda":
                call = VerifiedCall(name, loop, ReplayedCall)
            self._loops[steps] = loop, call
        return self._loops[steps]

    def _wrap(self, module: nn.Module, name: str) -> None:
        plain, compiles = module.forward, self.mode == "compile"
        make_fast = self._announced(name, torch.compile(plain)) if compiles else ReplayedCall
        self._towers[module] = VerifiedCall(name, plain, make_fast, must_win=compiles)

    def _announced(self, name: str, compiled: Callable) -> Callable[..., Callable]:
        """Maker of the compiled variant for ``VerifiedCall``; on a GPU the compiled function is then captured."""

        def make(plain: Callable, args: tuple, kwargs: dict[str, Any]) -> Callable:
            if name not in self._announced_names:
                logger.warning(COMPILE_MESSAGE, name)
                self._announced_names.add(name)
            if self.model.device.type == "cuda":
                return ReplayedCall(compiled, args, kwargs)
            return compiled

        return make


def relative_error(result: Any, expected: Any) -> tuple[float, float]:
    """‖result − expected‖ / ‖expected‖ over all floating-point tensors, the worst of them, and what is allowed."""
    worst, allowed = 0.0, min(TOLERANCES.values())
    pairs = zip(pytree.tree_leaves(result), pytree.tree_leaves(expected), strict=True)
    for a, b in pairs:
        if isinstance(b, torch.Tensor) and b.is_floating_point():
            norm = b.float().norm()
            error = float((a.float() - b.float()).norm() / norm.clamp(min=torch.finfo(torch.float32).tiny))
            worst = max(worst, error) if error == error else float("nan")
            allowed = max(allowed, TOLERANCES.get(b.dtype, 0.0))
    return worst, allowed


def _signature(arguments: Any) -> tuple:
    leaves, spec = pytree.tree_flatten(arguments)
    described = tuple(
        (tuple(leaf.shape), leaf.dtype, leaf.device) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves
    )
    return spec, described


def _seconds(function: Callable, args: tuple, kwargs: dict[str, Any]) -> float:
    """Best of a few runs, device work included."""
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
