"""The fit loop's optimizer: all parameters as one vector.

With dozens of small tensors, going from one to the next took longer than the gradient. And the first
``torch.optim`` object of a process imports a compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors


@dataclass(frozen=True)
class OptimizerSettings:
    """How the optimizer goes; the defaults suit standardized tables of any size.

    Args:
        learning_rate: peak of the schedule; None for that of the flow's preset, 2e-3 without one.
        weight_decay: decoupled, as in AdamW.
        clip: largest gradient norm.
        ema: decay of the weights' running mean, which is what is measured and kept.
        patience: a run ends early when so large a part of its length passes without a better
            validation score; 1 turns early stopping off.
        matmul_dtype: dtype of the nets' matrix products while training; None for the flow's own.
            ``torch.bfloat16`` is faster for wide nets (hidden 512 and more) on processors that have it;
            weights, splines and every evaluation stay as they are. Compare held-out scores.
    """

    learning_rate: float | None = None
    weight_decay: float = 1e-4
    clip: float = 5.0
    ema: float = 0.999
    patience: float = 0.25
    matmul_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "clip", "ema", "patience"):
            value = getattr(self, name)  # of any make: a run is known by its settings
            object.__setattr__(self, name, None if value is None else float(value))


class FlatAdamW:
    """AdamW with clipping of the gradient and a running mean of the weights, over one flat vector.

    Small flows have some dozens of small tensors, and an optimizer that goes from one to the next takes
    longer than the gradient. Here the parameters become views of one vector (``release`` makes them their
    own again), so that each step is a handful of operations. The update itself is PyTorch's fused AdamW;
    ``torch.optim`` is not used, since its import alone takes more than half a second.

    Args:
        params: what to train, all of one dtype and device.
        mean: as many tensors, which follow the parameters as their running mean.
        weight_decay: decoupled.
        clip: largest gradient norm.

    References: Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """

    BETAS = 0.9, 0.999
    EPS = 1e-8

    def __init__(self, params: Sequence[Tensor], mean: Sequence[Tensor], weight_decay: float, clip: float):
        self.params, self.means = list(params), list(mean)
        self.weight_decay, self.clip = weight_decay, clip
        self.flat, self.mean = _flatten(self.params), _flatten(self.means)
        self.grad = torch.zeros_like(self.flat)
        zeros = torch.zeros_like
        self.state = {
            "m": zeros(self.flat),
            "v": zeros(self.flat),
            "step": torch.zeros((), device=self.flat.device),
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def gather(self) -> float:
        """Take the parameters' gradients; their norm before clipping."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        self.grad = _flatten_dense_tensors(grads)
        norm = self.grad.norm().item()
        if norm > self.clip:
            self.grad.mul_(self.clip / (norm + 1e-6))
        return norm

    @torch.no_grad()
    def step(self, learning_rate: float, decay: float) -> None:
        """Move the parameters by the gathered gradient, and their mean towards them by ``1 - decay``."""
        torch._fused_adamw_(  # type: ignore[attr-defined]
            [self.flat], [self.grad], [self.state["m"]], [self.state["v"]], [], [self.state["step"].add_(1)],
            lr=learning_rate, beta1=self.BETAS[0], beta2=self.BETAS[1], weight_decay=self.weight_decay,
            eps=self.EPS, amsgrad=False, maximize=False,
        )  # fmt: skip
        self.mean.lerp_(self.flat, 1 - decay)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Bring back a state saved from ``state``."""
        for name, own in self.state.items():
            own.copy_(state[name])

    def release(self) -> None:
        """Give every parameter storage of its own again."""
        for p in [*self.params, *self.means]:
            p.data = p.data.clone()


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One vector that the tensors are views of from now on."""
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    parts = flat.split([t.numel() for t in tensors])
    for t, part in zip(tensors, parts, strict=True):
        t.data = part.view(t.shape)
    return flat
