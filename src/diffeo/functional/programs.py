"""Stages in one call: a block of rows goes through all of them while it is in the cache.

For the backward pass only the stages' inputs are kept, ``(*batch, D)`` each; what the nets did in between is
computed again, block by block. So the memory of a training step does not grow with the width of the nets nor
with the number of their parameters.

A layer that the kernels know describes itself as a ``Stage`` (``Bijection.as_stages``), and a ``Chain``
hands each run of such neighbors to one C++ call. A block of 64 rows goes through all of them feature-major:
rows stand in the vector lanes, a spline's parameters never reach memory, and a masked layer stops at its
staircase without a mask. Computing the nets again costs a fourth product, where masks save half of all four.
One kernel a layer was the first plan; at small batches the calls cost more than their work.

``applies`` is the one predicate: plain float32 or float64 CPU tensors, and nothing that compiles,
transforms, casts or carries forward-mode tangents. Otherwise everything is PyTorch, so ``torch.compile``,
``torch.func`` and forward mode see through every layer. Second derivatives go through each stage's plain
meaning. Inverses are for sampling: asked for their gradient, layers answer in PyTorch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffeo.functional import matmul_precision, native, wire
from diffeo.functional.exact import HOOKS
from diffeo.functional.scalar import second_order
from diffeo.functional.stages import Stage
from diffeo.functional.wire import StageKind

Pair = tuple[Tensor, Tensor]


def applies(x: Tensor) -> bool:
    """Whether the kernels may take ``x``: float32 or float64 on the CPU, nothing tracing or transforming.

    Where it is False everything is plain PyTorch, which ``torch.compile``, ``torch.func`` and forward-mode
    derivatives see through.
    """
    return native.usable() and native.plain_tensor(x) and x.dim() > 0 and not matmul_precision.reduced()


def run_alone(
    describe: Callable[[Tensor | None], Sequence[Stage] | None],
    x: Tensor,
    context: Tensor | None,
    *,
    inverse: bool = False,
) -> Pair | None:
    """A layer's own call by the kernels, or None; nothing is described where they do not apply."""
    stages = describe(context) if applies(x) else None
    return None if stages is None else Program(stages).run(x, inverse=inverse)


