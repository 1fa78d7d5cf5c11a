"""Stages in one call: a block of rows goes through all of them while it is in the cache.

For the backward pass only the stages' inputs are kept, ``(*batch, D)`` each; what the nets did in between is
computed again, block by block. So the memory of a training step does not grow with the width of the nets nor
with the number of their parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffeo.functional import native, products
from diffeo.functional.scalar import second_order
from diffeo.functional.stages import PERMUTE, Stacked, Stage

Pair = tuple[Tensor, Tensor]


def applies(x: Tensor) -> bool:
    """Whether the kernels may take ``x``: float32 or float64 on the CPU, nothing tracing or transforming.

    Where it is False everything is plain PyTorch, which ``torch.compile``, ``torch.func`` and forward-mode
    derivatives see through.
    """
    return native.usable() and native.plain_tensor(x) and x.dim() > 0 and not products.reduced()


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
        self.tensors = [t for stage in stages for t in stage.tensors]
        self.floats = [t for t in self.tensors if t is not None and t.is_floating_point()]
        self.plain = all(t is None or type(t) in native.PLAIN for t in self.tensors)
        self.ints, self.reals = [len(stages)], []
        for stage in stages:
            kind, *rest = stage.ints
            self.ints += [kind, stage.inverted, *rest]
            self.reals += stage.reals
        # inverses have no gradient in the kernels
        backwards = [stage.inverted for stage in stages if stage.ints[0] != PERMUTE]
        self.differentiable = not any(backwards), all(backwards)

    def run(self, x: Tensor, *, inverse: bool = False) -> Pair | None:
        """``(value, log_det)``; None where the kernels cannot, and nothing is done.

        Inverses give no gradient here: ask while gradients are recorded and the answer is None.
        """
        dtype = x.dtype
        if not (self.plain and all(t.dtype is dtype and t.is_cpu for t in self.floats)):
            return None
        if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in self.floats)):
            if not self.differentiable[inverse]:
                return None
            return _Run.apply(self, inverse, x, *self.tensors)  # type: ignore[no-any-return]
        return self.values(x, inverse, keep=False)[:2]

    def values(self, x: Tensor, inverse: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Value and log-det, and what the backward pass needs if it is to be kept."""
        assert native.native is not None
        features, rows = _sizes(x)
        x = x.contiguous()
        y, log_det, saved = torch.empty_like(x), x.new_empty(x.shape[:-1]), None
        if keep:
            blocks = -(-rows // native.native.ROWS)
            saved = x.new_empty(blocks * len(self.stages) * features * native.native.ROWS)
        native.native.run(
            x.dtype is torch.float64, inverse, torch.get_num_threads(), rows, features, self.ints, self.reals,
            [0 if t is None else t.data_ptr() for t in self.tensors],
            x.data_ptr(), y.data_ptr(), log_det.data_ptr(), 0 if saved is None else saved.data_ptr(),
        )  # fmt: skip
        return y, log_det, saved

    def gradients(
        self, inverse: bool, saved: Tensor, needed: Sequence[bool], g_y: Tensor, g_log_det: Tensor
    ) -> list[Tensor | None]:
        """Gradients of the input and of all tensors."""
        assert native.native is not None
        features, rows = _sizes(g_y)
        grads = [
            torch.empty_like(t, memory_format=torch.contiguous_format) if t is not None and need else None
            for t, need in zip(self.tensors, needed, strict=True)
        ]
        g_y, g_log_det = g_y.contiguous(), g_log_det.contiguous()
        g_x = torch.empty_like(g_y)
        native.native.back(
            g_y.dtype is torch.float64, inverse, torch.get_num_threads(), rows, features,
            self.ints, self.reals, [0 if t is None else t.data_ptr() for t in self.tensors],
            [0 if g is None else g.data_ptr() for g in grads],
            g_y.data_ptr(), g_log_det.data_ptr(), saved.data_ptr(), g_x.data_ptr(),
        )  # fmt: skip
        return [g_x, *grads]

    def plain_gradients(
        self, inverse: bool, x: Tensor, needed: Sequence[bool], g_y: Tensor, g_log_det: Tensor
    ) -> list[Tensor | None]:
        """The same by the stages' plain meaning; they can be differentiated again."""
        y, log_det = x, torch.zeros_like(g_log_det)
        for stage in reversed(self.stages) if inverse else self.stages:
            y, more = (stage.plain_inverse if inverse else stage.plain)(y)
            log_det = log_det + more
        inputs = [t if need else None for t, need in zip([x, *self.tensors], needed, strict=True)]
        wanted = [t for t in inputs if t is not None]
        found = iter(second_order((y, log_det), wanted, (g_y, g_log_det)))
        return [None if t is None else next(found) for t in inputs]


def _sizes(x: Tensor) -> tuple[int, int]:
    return x.shape[-1], x.numel() // max(1, x.shape[-1])


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, program: Program, inverse: bool, x: Tensor, *tensors: Tensor | None):
        y, log_det, saved = program.values(x, inverse, keep=True)
        ctx.program, ctx.inverse = program, inverse
        # the tensors too, though the program has them: so autograd notices one changed in place
        ctx.save_for_backward(saved, x, *tensors)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):
        program: Program = ctx.program
        saved, x, *_ = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # a derivative of this derivative may be asked for
            return None, None, *program.plain_gradients(ctx.inverse, x, needed, *grad_outputs)
        return None, None, *program.gradients(ctx.inverse, saved, needed[1:], *grad_outputs)


class Watch:
    """Tells whether anything that a description of a module's stages was made from has been replaced.

    Args:
        module: what was described.
    """

    def __init__(self, module: nn.Module):
        self.entries: list[tuple[dict[str, Any], str, Any]] = []
        self.shapes: list[tuple[Tensor, int]] = []
        for m in module.modules():
            for held in (m._parameters, m._buffers, m._modules):
                self.entries += [(held, name, value) for name, value in held.items()]
            if isinstance(m, Stacked):
                own = vars(m)
                self.entries += [(own, k, own[k]) for k in ("training", "activation", "dropout") if k in own]
            self.shapes += [(p, p.numel()) for p in m._parameters.values() if p is not None]

    def same(self) -> bool:
        """Whether all is as it was; values may differ, tensors and modules may not."""
        for held, name, value in self.entries:
            if held.get(name) is not value:
                return False
        return all(p.numel() == n and p.is_contiguous() for p, n in self.shapes)