class Program:
    """Stages, ready to be called.

    Args:
        stages: at least one, in the order of the chain.
    """

    def __init__(self, stages: Sequence[Stage]):
        self.stages = tuple(stages)
        records: list[wire.Record] = [wire.Program(len(stages))]
        for stage in stages:
            records += [wire.Stage(stage.kind, stage.inverted), *stage.records]
        self.integers, self.reals, self.tensors = wire.packed(records)
        self.floats = [t for t in self.tensors if t is not None and t.is_floating_point()]
        self.by_row = [t for stage in stages for t in stage.by_row]
        self.features = stages[0].features
        plain = all(t is None or type(t) in native.PLAIN for t in self.tensors)
        plain = plain and native.addressable(*self.floats)
        self.fits = plain and all(stage.fits for stage in stages)
        self.draws = any(stage.draws for stage in stages)
        # inverses have no gradient in the kernels
        backwards = [stage.inverted for stage in stages if stage.kind is not StageKind.PERMUTE]
        self.kept = len(backwards)
        self.differentiable = not any(backwards), all(backwards)
        self.solves = {stage.inverted for stage in stages if stage.kind is StageKind.RESIDUAL}

    def run(self, x: Tensor, *, inverse: bool = False) -> Pair | None:
        """``(value, log_det)``; None where the kernels cannot, and nothing is done.

        Inverses give no gradient here: ask while gradients are recorded and the answer is None.
        """
        dtype = x.dtype
        if not (self.fits and all(t.dtype is dtype and t.is_cpu for t in self.floats)):
            return None
        if x.shape[-1] != self.features or any(t.shape[:-1] != x.shape[:-1] for t in self.by_row):
            return None  # plain PyTorch broadcasts, or says what is wrong
        seed = int(torch.randint(2**32, ())) if self.draws else 0
        if torch.is_grad_enabled():
            learned = [i for i, t in enumerate(self.tensors) if t is not None and t.requires_grad]
            if learned or x.requires_grad:
                if not self.differentiable[inverse]:
                    return None
                return _Run.apply(self, inverse, seed, learned, x, *(self.tensors[i] for i in learned))
        if (not inverse) in self.solves:
            return self._solve(x, inverse, seed)
        return self.values(x, inverse, seed, keep=False)[:2]

    def _solve(self, x: Tensor, inverse: bool, seed: int) -> Pair | None:
        """In float64, without which no iteration could certify its result; None where one missed its goal."""
        program = self
        if x.dtype is not torch.float64:
            program = copy.copy(self)
            program.tensors = [
                None if t is None else t.to(_DOUBLED.get(t.dtype, t.dtype)) for t in self.tensors
            ]
        y, log_det, _ = program.values(x.double(), inverse, seed, keep=False)
        failed = y.isnan().any(-1) & ~x.isnan().any(-1)
        return None if bool(failed.any()) else (y.to(x.dtype), log_det.to(x.dtype))

    def values(self, x: Tensor, inverse: bool, seed: int, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Value and log-det, and what the backward pass needs if it is to be kept."""
        assert native.native is not None
        features, rows = _sizes(x)
        x = x.contiguous()
        y, log_det, saved = torch.empty_like(x), x.new_empty(x.shape[:-1]), None
        if keep:
            blocks = -(-rows // wire.ROWS)
            saved = x.new_empty(blocks * self.kept * features * wire.ROWS)
        native.native.run(
            x.dtype is torch.float64, inverse, torch.get_num_threads(), seed, rows, features,
            self.integers, self.reals, wire.addresses(self.tensors),
            x.data_ptr(), y.data_ptr(), log_det.data_ptr(), 0 if saved is None else saved.data_ptr(),
        )  # fmt: skip
        return y, log_det, saved

    def gradients(
        self, inverse: bool, seed: int, saved: Tensor, learned: Sequence[int], g_y: Tensor, g_log_det: Tensor
    ) -> list[Tensor]:
        """Gradients of the input and of the tensors numbered ``learned``."""
        assert native.native is not None
        features, rows = _sizes(g_y)
        grads = [torch.empty_like(self.tensors[i], memory_format=torch.contiguous_format) for i in learned]  # type: ignore[arg-type]
        where = [0] * len(self.tensors)
        for i, g in zip(learned, grads, strict=True):
            where[i] = g.data_ptr()
        g_y, g_log_det = g_y.contiguous(), g_log_det.contiguous()
        g_x = torch.empty_like(g_y)
        native.native.back(
            g_y.dtype is torch.float64, inverse, torch.get_num_threads(), seed, rows, features,
            self.integers, self.reals, wire.addresses(self.tensors), where,
            g_y.data_ptr(), g_log_det.data_ptr(), saved.data_ptr(), g_x.data_ptr(),
        )  # fmt: skip
        return [g_x, *grads]

    def plain_gradients(
        self, inverse: bool, seed: int, x: Tensor, learned: Sequence[int], g_y: Tensor, g_log_det: Tensor
    ) -> list[Tensor | None]:
        """The same by the stages' plain meaning; they can be differentiated again."""
        with torch.enable_grad():
            # views, or the gradient of one would take in its way into another
            start, tensors = x.view_as(x), list(self.tensors)
            for i in learned:
                tensors[i] = tensors[i].view_as(tensors[i])  # type: ignore[union-attr,arg-type]
            y, log_det, rest = start, torch.zeros_like(g_log_det), iter(tensors)
            own = [wire.refilled(stage.records, rest) for stage in self.stages]
            steps = list(enumerate(zip(self.stages, own, strict=True)))
            for number, (stage, given) in reversed(steps) if inverse else steps:
                y, more = stage.plain(y, given, seed + number * 0x9E3779B9)
                log_det = log_det + more
            inputs: list[Tensor] = [start, *(tensors[i] for i in learned)]  # type: ignore[misc]
            wanted = [t for t in inputs if t.requires_grad]
            found = iter(second_order((y, log_det), wanted, (g_y, g_log_det)))
            return [next(found) if t.requires_grad else None for t in inputs]


def _sizes(x: Tensor) -> tuple[int, int]:
    return x.shape[-1], x.numel() // max(1, x.shape[-1])


_DOUBLED = {torch.float32: torch.float64}


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        program: Program,
        inverse: bool,
        seed: int,
        learned: Sequence[int],
        x: Tensor,
        *tensors: Tensor,
    ):
        y, log_det, saved = program.values(x, inverse, seed, keep=True)
        ctx.program, ctx.how, ctx.learned = program, (inverse, seed), learned
        ctx.save_for_backward(saved, x)
        # what save_for_backward would see to, at a third of the time
        ctx.versions = [(t, t._version) for t in tensors]
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):
        saved, x = ctx.saved_tensors
        if any(t._version != version for t, version in ctx.versions):
            raise RuntimeError(
                "a parameter of this flow has been modified by an inplace operation since the forward pass; "
                "call backward before the optimizer's step."
            )
        # a derivative of this derivative may be asked for, or several at once by vmap
        if torch.is_grad_enabled() or not (native.usable() and native.addressable(*grad_outputs)):
            grads = ctx.program.plain_gradients(*ctx.how, x, ctx.learned, *grad_outputs)
        else:
            grads = ctx.program.gradients(*ctx.how, saved, ctx.learned, *grad_outputs)
        return None, None, None, None, *grads


class Snapshot:
    """All that a module and those in it hold, kept to see whether any of it is replaced or hooked later.

    Args:
        module: what was described.
    """

    def __init__(self, module: nn.Module):
        self.modules = list(module.modules())
        own = [vars(m) for m in self.modules]
        held = [held for m in self.modules for held in (m._parameters, m._buffers, m._modules)]
        self.filled, self.empty = [h for h in held if h], [h for h in held if not h]
        modes = [(o, name) for o in own for name in ("training", "activation", "dropout") if name in o]
        self.owners, self.names = zip(*modes, strict=True)
        self.counted = [*self.filled, *own]  # a forward set on a module is one more
        self.hooks = [o[name] for o in own for name in HOOKS]
        self.handles = -1
        self.before = [*self._objects()], [*map(len, self.counted)]
        self.tensors = [p for m in self.modules for p in m._parameters.values() if p is not None]
        self.sizes = [*map(Tensor.numel, self.tensors)]

    def same(self) -> bool:
        """Whether all is as it was, and nothing hooked; values may differ, tensors and modules may not."""
        objects, counts = self.before
        if RemovableHandle.next_id != self.handles:  # some hook was registered, here or elsewhere
            if any(self.hooks):
                return False
            self.handles = RemovableHandle.next_id
        return (
            not any(self.empty)
            and counts == [*map(len, self.counted)]
            and all(map(is_, self._objects(), objects))
            and self.sizes == [*map(Tensor.numel, self.tensors)]
            and all(map(Tensor.is_contiguous, self.tensors))
        )

    def _objects(self) -> Iterator[Any]:
        return chain(
            chain.from_iterable(map(dict.values, self.filled)),
            map(dict.get, self.owners, self.names),
            map(type, self.modules),
        )
